import { setTimeout as delay } from 'node:timers/promises'
import { describeError } from '../../log/redact.ts'
import type { Terminal } from '../terminal.ts'

/** SIGTERM and SIGINT as a signal to abort by. Release it, else the process does not end by them. */
export type Stop = { readonly signal: AbortSignal; release(): void }

/** As the first process of a container, who has no handler is not ended by SIGTERM: so this comes before all work. */
export function listenForStop(): Stop {
  const stop = new AbortController()
  const end = (): void => stop.abort()
  process.on('SIGTERM', end).on('SIGINT', end)
  return { signal: stop.signal, release: () => void process.off('SIGTERM', end).off('SIGINT', end) }
}

export type Holding = {
  readonly signal: AbortSignal
  /** Between two looks; undefined: there is nothing to look at. */
  readonly everyMs: number | undefined
  /** One look. `told` says whether a line is new. A look that fails is told once, and the next one follows. */
  readonly again: (told: (line: string) => boolean) => Promise<unknown>
  readonly terminal: Pick<Terminal, 'err'>
}

/** Looks again and again until it is told to stop. */
export async function hold({ signal, everyMs, again, terminal }: Holding): Promise<void> {
  const seen = new Set<string>()
  const told = (line: string): boolean => !seen.has(line) && seen.add(line) !== undefined
  while (!signal.aborted) {
    // A timer also keeps the process alive where there is nothing to look at.
    await delay(everyMs ?? 2 ** 30, undefined, { signal }).catch(() => undefined)
    if (signal.aborted) return
    await again(told).catch((error: unknown) => {
      const line = `layover: ${describeError(error)}`
      if (told(line)) terminal.err(`${line}\n`)
    })
  }
}
