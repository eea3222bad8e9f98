import type { RedisState } from '../store/redis-connection.ts'
import type { SharedBlobs, StorageUsage } from '../store/stores.ts'
import type { UpstreamHealth } from '../upstream/upstream.ts'
import type { SavingsReport } from './savings.ts'
import { type MetricsSnapshot, type Traffic, traffic } from './snapshot.ts'

type PendingUploads = ReturnType<SharedBlobs['pending']>

export type StatusParts = {
  readonly version: string
  /** Seconds since the start. */
  readonly uptimeSeconds: number
  readonly upstreams: readonly { readonly name: string; health(): UpstreamHealth }[]
  readonly storage: StorageUsage
  /** Uploads to the bucket that wait; undefined: there is no bucket. */
  readonly shared?: PendingUploads | undefined
  /** Undefined: there is no Redis. */
  readonly redis?: RedisState | undefined
  readonly snapshot: MetricsSnapshot
  /** Absent: nobody keeps totals. */
  readonly savings?: SavingsReport
}

export type Status = {
  readonly version: string
  readonly uptimeSeconds: number
  readonly upstreams: readonly UpstreamStatus[]
  readonly storage: StorageUsage
  readonly shared?: { readonly pendingUploads: number; readonly pendingBytes: number }
  readonly redis?: { readonly state: 'up' | 'down'; readonly refusals: readonly string[] }
  readonly traffic: MetricsSnapshot['traffic']
  readonly requests: { readonly total: number; readonly byOutcome: MetricsSnapshot['requestsByOutcome'] }
  readonly fills: MetricsSnapshot['fills']
  readonly evicted: MetricsSnapshot['evicted']
  readonly storeFailures: number
  readonly clients: MetricsSnapshot['clients']
  /** Since the totals began, of all replicas that share them; not only since this start, as the rest of this page. */
  readonly savings?: SavingsReport
}

export type UpstreamStatus = Traffic & {
  readonly name: string
  readonly state: UpstreamHealth['state']
  /** ISO 8601, as all times on this page; absent while reachable. */
  readonly unreachableSince?: string
  readonly blockedUntil?: string
  readonly lastError?: string
  /** Requests allowed and left, as it last said. */
  readonly rateLimit?: NonNullable<UpstreamHealth['rateLimit']>
  readonly upstreamRequests: number
}

/** The body of `/status`: what an operator wants to know first, from the same numbers as `/metrics`. */
export function describeStatus({
  version,
  uptimeSeconds,
  upstreams,
  storage,
  shared,
  redis,
  snapshot,
  savings,
}: StatusParts): Status {
  return {
    version,
    uptimeSeconds: Math.round(uptimeSeconds),
    upstreams: upstreams.map(upstream => describeUpstream(upstream.name, upstream.health(), snapshot)),
    storage,
    ...(shared && { shared: { pendingUploads: shared.uploads, pendingBytes: shared.bytes } }),
    ...(redis && { redis: { state: redis.isUp ? 'up' : 'down', refusals: redis.refusals } }),
    traffic: snapshot.traffic,
    requests: { total: snapshot.requests, byOutcome: snapshot.requestsByOutcome },
    fills: snapshot.fills,
    evicted: snapshot.evicted,
    storeFailures: snapshot.storeFailures,
    clients: snapshot.clients,
    ...(savings && { savings }),
  }
}

function describeUpstream(name: string, health: UpstreamHealth, snapshot: MetricsSnapshot): UpstreamStatus {
  return {
    name,
    state: health.state,
    ...(health.unreachableSince !== undefined && { unreachableSince: isoTime(health.unreachableSince) }),
    ...(health.blockedUntil !== undefined && { blockedUntil: isoTime(health.blockedUntil) }),
    ...(health.lastError !== undefined && { lastError: health.lastError }),
    ...(health.rateLimit && { rateLimit: health.rateLimit }),
    ...(snapshot.upstreams[name] ?? { ...traffic(0, 0), upstreamRequests: 0 }),
  }
}

const isoTime = (epochMs: number): string => new Date(epochMs).toISOString()
