/**
 * Figures that are only ever added to, and that outlive the process: what was served, what was fetched, and what they cost. Replicas that share a
 * store share the figures. They are kept by hour for three days, by day for thirteen months, and by month for ever.
 */
export interface Totals {
  /**
   * Adds a batch, all of it or nothing. A batch that is given again, because nobody knows whether it arrived, changes nothing. Rejects when it cannot
   * be told that it is in; it is then to be given again, unchanged, before any other.
   */
  add(batch: TotalsBatch): Promise<void>
  /** What was added, by `span`, in the periods that end after `since` (epoch milliseconds; default: all). Rejects when the store cannot tell. */
  read(span: Span, since?: number): Promise<TotalsRead>
  /** True for one of the processes that share these totals: it counts what is to be counted once for all of them. Never rejects. */
  leads(): Promise<boolean>
}

export type Span = 'hours' | 'days' | 'months'

export type TotalsBatch = {
  /** Larger than that of every other batch of this process. */
  readonly number: number
  /** Epoch milliseconds: when this process began to count. That of the first batch is when the totals began. */
  readonly began: number
  /** Epoch milliseconds: in which hour, day and month it counts. */
  readonly at: number
  /** By name; a name has no spaces at its ends and no line breaks. Whole numbers below 2^53 stay exact. */
  readonly amounts: ReadonlyMap<string, number>
}

export type TotalsRead = {
  /** When the process began to count that added the first batch; undefined: none was added. */
  readonly began: number | undefined
  readonly entries: readonly TotalsEntry[]
}

/** `period`: `2026-11`, `2026-11-28` or `2026-11-28T16`, in UTC. */
export type TotalsEntry = { readonly period: string; readonly name: string; readonly amount: number }

const hourMs = 3_600_000
const dayMs = 24 * hourMs

/** How long the finer figures are kept at least. */
export const keptMs = { hours: 3 * dayMs, days: 400 * dayMs } as const

/** The hour, the day and the month of a moment, in UTC: bills are made by the month. */
export function periodsOf(at: number): Readonly<Record<Span, string>> {
  const text = new Date(at).toISOString()
  return { hours: text.slice(0, 13), days: text.slice(0, 10), months: text.slice(0, 7) }
}

/** The first moment of a period, epoch milliseconds. */
export function startOf(period: string): number {
  return Date.parse(period.length === 13 ? `${period}:00:00Z` : `${period.padEnd(10, '-01')}T00:00:00Z`)
}
