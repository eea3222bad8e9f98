import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { Blobs } from './cache/blobs.ts'
import type { Fleet } from './cache/fleet.ts'
import { createManifests } from './cache/manifests.ts'
import { createReferrers } from './cache/referrers.ts'
import { createRights } from './cache/rights.ts'
import { createTagLists } from './cache/tag-lists.ts'
import { type Clock, systemClock } from './clock.ts'
import { createReplica, type Replica } from './compose/replica.ts'
import { openStores, type Stores } from './compose/stores.ts'
import { openTracer } from './compose/tracing.ts'
import type { Config, Prefetch, UpstreamConfig } from './config/config.ts'
import { createAdmin } from './edge/admin.ts'
import { adminListener } from './edge/admin-listener.ts'
import { ConnectionLimit } from './edge/connection-limit.ts'
import { createRedirectRule } from './edge/redirect-rule.ts'
import { createRegistryHandler } from './edge/registry.ts'
import { createReport } from './edge/report.ts'
import { WriteWatch } from './edge/send-bytes.ts'
import { type RunningServer, startServer } from './edge/server.ts'
import type { Log } from './log/log.ts'
import type { Observer } from './log/observer.ts'
import { SavingsMeter } from './metrics/meter.ts'
import { TrafficHistory } from './metrics/history.ts'
import { createMetrics } from './metrics/metrics.ts'
import { describeStatus } from './metrics/status.ts'
import { loggingObserver } from './metrics/logging-observer.ts'
import type { Digest } from './oci/digest.ts'
import { describedBlobs, type ParsedManifest } from './oci/manifest.ts'
import { createLocator } from './routing/locate.ts'
import type { Tracer } from './tracing/tracer.ts'
import { createUpstream } from './upstream/registry-client.ts'
import type { Upstream } from './upstream/upstream.ts'
import { version } from './version.ts'

export type LayoverOptions = { readonly config: Config; readonly log: Log; readonly clock?: Clock }

export type RunningLayover = {
  /** `http://host:port` of the registry listener, with the port that was really bound. */
  readonly registryUrl: string
  readonly adminUrl: string
  /** Drains: not ready any more, running responses finish within `config.drainMs`, then everything is closed. `now`: without waiting. Safe to repeat. */
  close(options?: { readonly now?: boolean }): Promise<void>
}

/**
 * Makes the objects from the configuration and starts the listeners. With what lies under `compose/`, the one place that names concrete classes.
 * Rejects with the reason when a listener cannot be bound, or the data directory or the secret of the replicas cannot be used; nothing is left running then.
 */
export async function startLayover({ config, log, clock = systemClock }: LayoverOptions): Promise<RunningLayover> {
  const startedAt = clock.monotonic()
  const names = config.upstreams.map(upstream => upstream.name)
  const metrics = createMetrics({ upstreams: names, version, clock })
  const observer = loggingObserver(metrics, log, clock)
  const via = `layover-${randomBytes(6).toString('hex')}`
  const tracer = await openTracer(config, log)
  const stores = await openStores({ config, clock, observer, log, tracer })
  const replica = await openReplica({ config, stores, clock, observer, log, tracer })
  const savings = new SavingsMeter({
    totals: stores.totals,
    read: () => metrics.amounts(),
    pricing: config.pricing,
    upstreams: names,
    clock,
    failed: error => observer.storeFailed('totals', error),
  })
  await savings.start()
  const upstreams = createUpstreams({ config, clock, observer, via, tracer })
  const { handlers, blobs } = createCache({ config, upstreams, stores, fleet: replica?.fleet, clock, observer, tracer })
  const watch = new WriteWatch(config.clients.stallMs)
  let draining = false

  const report = createReport({ metrics, log, access: config.log.access })
  const locator = createLocator(config.upstreams)
  const redirect = config.s3?.redirect && createRedirectRule(config.s3.redirect)
  const handler = createRegistryHandler({
    ...handlers,
    locator,
    watch,
    redirect,
    via,
    draining: () => draining,
    report,
    tracer,
  })
  const status = () =>
    describeStatus({
      version,
      uptimeSeconds: (clock.monotonic() - startedAt) / 1000,
      upstreams: [...upstreams.values()],
      storage: stores.usage(),
      shared: stores.shared?.pending(),
      redis: stores.redis(),
      snapshot: metrics.snapshot(),
      savings: savings.report(),
    })
  const history = new TrafficHistory({ clock, read: () => metrics.snapshot().traffic })
  const ending = new AbortController()
  let registryPort = config.listen.port
  const admin = createAdmin({
    metrics,
    exemplars: tracer.on,
    status,
    savings: async since => (since === undefined ? savings.report() : await savings.since(since)),
    page: {
      status,
      history,
      fills: () => blobs.view(),
      catalog: stores.catalog,
      blobs: stores.blobCatalog,
      upstreams: config.upstreams.map(({ name, aliases, default: isDefault }) => ({ name, aliases, isDefault })),
      locate: name => locator.locate({ name, host: undefined, query: new URLSearchParams(), basePath: '' }),
      listen: () => ({ host: config.listen.host, port: registryPort }),
      admin: config.admin,
      machine: hostname(),
      clock,
      ending: ending.signal,
    },
    // Redis and the bucket are a help: without them pulls go on from upstream (F-55, F-59).
    readiness: () => (draining ? { ready: false, reasons: ['draining'] } : { ready: true, reasons: [] }),
    onError: error => log.error({ error }, 'admin page failed'),
  })

  const listeners: RunningServer[] = []
  const stopStores = async (): Promise<void> => {
    history.close()
    await blobs.close()
    await Promise.all([...upstreams.values()].map(upstream => upstream.close()))
    watch.close()
    await replica?.close()
    await savings.close()
    await stores.close()
    // Last, so that the spans of what ended just now go with it.
    await tracer.close()
  }
  try {
    listeners.push(await startServer({ address: config.listen, handler, ...connectionLimits(config, log, clock) }))
    listeners.push(
      await startServer({
        address: config.admin,
        handler: adminListener(admin),
        maxConnections: 256,
      }),
    )
    const others = await replica?.listen({ blobs, watch })
    if (others) listeners.push(others)
  } catch (error) {
    await Promise.all(listeners.map(listener => listener.close(0)))
    await stopStores()
    throw error
  }
  const [registry, adminServer, others] = listeners
  if (!registry || !adminServer) throw new Error('both listeners are needed')
  registryPort = Number(new URL(registry.url).port || 80)
  let connections = 0
  const counting = setInterval(() => void registry.connections().then(count => (connections = count)), 1_000).unref()
  metrics.clients(() => connections)
  metrics.setUsage(() => stores.usage())
  if (stores.redis()) metrics.setRedis(() => stores.redis())
  metrics.setSavings(() => savings.reading())
  metrics.setPending(() => stores.shared?.pending() ?? { uploads: 0, bytes: 0 })

  let closing: Promise<void> | undefined
  const close = async (drainMs: number): Promise<void> => {
    draining = true
    ending.abort()
    clearInterval(counting)
    await registry.close(drainMs)
    // What other replicas read here they go on reading elsewhere.
    await others?.close(0)
    await stopStores()
    await adminServer.close(0)
  }
  return {
    registryUrl: registry.url,
    adminUrl: adminServer.url,
    close: ({ now = false } = {}) => (closing ??= close(now ? 0 : config.drainMs)),
  }
}

/** Told at most once a minute: who comes with that many comes with more. */
function connectionLimits({ clients }: Config, log: Log, clock: Clock) {
  const { maxConnections, maxConnectionsPerAddress: max = maxConnections } = clients
  let toldAt: number | undefined
  const onRefused = (client: string): void => {
    const now = clock.monotonic()
    if (toldAt !== undefined && now - toldAt < 60_000) return
    toldAt = now
    log.warn({ client, max }, 'connections are refused: one address has clients.maxConnectionsPerAddress of them')
  }
  return { maxConnections, limit: new ConnectionLimit({ max, onRefused }) }
}

type OpenReplicaOptions = { config: Config; stores: Stores; clock: Clock; observer: Observer; log: Log; tracer: Tracer }

/** Undefined: no other replica is told of. */
async function openReplica({ config, stores, ...parts }: OpenReplicaOptions): Promise<Replica | undefined> {
  if (!config.replica) return undefined
  try {
    return await createReplica({ config: config.replica, leases: stores.leases, ...parts })
  } catch (error) {
    await stores.close()
    throw error
  }
}

type UpstreamsOptions = { config: Config; clock: Clock; observer: Observer; via: string; tracer: Tracer }

function createUpstreams({ config, clock, observer, via, tracer }: UpstreamsOptions): ReadonlyMap<string, Upstream> {
  const trace = { tracer, propagate: config.tracing?.propagateUpstream ?? false }
  return new Map(
    config.upstreams.map(upstream => [
      upstream.name,
      createUpstream({ config: upstream, offline: config.offline, clock, observer, via, trace }),
    ]),
  )
}

type CacheOptions = {
  config: Config
  upstreams: ReadonlyMap<string, Upstream>
  stores: Stores
  fleet: Fleet | undefined
  clock: Clock
  observer: Observer
  tracer: Tracer
}

function createCache({ config, upstreams, stores, fleet, clock, observer, tracer }: CacheOptions) {
  const { offline } = config
  const { metadata } = stores
  const settings = settingsOf(config)
  const storeSource = config.redis ? ('memory' as const) : ('disk' as const)
  const rights = createRights({
    upstreams,
    metadata,
    observer,
    offline,
    clock,
    maxAgeMs: name => rightsAgeOf(config, settings(name)),
  })
  const blobs: Blobs = new Blobs({
    upstreams,
    store: stores.blobs,
    spool: stores.spool,
    shared: stores.shared,
    links: stores.links,
    fleet,
    rights,
    fills: config.fills,
    clock,
    observer,
    offline,
    tracer,
  })
  const manifests = createManifests({
    upstreams,
    settings,
    metadata,
    // Not the store: between its last byte and its publication a blob is only there.
    blobs,
    rights,
    storeSource,
    questions: stores.questions,
    clock,
    observer,
    offline,
    onServed: (target, parsed) => {
      blobs.expect(target, describedBlobs(parsed))
      blobs.prefetch(target, toPrefetch(parsed, config.prefetch))
    },
  })
  const lists = { upstreams, settings, metadata, storeSource, clock, observer, offline }
  return {
    blobs,
    handlers: { manifests, blobs, tagLists: createTagLists(lists), referrers: createReferrers(lists) },
  }
}

function toPrefetch(parsed: ParsedManifest, prefetch: Prefetch): readonly Digest[] {
  if (prefetch === 'off') return []
  const wanted = prefetch === 'config' ? (parsed.config ? [parsed.config] : []) : describedBlobs(parsed)
  return wanted.map(descriptor => descriptor.digest)
}

/** Only what credentials opened can be taken back from us alone. */
function rightsAgeOf({ rights }: Config, { credentials }: UpstreamConfig): number | undefined {
  return credentials === undefined || rights === undefined || rights.maxAgeMs === 0 ? undefined : rights.maxAgeMs
}

/** Of each upstream, by its name. No tag is fresh for longer than upstream's word on its repository is good (T-16). */
function settingsOf(config: Config): (name: string) => UpstreamConfig {
  const byName = new Map(
    config.upstreams.map(upstream => {
      const tagTtlMs = Math.min(upstream.tagTtlMs, rightsAgeOf(config, upstream) ?? Number.POSITIVE_INFINITY)
      return [upstream.name, { ...upstream, tagTtlMs }]
    }),
  )
  return name => {
    const found = byName.get(name)
    if (!found) throw new Error(`no upstream named ${name}`)
    return found
  }
}
