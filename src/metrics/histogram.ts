import { type Exposed, type FamilyOptions, type Format, headOf, keyOf, writtenLabels } from './family.ts'

export type HistogramOptions<Label extends string> = FamilyOptions<Label> & {
  /** Upper bounds, ascending, without the infinite one. */
  readonly buckets: readonly number[]
}

/** One metric of distributions. As with {@link Family}, labels are resolved once and an observation is two additions and a short search. */
export class Histogram<Label extends string> implements Exposed {
  readonly name: string
  readonly labels: readonly Label[]
  readonly #head: string
  readonly #bounds: readonly number[]
  readonly #series = new Map<string, Distribution>()

  constructor({ name, help, labels, buckets }: HistogramOptions<Label>) {
    this.name = name
    this.labels = labels
    this.#bounds = buckets
    this.#head = headOf(name, help, 'histogram')
  }

  /** The distribution with these label values, in the order of `labels`. It shows from its first observation on. */
  cell(...values: readonly string[]): Distribution {
    const key = keyOf(values)
    const known = this.#series.get(key)
    if (known) return known
    const created = new Distribution(this.name, this.#bounds, [this.labels, values])
    this.#series.set(key, created)
    return created
  }

  text(format: Format = 'prometheus'): string {
    return this.#head + [...this.#series.values()].map(each => each.text(format)).join('')
  }
}

/** What was observed in one series. */
export class Distribution {
  readonly #bounds: readonly number[]
  /** By bucket, not added up; the last one is what lies above all bounds. */
  readonly #counts: number[]
  readonly #bucketNames: readonly string[]
  readonly #sumName: string
  readonly #countName: string
  #sum = 0
  #count = 0
  /** The last one of each bucket, as it is written. Made when the first one comes. */
  #exemplars: string[] | undefined

  constructor(
    name: string,
    bounds: readonly number[],
    [labels, values]: readonly [labels: readonly string[], values: readonly string[]],
  ) {
    this.#bounds = bounds
    this.#counts = Array.from({ length: bounds.length + 1 }, () => 0)
    const limits = [...bounds.map(String), '+Inf']
    this.#bucketNames = limits.map(le => `${name}_bucket${writtenLabels(['le', ...labels], [le, ...values])} `)
    const written = writtenLabels(labels, values)
    this.#sumName = `${name}_sum${written} `
    this.#countName = `${name}_count${written} `
  }

  /** Anything but a finite number of at least 0 is not observed, and never an exception. `traceId`: the trace that shows what took so long. */
  observe(value: number, traceId?: string): void {
    if (!(value >= 0 && value < Number.POSITIVE_INFINITY)) return
    const bounds = this.#bounds
    let at = 0
    while (at < bounds.length && value > (bounds[at] ?? 0)) at++
    this.#counts[at] = (this.#counts[at] ?? 0) + 1
    this.#sum += value
    this.#count++
    if (traceId === undefined) return
    this.#exemplars ??= []
    this.#exemplars[at] = ` # {trace_id="${traceId}"} ${value} ${Date.now() / 1000}`
  }

  text(format: Format): string {
    if (this.#count === 0) return ''
    const exemplars = format === 'openmetrics' ? this.#exemplars : undefined
    let below = 0
    const buckets = this.#bucketNames.map((name, at) => {
      below += this.#counts[at] ?? 0
      return `${name}${below}${exemplars?.[at] ?? ''}\n`
    })
    return `${buckets.join('')}${this.#sumName}${this.#sum}\n${this.#countName}${this.#count}\n`
  }
}
