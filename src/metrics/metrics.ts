import { collectDefaultMetrics, type Histogram, Registry } from 'prom-client'
import type { Observer } from '../log/observer.ts'
import type { Outcome } from '../log/outcome.ts'
import type { StorageUsage } from '../store/stores.ts'
import { add, type Cell } from './family.ts'
import {
  bounded,
  boundedReason,
  fillOutcomes,
  frequentReasons,
  firstWords,
  noUpstream,
  other,
  outcomes,
  rejections,
  type RequestKind,
  requestKinds,
  sharedOperations,
  upstreamKinds,
  wrongBytes,
} from './labels.ts'
import { defineSeries, type Series } from './series.ts'
import { type MetricsSnapshot, takeSnapshot } from './snapshot.ts'

/** One answered request, reported by the edge when its last byte went out or its connection ended. */
export type RequestEvent = {
  /** Configured name, or `none`. Anything else is counted as `other`. */
  readonly upstream: string
  readonly kind: RequestKind
  readonly method: string
  readonly status: number
  readonly outcome: Outcome
  /** Body bytes written. */
  readonly bytes: number
  /** Body bytes that the client was sent to the bucket for. */
  readonly redirectedBytes?: number
  /** From the request's arrival to its first body byte; undefined when there was none. */
  readonly firstByteSeconds: number | undefined
  readonly seconds: number
  /** The client left before the end. */
  readonly aborted: boolean
}

/**
 * What Layover counts. Nothing here throws or waits: a failed metric is not a failed pull. Labels come from closed sets only (T-50).
 *
 * Saved bytes are not a metric but arithmetic on two, so that anyone can check them against the upstream's own access log:
 *
 *     sum by (upstream) (layover_served_bytes_total{upstream!="none"}) - sum by (upstream) (layover_upstream_bytes_total)
 *
 * Tokens, repeated and wasted bytes and prefetch count as fetched, bodies of refusals do not count as served: the figure may be
 * negative and is never flattered.
 */
export interface Metrics extends Observer {
  request(event: RequestEvent): void
  /** Storage gauges are read from `read` at every scrape. */
  setUsage(read: () => StorageUsage): void
  /** Uploads to the shared store that wait are read from `read` at every scrape. */
  setPending(read: () => { readonly uploads: number; readonly bytes: number }): void
  /** How many client connections are open is read from `open` at every scrape. */
  clients(open: () => number): void
  /** The Prometheus text exposition. */
  render(): Promise<{ readonly contentType: string; readonly body: string }>
  snapshot(): MetricsSnapshot
}

export type MetricsOptions = {
  /** The configured names: the only values of the label `upstream` besides `none` and `other`. */
  readonly upstreams: readonly string[]
  readonly version: string
}

export function createMetrics({ upstreams, version }: MetricsOptions): Metrics {
  // An own registry: two instances in one process (tests, a demo) do not add up.
  const registry = new Registry()
  const series = defineSeries(registry)
  series.buildInfo.cell(version, process.version).value = 1
  startAtZero(series, upstreams)
  collectProcessMetrics(registry)

  const operation = firstWords(32)
  const sharedOperationOf = bounded(sharedOperations)
  let readUsage: (() => StorageUsage) | undefined
  let readConnections: (() => number) | undefined
  let readPending: (() => { readonly uploads: number; readonly bytes: number }) | undefined

  const storeFailed = (name: string): void => add(series.storeFailures.cell(operation(name)))
  const readGauges = (): void => {
    try {
      const usage = readUsage?.()
      if (usage) for (const key of usageKeys) series.storage[key].value = usage[key]
      series.connections.value = readConnections?.() ?? 0
      const { uploads, bytes } = readPending?.() ?? { uploads: 0, bytes: 0 }
      series.shared.pendingUploads.value = uploads
      series.shared.pendingBytes.value = bytes
    } catch {
      // The last figures stay; that they are old shows in this counter.
      storeFailed('usage')
    }
  }

  return {
    ...observeUpstreams(series, upstreams),
    ...observeFills(series, upstreams),
    request: observeRequests(series, upstreams),
    evicted(blobs, bytes) {
      add(series.evictedBlobs, blobs)
      add(series.evictedBytes, bytes)
    },
    storeFailed,
    sharedRequest(name, outcome) {
      add(series.shared.requests.cell(sharedOperationOf(name), boundedReason(outcome)))
    },
    sharedBytes(direction, bytes) {
      add(series.shared.bytes.cell(direction), bytes)
    },
    setUsage(read) {
      readUsage = read
    },
    setPending(read) {
      readPending = read
    },
    clients(open) {
      readConnections = open
    },
    async render() {
      readGauges()
      return { contentType: registry.contentType, body: await registry.metrics() }
    },
    snapshot() {
      readGauges()
      return takeSnapshot(series, upstreams)
    },
  }
}

const usageKeys = ['blobs', 'blobBytes', 'manifests', 'manifestBytes', 'reservedBytes', 'maxBytes'] as const

/** What one request adds to, resolved once per upstream, kind and outcome. */
type RequestSeries = {
  readonly requests: Cell
  /** Undefined for refusals: their bodies are not content. */
  readonly served: Cell | undefined
  readonly firstByte: Histogram.Internal<string>
  readonly duration: Histogram.Internal<string>
  readonly responses: Map<number, Cell>
}

function observeRequests(series: Series, upstreams: readonly string[]): Metrics['request'] {
  const upstreamOf = bounded([...upstreams, noUpstream])
  const kindOf = bounded(requestKinds)
  const outcomeOf = bounded(outcomes)
  const resolved = new Map<string, RequestSeries>()

  const resolve = (upstream: string, kind: string, outcome: string): RequestSeries => {
    const key = `${upstream}\0${kind}\0${outcome}`
    const known = resolved.get(key)
    if (known) return known
    const created: RequestSeries = {
      requests: series.requests.cell(upstream, kind, outcome),
      served: isContent(outcome) ? series.served.cell(upstream, kind) : undefined,
      firstByte: series.firstByte.labels(kind, outcome),
      duration: series.duration.labels(kind, outcome),
      responses: new Map(),
    }
    resolved.set(key, created)
    return created
  }
  const response = (of: RequestSeries, kind: string, status: number): Cell => {
    const known = of.responses.get(status)
    if (known) return known
    if (!isStatus(status)) return series.responses.cell(kind, other)
    const cell = series.responses.cell(kind, String(status))
    of.responses.set(status, cell)
    return cell
  }

  return ({ upstream, kind, outcome, status, bytes, firstByteSeconds, seconds, aborted }) => {
    const boundedKind = kindOf(kind)
    const of = resolve(upstreamOf(upstream), boundedKind, outcomeOf(outcome))
    add(of.requests)
    add(response(of, boundedKind, status))
    if (of.served) add(of.served, bytes)
    observe(of.duration, seconds)
    if (firstByteSeconds !== undefined) observe(of.firstByte, firstByteSeconds)
    if (aborted) add(series.aborts)
  }
}

function observeUpstreams(series: Series, upstreams: readonly string[]) {
  const upstreamOf = bounded(upstreams)
  const kindOf = bounded(upstreamKinds)
  const rejectionOf = bounded(rejections)
  const durations = new Map<string, Histogram.Internal<string>>()
  const duration = (upstream: string, kind: string): Histogram.Internal<string> => {
    const key = `${upstream}\0${kind}`
    const child = durations.get(key) ?? series.upstreamSeconds.labels(upstream, kind)
    durations.set(key, child)
    return child
  }

  return {
    upstreamRequest({ upstream, kind, outcome, seconds }) {
      const [name, boundedKind] = [upstreamOf(upstream), kindOf(kind)]
      add(series.upstreamRequests.cell(name, boundedKind, boundedReason(outcome)))
      observe(duration(name, boundedKind), seconds)
    },
    upstreamBytes(upstream, kind, bytes) {
      add(series.fetched.cell(upstreamOf(upstream), kindOf(kind)), bytes)
    },
    upstreamRateLimit(upstream, { limit, remaining }) {
      if (isCount(limit)) series.rateLimit.cell(upstreamOf(upstream)).value = limit
      if (isCount(remaining)) series.rateRemaining.cell(upstreamOf(upstream)).value = remaining
    },
    upstreamState(upstream, state) {
      series.state.cell(upstreamOf(upstream)).value = stateNumbers[state]
    },
    contentRejected({ upstream, kind, reason }) {
      add(series.rejected.cell(upstreamOf(upstream), kindOf(kind), rejectionOf(reason)))
    },
  } satisfies Partial<Observer>
}

function observeFills(series: Series, upstreams: readonly string[]) {
  const upstreamOf = bounded(upstreams)
  const outcomeOf = bounded(fillOutcomes)
  return {
    fillStarted(upstream) {
      add(series.running.cell(upstreamOf(upstream)))
    },
    fillResumed(upstream, reason) {
      add(series.resumed.cell(upstreamOf(upstream), boundedReason(reason)))
    },
    fillEnded({ upstream, outcome, reason }) {
      const name = upstreamOf(upstream)
      const running = series.running.cell(name)
      running.value = Math.max(0, running.value - 1)
      add(series.fills.cell(name, outcomeOf(outcome)))
      if (outcome === 'failed') add(series.failed.cell(name, boundedReason(reason ?? other)))
    },
  } satisfies Partial<Observer>
}

const stateNumbers = { closed: 0, 'half-open': 1, open: 2 } as const
const isContent = (outcome: string): boolean => outcome !== 'denied' && outcome !== 'error' && outcome !== other
const isStatus = (status: number): boolean => Number.isInteger(status) && status >= 100 && status <= 599
const isCount = (value: number | undefined): value is number =>
  value !== undefined && Number.isFinite(value) && value >= 0

function observe(histogram: Histogram.Internal<string>, seconds: number): void {
  if (seconds >= 0 && Number.isFinite(seconds)) histogram.observe(seconds)
}

/**
 * A counter that appears with its first event shows no increase for it, and an alert on it misses that event.
 * So what alerts and the dashboard look at exists from the start, at 0.
 */
function startAtZero(series: Series, upstreams: readonly string[]): void {
  for (const direction of ['read', 'uploaded']) series.shared.bytes.cell(direction)
  for (const upstream of upstreams) {
    series.state.cell(upstream)
    series.running.cell(upstream)
    for (const outcome of fillOutcomes) series.fills.cell(upstream, outcome)
    for (const reason of frequentReasons) series.failed.cell(upstream, reason)
    for (const [kind, reason] of wrongBytes) series.rejected.cell(upstream, kind, reason)
    for (const kind of upstreamKinds) series.fetched.cell(upstream, kind)
    for (const kind of ['manifest', 'blob'] as const) {
      series.served.cell(upstream, kind)
      for (const outcome of outcomes) series.requests.cell(upstream, kind, outcome)
    }
  }
}

// These are gauges that are named like counters, which promtool refuses.
const misnamed = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total']

function collectProcessMetrics(registry: Registry): void {
  collectDefaultMetrics({ register: registry })
  for (const name of misnamed) registry.removeSingleMetric(name)
}
