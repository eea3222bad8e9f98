import type { Sqlite } from './sqlite.ts'
import { keptMs, periodsOf, type Span, type Totals, type TotalsBatch, type TotalsRead } from './totals.ts'

/** How long a period is written: `2026-11`, `2026-11-28`, `2026-11-28T16`. */
const lengths: Readonly<Record<Span, number>> = { hours: 13, days: 10, months: 7 }

/** Totals in the embedded index. They are lost with it: a damaged index is replaced by an empty one, and the totals begin anew. */
export class SqliteTotals implements Totals {
  readonly #sqlite: Sqlite
  readonly #statements: ReturnType<typeof prepare>
  /** The last batch that is in. One process has the index, so it need not be in the file. */
  #last = 0
  #prunedOn = ''

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite
    this.#statements = prepare(sqlite)
  }

  async add({ number, began, at, amounts }: TotalsBatch): Promise<void> {
    if (number <= this.#last) return
    const { hours, days, months } = periodsOf(at)
    this.#sqlite.transaction(() => {
      this.#statements.begin.run(began)
      for (const [name, amount] of amounts)
        for (const period of [hours, days, months]) this.#statements.add.run(period, name, amount)
      if (days !== this.#prunedOn) this.#prune(at)
    })
    this.#last = number
    this.#prunedOn = days
  }

  async read(span: Span, since = 0): Promise<TotalsRead> {
    const began = this.#statements.began.get()?.amount
    const rows = this.#statements.read.all(lengths[span], periodsOf(since)[span])
    return {
      began: began === undefined ? undefined : Number(began),
      entries: rows.map(({ period, name, amount }) => ({
        period: String(period),
        name: String(name),
        amount: Number(amount),
      })),
    }
  }

  async leads(): Promise<boolean> {
    return true
  }

  #prune(at: number): void {
    for (const span of ['hours', 'days'] as const)
      this.#statements.prune.run(lengths[span], periodsOf(at - keptMs[span])[span])
  }
}

function prepare(sqlite: Sqlite) {
  return {
    begin: sqlite.prepare("INSERT INTO totals VALUES ('', 'began', ?) ON CONFLICT DO NOTHING"),
    began: sqlite.prepare("SELECT amount FROM totals WHERE period = '' AND name = 'began'"),
    add: sqlite.prepare(
      'INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (period, name) DO UPDATE SET amount = amount + excluded.amount',
    ),
    read: sqlite.prepare(
      'SELECT period, name, amount FROM totals WHERE length(period) = ? AND period >= ? ORDER BY period, name',
    ),
    prune: sqlite.prepare('DELETE FROM totals WHERE length(period) = ? AND period < ?'),
  }
}
