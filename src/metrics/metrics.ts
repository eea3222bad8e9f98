import { collectDefaultMetrics, Registry } from 'prom-client'
import { type Clock, systemClock } from '../clock.ts'
import type { Observer } from '../log/observer.ts'
import { isContent, isHit, type Outcome, type ServedSource } from '../log/outcome.ts'
import type { RedisState } from '../store/redis-connection.ts'
import type { StorageUsage } from '../store/stores.ts'
import { type Amounts, type CacheAmount, hoursAt, nameOf } from './amounts.ts'
import { add, type Cell, type Format } from './family.ts'
import type { Distribution } from './histogram.ts'
import {
  bounded,
  boundedReason,
  evictionReasons,
  fillOutcomes,
  firstWords,
  frequentReasons,
  leaseResults,
  noUpstream,
  other,
  outcomes,
  redisOutcomes,
  rejections,
  type RequestKind,
  requestKinds,
  revalidationResults,
  servedSources,
  sharedOperations,
  upstreamKinds,
  wrongBytes,
} from './labels.ts'
import { costCauses, type MeterReading } from './meter.ts'
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
  /** Where its bytes came from; default `memory`. */
  readonly source?: ServedSource
  /** Body bytes written. */
  readonly bytes: number
  /** Body bytes that the client was sent to the bucket for. */
  readonly redirectedBytes?: number
  /** From the request's arrival to its first body byte; undefined when there was none. */
  readonly firstByteSeconds: number | undefined
  readonly seconds: number
  /** The client left before the end. */
  readonly aborted: boolean
  /** Why it is stale, where it is. */
  readonly staleReason?: string | undefined
  /** Since upstream last confirmed the tag that was served; undefined: no tag was. */
  readonly tagAgeMs?: number | undefined
  /** Of a trace that is kept. */
  readonly traceId?: string | undefined
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
  /** Whether Redis answers is read from `read` at every scrape. */
  setRedis(read: () => RedisState | undefined): void
  /** Savings are read from `read` at every scrape. */
  setSavings(read: () => MeterReading): void
  /** The counters that outlive the process, since its start. */
  amounts(): Amounts
  /** How many client connections are open is read from `open` at every scrape. */
  clients(open: () => number): void
  /** The text exposition; OpenMetrics with the exemplars of requests whose traces are kept. */
  render(format?: Format): Promise<{ readonly contentType: string; readonly body: string }>
  snapshot(): MetricsSnapshot
}

export type MetricsOptions = {
  /** The configured names: the only values of the label `upstream` besides `none` and `other`. */
  readonly upstreams: readonly string[]
  readonly version: string
  readonly clock?: Clock
}

export function createMetrics({ upstreams, version, clock = systemClock }: MetricsOptions): Metrics {
  // An own registry: two instances in one process (tests, a demo) do not add up.
  const registry = new Registry()
  const series = defineSeries()
  series.buildInfo.cell(version, process.version).value = 1
  startAtZero(series, upstreams)
  collectProcessMetrics(registry)
  const openRegistry = inOpenMetrics(registry)

  const operation = firstWords(32)
  const sharedOperationOf = bounded(sharedOperations)
  const evictionReasonOf = bounded(evictionReasons)
  const redisOutcomeOf = bounded(redisOutcomes)
  const leaseResultOf = bounded(leaseResults)
  let readUsage: (() => StorageUsage) | undefined
  let readConnections: (() => number) | undefined
  let readRedis: (() => RedisState | undefined) | undefined
  let readSavings: (() => MeterReading) | undefined
  const pulls = new Map(upstreams.map(name => [name, { asked: { value: 0 }, given: { value: 0 } }]))
  const bucket = { s3_writes: 0, s3_reads: 0, s3_bytes: 0, s3_byte_hours: 0, peer_bytes: 0 }
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
      const redis = readRedis?.()
      if (redis) series.redis.up.cell().value = redis.isUp ? 1 : 0
      const savings = readSavings?.()
      if (savings) showSavings(series, savings)
    } catch {
      // The last figures stay; that they are old shows in this counter.
      storeFailed('usage')
    }
  }

  return {
    ...observeUpstreams(series, upstreams, pulls),
    ...observeFills(series, upstreams),
    request: observeRequests(series, upstreams, pulls),
    evicted(blobs, bytes, reason) {
      add(series.evictedBlobs.cell(evictionReasonOf(reason)), blobs)
      add(series.evictedBytes.cell(evictionReasonOf(reason)), bytes)
    },
    storeFailed,
    sharedRequest(name, outcome, seconds) {
      const bounded = sharedOperationOf(name)
      add(series.shared.requests.cell(bounded, boundedReason(outcome)))
      if (seconds !== undefined) series.shared.seconds.cell(bounded).observe(seconds)
      // What is removed is free, and what the bucket is asked besides (lists, parts of uploads) is billed as writing.
      if (name === 'get' || name === 'head') bucket.s3_reads++
      else if (name !== 'delete') bucket.s3_writes++
    },
    sharedBytes(direction, bytes) {
      add(series.shared.bytes.cell(direction), bytes)
      if (direction !== 'uploaded' || !(bytes > 0)) return
      bucket.s3_bytes += bytes
      bucket.s3_byte_hours += bytes * hoursAt(clock.now())
    },
    redisCommand(outcome, seconds) {
      add(series.redis.commands.cell(redisOutcomeOf(outcome)))
      series.redis.seconds.observe(seconds)
    },
    leaseSettled(result) {
      add(series.fleet.leases.cell(leaseResultOf(result)))
    },
    peerBytes(direction, bytes) {
      add(series.fleet.bytes.cell(direction), bytes)
      if (direction === 'read' && bytes > 0) bucket.peer_bytes += bytes
    },
    amounts: () => amountsOf(series, upstreams, { pulls, bucket }),
    setRedis(read) {
      readRedis = read
      series.redis.up.cell()
      for (const outcome of ['ok', 'timeout', 'unavailable']) series.redis.commands.cell(outcome)
    },
    setSavings(read) {
      readSavings = read
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
    async render(format = 'prometheus') {
      readGauges()
      // OpenMetrics has no empty lines, and an end that the other registry writes.
      const between = format === 'openmetrics' ? '' : '\n'
      const own = series.exposed.map(metric => metric.text(format)).join(between)
      const process = format === 'openmetrics' ? openRegistry : registry
      return { contentType: process.contentType, body: `${own}${between}${await process.metrics()}` }
    },
    snapshot() {
      readGauges()
      return takeSnapshot(series, upstreams)
    },
  }
}

const usageKeys = ['blobs', 'blobBytes', 'manifests', 'manifestBytes', 'reservedBytes', 'maxBytes'] as const

/** Manifests by GET, of one upstream: what it was asked for and gave, and what clients got. */
type Pulls = ReadonlyMap<string, { readonly asked: Cell; readonly given: Cell }>

/** What one request adds to, resolved once per upstream, kind and outcome. */
type RequestSeries = {
  readonly requests: Cell
  /** Undefined for refusals: their bodies are not content. */
  readonly served: Map<ServedSource, Cell> | undefined
  /** Undefined: not a manifest that was given. */
  readonly given: Cell | undefined
  readonly firstByte: Distribution
  readonly duration: Distribution
  readonly responses: Map<number, Cell>
}

function observeRequests(series: Series, upstreams: readonly string[], pulls: Pulls): Metrics['request'] {
  const upstreamOf = bounded([...upstreams, noUpstream])
  const kindOf = bounded(requestKinds)
  const outcomeOf = bounded(outcomes)
  // Nested maps: joining the words to one key would make a new string for every request.
  const resolved = new Map<string, Map<string, Map<string, RequestSeries>>>()

  const resolve = (upstream: string, kind: string, outcome: string): RequestSeries => {
    const byKind = resolved.get(upstream) ?? new Map<string, Map<string, RequestSeries>>()
    resolved.set(upstream, byKind)
    const byOutcome = byKind.get(kind) ?? new Map<string, RequestSeries>()
    byKind.set(kind, byOutcome)
    const isManifest = kind === 'manifest_tag' || kind === 'manifest_digest'
    const created: RequestSeries = {
      requests: series.requests.cell(upstream, kind, outcome),
      served: isContent(outcome) ? new Map() : undefined,
      given: isManifest && isContent(outcome) ? pulls.get(upstream)?.given : undefined,
      firstByte: series.firstByte.cell(kind, outcome),
      duration: series.duration.cell(kind, outcome),
      responses: new Map(),
    }
    byOutcome.set(outcome, created)
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

  const served = (cells: Map<ServedSource, Cell>, upstream: string, kind: string, source: ServedSource): Cell => {
    const known = cells.get(source)
    if (known) return known
    const cell = series.served.cell(upstream, kind, source)
    cells.set(source, cell)
    return cell
  }

  return event => {
    const { method, status, source = 'memory', bytes, redirectedBytes, firstByteSeconds, staleReason, tagAgeMs } = event
    const [upstream, kind, outcome] = [upstreamOf(event.upstream), kindOf(event.kind), outcomeOf(event.outcome)]
    const of = resolved.get(upstream)?.get(kind)?.get(outcome) ?? resolve(upstream, kind, outcome)
    add(of.requests)
    add(response(of, kind, status))
    if (of.served) {
      if (bytes > 0) add(served(of.served, upstream, kind, source), bytes)
      if (redirectedBytes) add(served(of.served, upstream, kind, 'redirect'), redirectedBytes)
      if (tagAgeMs !== undefined) series.tagAge.observe(tagAgeMs / 1000)
      if (method === 'GET' && of.given) of.given.value++
    }
    of.duration.observe(event.seconds, event.traceId)
    if (firstByteSeconds !== undefined) of.firstByte.observe(firstByteSeconds, event.traceId)
    if (event.aborted) add(series.aborts)
    if (outcome === 'stale') add(series.staleServed.cell(upstream, boundedReason(staleReason ?? other)))
  }
}

function observeUpstreams(series: Series, upstreams: readonly string[], pulls: Pulls) {
  const upstreamOf = bounded(upstreams)
  const kindOf = bounded(upstreamKinds)
  const rejectionOf = bounded(rejections)
  const revalidationOf = bounded(revalidationResults)

  return {
    upstreamRequest({ upstream, kind, method, outcome, seconds }) {
      const [name, boundedKind] = [upstreamOf(upstream), kindOf(kind)]
      add(series.upstreamRequests.cell(name, boundedKind, boundedReason(outcome)))
      series.upstreamSeconds.cell(name, boundedKind).observe(seconds)
      if (kind === 'token') add(series.tokens.cell(name, boundedReason(outcome)))
      const pulled = kind === 'manifest' && method === 'GET' && /^2\d\d$/.test(outcome)
      if (pulled) add(pulls.get(name)?.asked ?? { value: 0 })
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
    revalidated(upstream, result) {
      add(series.revalidations.cell(upstreamOf(upstream), revalidationOf(result)))
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
    fillEnded({ upstream, outcome, reason, seconds, readers }) {
      const name = upstreamOf(upstream)
      const running = series.running.cell(name)
      running.value = Math.max(0, running.value - 1)
      add(series.fills.cell(name, outcomeOf(outcome)))
      series.fillSeconds.cell(name, outcomeOf(outcome)).observe(seconds)
      series.fillReaders.observe(readers)
      if (outcome === 'failed') add(series.failed.cell(name, boundedReason(reason ?? other)))
    },
  } satisfies Partial<Observer>
}

const stateNumbers = { closed: 0, 'half-open': 1, open: 2 } as const
const isStatus = (status: number): boolean => Number.isInteger(status) && status >= 100 && status <= 599
const isCount = (value: number | undefined): value is number =>
  value !== undefined && Number.isFinite(value) && value >= 0

type OtherAmounts = { readonly pulls: Pulls; readonly bucket: Readonly<Record<CacheAmount, number>> }

function amountsOf(series: Series, upstreams: readonly string[], { pulls, bucket }: OtherAmounts): Amounts {
  const [served, fetched] = [series.served.sumBy('upstream'), series.fetched.sumBy('upstream')]
  const [content, hit] = [new Map<string, number>(), new Map<string, number>()]
  series.requests.each(({ upstream, outcome }, value) => {
    if (isContent(outcome)) content.set(upstream, (content.get(upstream) ?? 0) + value)
    if (isHit(outcome)) hit.set(upstream, (hit.get(upstream) ?? 0) + value)
  })
  // The client reads it there, and that request is on our bill.
  const redirected = series.requests.sum({ outcome: 'redirected' })
  return new Map<string, number>([
    ...upstreams.flatMap((upstream): (readonly [string, number])[] => [
      [nameOf('served', upstream), served.get(upstream) ?? 0],
      [nameOf('fetched', upstream), fetched.get(upstream) ?? 0],
      [nameOf('requests', upstream), content.get(upstream) ?? 0],
      [nameOf('hits', upstream), hit.get(upstream) ?? 0],
      [nameOf('pulls', upstream), pulls.get(upstream)?.given.value ?? 0],
      [nameOf('asked', upstream), pulls.get(upstream)?.asked.value ?? 0],
    ]),
    ...Object.entries({ ...bucket, s3_reads: bucket.s3_reads + redirected }),
  ])
}

function showSavings({ savings }: Series, { currency, upstreams, costs, lifetime }: MeterReading): void {
  for (const { upstream, link, servedBytes, fetchedBytes, grossMoney, pullsAvoided } of upstreams) {
    savings.grossBytes.cell(upstream, link).value = servedBytes
    savings.costBytes.cell(upstream, link).value = fetchedBytes
    savings.netBytes.cell(upstream, link).value = servedBytes - fetchedBytes
    if (link !== 'none') savings.grossMoney.cell(upstream, link, currency).value = grossMoney
    const avoided = savings.pullsAvoided.cell(upstream)
    // A counter never goes back: after more pulls than there were requests it waits until it is caught up with.
    avoided.value = Math.max(avoided.value, pullsAvoided)
  }
  for (const { upstream, servedBytes, upstreamBytes, pullsAvoided } of lifetime.upstreams) {
    savings.lifetimeServed.cell(upstream).value = servedBytes
    savings.lifetimeFetched.cell(upstream).value = upstreamBytes
    savings.lifetimePulls.cell(upstream).value = pullsAvoided
  }
  if (!costs) return
  for (const cause of costCauses) savings.costMoney.cell(cause, currency).value = costs[cause]
  savings.netMoney.cell(currency).value = savings.grossMoney.sum() - savings.costMoney.sum()
}

/**
 * A counter that appears with its first event shows no increase for it, and an alert on it misses that event.
 * So what alerts and the dashboard look at exists from the start, at 0.
 */
function startAtZero(series: Series, upstreams: readonly string[]): void {
  for (const direction of ['read', 'uploaded']) series.shared.bytes.cell(direction)
  for (const direction of ['read', 'sent']) series.fleet.bytes.cell(direction)
  for (const result of leaseResults) series.fleet.leases.cell(result)
  for (const reason of evictionReasons) {
    series.evictedBlobs.cell(reason)
    series.evictedBytes.cell(reason)
  }
  for (const upstream of upstreams) startUpstreamAtZero(series, upstream)
}

function startUpstreamAtZero(series: Series, upstream: string): void {
  series.state.cell(upstream)
  series.running.cell(upstream)
  for (const outcome of fillOutcomes) series.fills.cell(upstream, outcome)
  for (const reason of frequentReasons) {
    series.failed.cell(upstream, reason)
    series.resumed.cell(upstream, reason)
    series.staleServed.cell(upstream, reason)
  }
  for (const [kind, reason] of wrongBytes) series.rejected.cell(upstream, kind, reason)
  for (const kind of upstreamKinds) series.fetched.cell(upstream, kind)
  series.tokens.cell(upstream, '200')
  for (const kind of ['manifest', 'blob', 'token']) series.upstreamRequests.cell(upstream, kind, '429')
  for (const result of revalidationResults) series.revalidations.cell(upstream, result)
  for (const kind of ['manifest_tag', 'manifest_digest', 'blob'] as const) {
    for (const source of servedSources) if (isUsual(kind, source)) series.served.cell(upstream, kind, source)
    for (const outcome of outcomes) series.requests.cell(upstream, kind, outcome)
  }
}

/** Manifests are neither in the bucket by themselves nor read from other replicas, and clients are not sent anywhere for them. */
function isUsual(kind: RequestKind, source: ServedSource): boolean {
  return kind === 'blob' || source === 'memory' || source === 'disk' || source === 'fill'
}

// These are gauges that are named like counters, which promtool refuses.
const misnamed = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total']

function collectProcessMetrics(registry: Registry): void {
  collectDefaultMetrics({ register: registry })
  for (const name of misnamed) registry.removeSingleMetric(name)
}

/** The same metrics in the other format: which one a registry writes is a property of it. */
function inOpenMetrics(registry: Registry): Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE> {
  const open = new Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE>()
  open.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
  for (const { name } of registry.getMetricsAsArray()) {
    const metric = registry.getSingleMetric(name)
    if (metric) open.registerMetric(metric)
  }
  return open
}
