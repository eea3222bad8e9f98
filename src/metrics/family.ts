/** One time series: a number that is added to (or set) where things happen and read at the next scrape. */
export type Cell = { value: number }

/** What a metric gives to the exposition: its help, its type, and one line for each series. */
export interface Exposed {
  readonly name: string
  readonly labels: readonly string[]
  /** In the text format of Prometheus, or in OpenMetrics, which has room for exemplars. */
  text(format?: Format): string
}

export type Format = 'prometheus' | 'openmetrics'

export type FamilyOptions<Label extends string> = {
  readonly name: string
  readonly help: string
  readonly labels: readonly Label[]
}

type Series<Label extends string> = Cell & {
  readonly labels: Readonly<Record<Label, string>>
  /** As it is written: `{upstream="docker.io"}`, or nothing. */
  readonly written: string
}

/**
 * One metric and its series as plain numbers. Labels are checked and written once, by {@link cell}; counting is then an addition, and a scrape
 * joins text. It also lets /status read the same numbers without waiting for a scrape.
 */
export class Family<Label extends string> implements Exposed {
  readonly name: string
  readonly labels: readonly Label[]
  readonly #head: string
  readonly #series = new Map<string, Series<Label>>()

  constructor(type: 'counter' | 'gauge', { name, help, labels }: FamilyOptions<Label>) {
    this.name = name
    this.labels = labels
    this.#head = headOf(name, help, type)
  }

  /** The series with these label values, in the order of `labels`; it exists from now on, at 0. Values must come from a closed set. */
  cell(...values: readonly string[]): Cell {
    const key = keyOf(values)
    const known = this.#series.get(key)
    if (known) return known
    const labels = Object.fromEntries(this.labels.map((label, at) => [label, values[at] ?? ''])) as Record<
      Label,
      string
    >
    const series = { value: 0, labels, written: writtenLabels(this.labels, values) }
    this.#series.set(key, series)
    return series
  }

  /** The sum of all series whose labels have these values. */
  sum(where?: Readonly<Partial<Record<Label, string>>>): number {
    let sum = 0
    for (const { labels, value } of this.#series.values())
      if (this.labels.every(label => where?.[label] === undefined || where[label] === labels[label])) sum += value
    return sum
  }

  /** The sums of all series by the values of one label. */
  sumBy(label: Label): ReadonlyMap<string, number> {
    const sums = new Map<string, number>()
    for (const { labels, value } of this.#series.values())
      sums.set(labels[label], (sums.get(labels[label]) ?? 0) + value)
    return sums
  }

  /** Calls `visit` with each series. */
  each(visit: (labels: Readonly<Record<Label, string>>, value: number) => void): void {
    for (const { labels, value } of this.#series.values()) visit(labels, value)
  }

  text(format: Format = 'prometheus'): string {
    const lines = [...this.#series.values()].map(({ written, value }) => `${this.name}${written} ${value}\n`)
    return (format === 'prometheus' ? this.#head : openHeadOf(this.#head)) + lines.join('')
  }
}

/** Adds to a series; what is not a positive number is nothing to add, never an exception. */
export function add(cell: Cell, amount = 1): void {
  if (amount > 0 && Number.isFinite(amount)) cell.value += amount
}

/** `# HELP` and `# TYPE` of a metric. https://prometheus.io/docs/instrumenting/exposition_formats/ */
export function headOf(name: string, help: string, type: 'counter' | 'gauge' | 'histogram'): string {
  return `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n# TYPE ${name} ${type}\n`
}

/** In OpenMetrics the name of a counter is without the `_total` of its sample. */
const openHeadOf = (head: string): string => head.replaceAll(/^(# (?:HELP|TYPE) \S+)_total /gm, '$1 ')

// No label value here holds a NUL: they are from closed sets and the configuration.
export const keyOf = (values: readonly string[]): string => values.join('\0')

/** `{a="1",b="2"}`, nothing when there are no labels. */
export function writtenLabels(labels: readonly string[], values: readonly string[]): string {
  if (labels.length === 0) return ''
  return `{${labels.map((label, at) => `${label}="${escaped(values[at] ?? '')}"`).join(',')}}`
}

const escaped = (value: string): string => value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
