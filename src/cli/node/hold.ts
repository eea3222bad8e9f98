import { setTimeout as delay } from 'node:timers/promises'
import { describeError } from '../../log/redact.ts'
import type { Terminal } from '../terminal.ts'

export type Holding = {
  /** Between two looks; undefined: there is nothing to look at. */
  readonly everyMs: number | undefined
  /** One look. `told` says whether a line is new. A look that fails is told, and the next one follows. */
  readonly again: (told: (line: string) => boolean) => Promise<unknown>
  readonly terminal: Terminal
}

/** Looks again and again until SIGTERM or SIGINT. */
export async function hold({ everyMs, again, terminal }: Holding): Promise<void> {
  const stop = new AbortController()
  const end = (): void => stop.abort()
  process.once('SIGTERM', end).once('SIGINT', end)
  const seen = new Set<string>()
  const told = (line: string): boolean => !seen.has(line) && seen.add(line) !== undefined
  try {
    while (!stop.signal.aborted) {
      // A timer also keeps the process alive where there is nothing to look at.
      await delay(everyMs ?? 2 ** 30, undefined, { signal: stop.signal }).catch(() => undefined)
      if (stop.signal.aborted) return
      await again(told).catch((error: unknown) => {
        const line = `layover: ${describeError(error)}`
        if (told(line)) terminal.err(`${line}\n`)
      })
    }
  } finally {
    process.off('SIGTERM', end).off('SIGINT', end)
  }
}
