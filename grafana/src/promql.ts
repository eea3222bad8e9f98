/**
 * PromQL as the dashboards write it. Every series is narrowed to the chosen jobs and instances, every rate takes Grafana's own window.
 * `labels` are matchers: `outcome="hit"`.
 */

/** `name{job=~"$job",instance=~"$instance",…}` */
export function series(name: string, ...labels: readonly string[]): string {
  return `${name}{${['job=~"$job"', 'instance=~"$instance"', ...labels].join(', ')}}`
}

/** Per second, now. */
export function rate(name: string, ...labels: readonly string[]): string {
  return `rate(${series(name, ...labels)}[$__rate_interval])`
}

/** How much was added between two points of a graph. */
export function recent(name: string, ...labels: readonly string[]): string {
  return `increase(${series(name, ...labels)}[$__rate_interval])`
}

/** How much was added in the time that the dashboard shows. */
export function total(name: string, ...labels: readonly string[]): string {
  return `increase(${series(name, ...labels)}[$__range])`
}

export function sum(inner: string, ...by: readonly string[]): string {
  return `sum${grouping(by)}(${inner})`
}

export function max(inner: string, ...by: readonly string[]): string {
  return `max${grouping(by)}(${inner})`
}

export function min(inner: string, ...by: readonly string[]): string {
  return `min${grouping(by)}(${inner})`
}

/** The quantile `q` of a histogram, recently; one line for each value of `by`. */
export function quantile(q: number, name: string, by: readonly string[], ...labels: readonly string[]): string {
  return `histogram_quantile(${q}, ${sum(rate(`${name}_bucket`, ...labels), 'le', ...by)})`
}

/** The same of the time that the dashboard shows. */
export function totalQuantile(q: number, name: string, by: readonly string[], ...labels: readonly string[]): string {
  return `histogram_quantile(${q}, ${sum(total(`${name}_bucket`, ...labels), 'le', ...by)})`
}

/** The mean of a histogram, recently. */
export function mean(name: string, by: readonly string[], ...labels: readonly string[]): string {
  return share(sum(rate(`${name}_sum`, ...labels), ...by), sum(rate(`${name}_count`, ...labels), ...by))
}

/** A share of what there was; no answer where there was nothing. */
export function share(part: string, whole: string): string {
  return `${part} / (${whole} > 0)`
}

/** A count in whole numbers: Prometheus extrapolates increases. */
export function count(inner: string, ...by: readonly string[]): string {
  return `round(${sum(inner, ...by)})`
}

/** Totals since the first start. With Redis all replicas of a job tell the same ones, without it each instance tells its own. */
export function lifetime(name: string, ...by: readonly string[]): string {
  const redis = series('layover_redis_up')
  const shared = `max by (job, upstream) (${series(name)} and on (job) ${redis})`
  const own = `${series(name)} unless on (job) ${redis}`
  return sum(`${shared} or ${own}`, ...by)
}

const grouping = (by: readonly string[]): string => (by.length === 0 ? '' : ` by (${by.join(', ')}) `)

/** Requests for content: what a pull is made of. */
export const pulls = 'kind=~"manifest_tag|manifest_digest|blob"'

/** Answered with content. */
export const answered = 'outcome!~"denied|error|other"'

/** Answered with content, and without a download of their own. */
export const spared = 'outcome=~"hit|joined|revalidated|stale|redirected"'

/** The registries of the configuration; `none` is what belongs to no registry. */
export const registries = 'upstream!~"none|other"'
