import { readFileSync } from 'node:fs'
import type { Sqlite } from './sqlite.ts'

export type Run = {
  /** How the run before this one ended. `none`: this index is new. */
  readonly before: 'ended' | 'killed' | 'machine-stopped' | 'none'
  /** Notes that this run ended in order. */
  end(): void
}

/** Notes that a run starts, and tells how the one before ended. */
export function startRun(sqlite: Sqlite): Run {
  const last = sqlite.prepare('SELECT boot, ended FROM runs WHERE id = 1').get()
  const note = sqlite.prepare('INSERT OR REPLACE INTO runs VALUES (1, ?, ?)')
  const boot = bootId()
  note.run(boot, 0)
  return { before: howItEnded(last, boot), end: () => void note.run(boot, 1) }
}

/**
 * Files without a row: after a power loss, which may take the last transactions, and when the index is new. A process that was killed
 * leaves none, because the system still has what it wrote.
 */
export function orphansAreLikely({ before }: Run): boolean {
  return before === 'none' || before === 'machine-stopped'
}

function howItEnded(last: Record<string, unknown> | undefined, boot: string): Run['before'] {
  if (last === undefined) return 'none'
  if (last.ended === 1) return 'ended'
  return boot !== '' && last.boot === boot ? 'killed' : 'machine-stopped'
}

/** Another one for each start of the machine; empty where the system does not tell. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return ''
  }
}
