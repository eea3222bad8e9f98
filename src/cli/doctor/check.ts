import { describeError, redactText } from '../../log/redact.ts'

export type Verdict = 'ok' | 'warn' | 'FAIL'

/** One line of the report. Texts hold no secrets. */
export type Finding = {
  readonly check: string
  readonly verdict: Verdict
  readonly found: string
  /** What to do; undefined when there is nothing to do. */
  readonly advice: string | undefined
}

/** What a running check has: whom to tell, and when to stop. */
export type CheckContext = {
  /** Fires when the time of this check is over. */
  readonly signal: AbortSignal
  /** Says what is being tried, for the case that it never ends. */
  step(doing: string): void
  ok(found: string): void
  warn(found: string, advice: string): void
  fail(found: string, advice: string): void
}

/** One thing to look at. What `run` throws becomes a FAIL of its own. */
export type Check = { readonly name: string; readonly run: (context: CheckContext) => Promise<void> }

/** How long a check that was told to stop may take to clean up before it is left behind. */
const graceMs = 500

/** Runs one check for at most `timeBoxMs`. Gives what was found until then; never rejects. */
export async function runCheck(check: Check, timeBoxMs: number): Promise<readonly Finding[]> {
  const findings: Finding[] = []
  const stop = new AbortController()
  let doing = 'it'
  let isOpen = true
  const tell = (verdict: Verdict, found: string, advice?: string): void => {
    if (!isOpen) return
    findings.push({
      check: check.name,
      verdict,
      found: redactText(found),
      advice: advice === undefined ? undefined : redactText(advice),
    })
  }
  const context: CheckContext = {
    signal: stop.signal,
    step: what => {
      doing = what
    },
    ok: found => tell('ok', found),
    warn: (found, advice) => tell('warn', found, advice),
    fail: (found, advice) => tell('FAIL', found, advice),
  }
  const work = check.run(context).catch((error: unknown) => {
    tell('FAIL', describeError(error), 'this is not expected: run again, and report it if it stays')
  })
  if ((await within(work, timeBoxMs)) === 'late') {
    tell('FAIL', `no answer within ${timeBoxMs / 1000} s: ${doing}`, lateAdvice)
    isOpen = false
    stop.abort(new Error('the time for this check is over'))
    await within(work, graceMs)
  }
  return findings
}

const lateAdvice = 'see whether a firewall drops packets on the way, or the other side is overloaded'

async function within(work: Promise<void>, ms: number): Promise<'done' | 'late'> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>(resolve => {
    timer = setTimeout(() => resolve('late'), ms)
  })
  try {
    return await Promise.race([work.then(() => 'done' as const), late])
  } finally {
    clearTimeout(timer)
  }
}
