import type { Clock } from '../clock.ts'
import {
  periodsOf,
  type Span,
  type Totals,
  type TotalsBatch,
  type TotalsEntry,
  type TotalsRead,
} from '../store/totals.ts'
import type { Amounts } from './amounts.ts'

export type LedgerOptions = {
  readonly totals: Totals
  /** The counters since the start of this process; they only grow. */
  readonly read: () => Amounts
  readonly clock: Clock
  /** Told once when the store cannot be used, and again after it could be. */
  readonly failed: (error: unknown) => void
  /** How often what is new is written, and what others wrote is read. */
  readonly everyMs?: number
}

/**
 * The counters of this process and what came before it, or comes from its replicas. What is new is written behind, every two seconds and at the end;
 * while the store is away it is kept, and written when it is back. A process that is killed takes at most the last of it along.
 */
export class Ledger {
  readonly #options: LedgerOptions
  readonly #timer: NodeJS.Timeout
  /** What is in a batch already, by name. */
  #counted: Amounts = new Map()
  /** Not known to be in the store. */
  #pending: TotalsBatch | undefined
  #number = 0
  #stored: TotalsRead = { began: undefined, entries: [] }
  /** Added up once for each look at the store: months are many after some years, and a scrape wants sums. */
  #sums:
    | { readonly of: TotalsRead; readonly month: string; readonly all: Amounts; readonly current: Amounts }
    | undefined
  #leads = false
  #isFailing = false
  readonly #began: number
  #flushing: Promise<void> | undefined

  constructor(options: LedgerOptions) {
    this.#options = options
    this.#began = options.clock.now()
    this.#timer = setInterval(() => void this.flush(), options.everyMs ?? 2_000).unref()
  }

  /** True for one of the replicas that share the totals, as of the last time that they were asked. */
  get leads(): boolean {
    return this.#leads
  }

  /** By month: what the store last said, and what is not in it yet. */
  months(): TotalsRead {
    return { began: this.#stored.began, entries: this.#withNew('months', this.#stored.entries) }
  }

  /** All months together, by name. */
  lifetime(): Amounts {
    return this.#plusNew(this.#storedSums().all, () => true)
  }

  /** The month that runs, by name. */
  thisMonth(): Amounts {
    const { month, current } = this.#storedSums()
    return this.#plusNew(current, at => periodsOf(at).months === month)
  }

  /** By hour or by day, from the period on that holds `since`. Rejects when the store cannot tell. */
  async since(span: Span, since: number): Promise<readonly TotalsEntry[]> {
    await this.flush()
    const { entries } = await this.#options.totals.read(span, since)
    return this.#withNew(span, entries)
  }

  /** Writes what is new and reads what others wrote. Never rejects. */
  flush(): Promise<void> {
    return (this.#flushing ??= this.#flush().finally(() => (this.#flushing = undefined)))
  }

  /** Writes what is new. Whoever counts has stopped. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#flushing
    await this.flush()
  }

  async #flush(): Promise<void> {
    const { totals, failed } = this.#options
    try {
      // Twice: after one that was kept while the store was away comes what has been counted since.
      for (let batches = 0; batches < 2; batches++) await this.#write()
      this.#stored = await totals.read('months')
      this.#isFailing = false
    } catch (error) {
      if (!this.#isFailing) failed(error)
      this.#isFailing = true
    }
    this.#leads = await totals.leads()
  }

  async #write(): Promise<void> {
    const batch = (this.#pending ??= this.#nextBatch())
    if (!batch) return
    await this.#options.totals.add(batch)
    this.#stored = {
      began: this.#stored.began ?? batch.began,
      entries: withBatch('months', this.#stored.entries, batch),
    }
    this.#pending = undefined
  }

  #nextBatch(): TotalsBatch | undefined {
    const current = this.#options.read()
    const amounts = grown(this.#counted, current)
    if (amounts.size === 0) return undefined
    this.#counted = new Map(current)
    return { number: ++this.#number, began: this.#began, at: this.#options.clock.now(), amounts }
  }

  #storedSums() {
    const month = periodsOf(this.#options.clock.now()).months
    if (this.#sums?.of === this.#stored && this.#sums.month === month) return this.#sums
    const { entries } = this.#stored
    const current = entries.filter(({ period }) => period === month)
    return (this.#sums = { of: this.#stored, month, all: sumsOf(entries), current: sumsOf(current) })
  }

  #plusNew(stored: Amounts, counts: (at: number) => boolean): Amounts {
    const sums = new Map(stored)
    const add = (amounts: Amounts): void => {
      for (const [name, amount] of amounts) sums.set(name, (sums.get(name) ?? 0) + amount)
    }
    if (this.#pending && counts(this.#pending.at)) add(this.#pending.amounts)
    add(grown(this.#counted, this.#options.read()))
    return sums
  }

  #withNew(span: Span, entries: readonly TotalsEntry[]): readonly TotalsEntry[] {
    const now = { at: this.#options.clock.now(), amounts: grown(this.#counted, this.#options.read()) }
    return withBatch(span, this.#pending ? withBatch(span, entries, this.#pending) : entries, now)
  }
}

function sumsOf(entries: readonly TotalsEntry[]): Amounts {
  const sums = new Map<string, number>()
  for (const { name, amount } of entries) sums.set(name, (sums.get(name) ?? 0) + amount)
  return sums
}

function grown(before: Amounts, now: Amounts): Amounts {
  const more = [...now].map(([name, amount]) => [name, amount - (before.get(name) ?? 0)] as const)
  return new Map(more.filter(([, amount]) => amount > 0))
}

function withBatch(
  span: Span,
  entries: readonly TotalsEntry[],
  { at, amounts }: Pick<TotalsBatch, 'at' | 'amounts'>,
): readonly TotalsEntry[] {
  if (amounts.size === 0) return entries
  const period = periodsOf(at)[span]
  const rest = new Map(amounts)
  const raised = entries.map(entry => {
    const more = entry.period === period ? rest.get(entry.name) : undefined
    if (more === undefined) return entry
    rest.delete(entry.name)
    return { ...entry, amount: entry.amount + more }
  })
  return [...raised, ...[...rest].map(([name, amount]) => ({ period, name, amount }))]
}
