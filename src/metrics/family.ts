import { Counter, Gauge, type Registry } from 'prom-client'

/** One time series: a number that is added to (or set) where things happen and read at the next scrape. */
export type Cell = { value: number }

export type FamilyOptions<Label extends string> = {
  readonly name: string
  readonly help: string
  readonly labels: readonly Label[]
  readonly registry: Registry
}

type Series<Label extends string> = Cell & { readonly labels: Readonly<Record<Label, string>> }

/**
 * One metric and its series as plain numbers. prom-client hashes and checks the labels at every increment; here that is done once,
 * by {@link cell}, and counting is an addition. It also lets /status read the same numbers without waiting for a scrape.
 */
export class Family<Label extends string> {
  readonly #labels: readonly Label[]
  readonly #series = new Map<string, Series<Label>>()

  constructor(type: 'counter' | 'gauge', { name, help, labels, registry }: FamilyOptions<Label>) {
    this.#labels = labels
    const options = { name, help, labelNames: labels, registers: [] }
    const all = this.#series
    const metric =
      type === 'counter'
        ? new Counter<Label>({
            ...options,
            collect() {
              this.reset()
              for (const series of all.values()) this.inc(series.labels, series.value)
            },
          })
        : new Gauge<Label>({
            ...options,
            collect() {
              this.reset()
              for (const series of all.values()) this.set(series.labels, series.value)
            },
          })
    registry.registerMetric(metric)
  }

  /** The series with these label values, in the order of `labels`; it exists from now on, at 0. Values must come from a closed set. */
  cell(...values: readonly string[]): Cell {
    // No label value here holds a NUL: they are from closed sets and the configuration.
    const key = values.join('\0')
    const known = this.#series.get(key)
    if (known) return known
    const labels = Object.fromEntries(this.#labels.map((label, at) => [label, values[at] ?? ''])) as Record<
      Label,
      string
    >
    const series = { value: 0, labels }
    this.#series.set(key, series)
    return series
  }

  /** The sum of all series whose labels have these values. */
  sum(where?: Readonly<Partial<Record<Label, string>>>): number {
    let sum = 0
    for (const { labels, value } of this.#series.values())
      if (this.#labels.every(label => where?.[label] === undefined || where[label] === labels[label])) sum += value
    return sum
  }
}

/** Adds to a series; what is not a positive number is nothing to add, never an exception. */
export function add(cell: Cell, amount = 1): void {
  if (amount > 0 && Number.isFinite(amount)) cell.value += amount
}
