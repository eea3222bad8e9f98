import type { StorageUsage } from '../store/stores.ts'
import { type Cell, type Exposed, Family } from './family.ts'
import { Histogram } from './histogram.ts'

export type Series = ReturnType<typeof defineSeries>

const fast = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

/** Every metric of Layover, by name; https://prometheus.io/docs/practices/naming/. docs/metrics.md says what each is for. */
export function defineSeries() {
  const exposed: Exposed[] = []
  const known = <E extends Exposed>(one: E): E => {
    exposed.push(one)
    return one
  }
  const counter = <L extends string>(name: string, help: string, ...labels: L[]) =>
    known(new Family('counter', { name, help, labels }))
  const gauge = <L extends string>(name: string, help: string, ...labels: L[]) =>
    known(new Family('gauge', { name, help, labels }))
  const histogram = <L extends string>(name: string, help: string, buckets: number[], ...labels: L[]) =>
    known(new Histogram({ name, help, buckets, labels }))

  const requests = counter('layover_requests_total', 'Requests answered.', 'upstream', 'kind', 'outcome')
  const responses = counter('layover_responses_total', 'Responses by status code.', 'kind', 'code')
  const served = counter(
    'layover_served_bytes_total',
    'Body bytes of registry content written to clients, or that they were sent to the bucket for; bodies of denied and error answers are not counted.',
    'upstream',
    'kind',
    'source',
  )
  const fetched = counter(
    'layover_upstream_bytes_total',
    'Body bytes that came over the upstream link, tokens, repeated and wasted ones included.',
    'upstream',
    'kind',
  )
  const upstreamRequests = counter(
    'layover_upstream_requests_total',
    'HTTP exchanges with upstreams, by status code or reason.',
    'upstream',
    'kind',
    'outcome',
  )
  const upstreamSeconds = histogram(
    'layover_upstream_request_duration_seconds',
    'Time of HTTP exchanges with upstreams.',
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120],
    'upstream',
    'kind',
  )
  const tokens = counter(
    'layover_token_exchanges_total',
    'Exchanges with token services, by status code or reason.',
    'upstream',
    'outcome',
  )
  const running = gauge('layover_fills_running', 'Downloads that are running now.', 'upstream')
  const fills = counter('layover_fills_total', 'Downloads that ended.', 'upstream', 'outcome')
  const failed = counter('layover_fills_failed_total', 'Downloads that failed, by reason.', 'upstream', 'reason')
  const resumed = counter(
    'layover_fills_resumed_total',
    'Times that a download broke off and went on from where it was.',
    'upstream',
    'reason',
  )
  const fillSeconds = histogram(
    'layover_fill_duration_seconds',
    'Time of downloads from their start to their end.',
    [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900],
    'upstream',
    'outcome',
  )
  const fillReaders = histogram(
    'layover_fill_readers',
    'Most clients and replicas that read from one download at once.',
    [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
  ).cell()
  const rejected = counter(
    'layover_content_rejected_total',
    'Answers of upstreams that were refused for their content: wrong bytes, wrong size, or no manifest.',
    'upstream',
    'kind',
    'reason',
  )
  const firstByte = histogram(
    'layover_time_to_first_byte_seconds',
    'Time from the arrival of a request to the first byte of its body.',
    [...fast, 10, 30],
    'kind',
    'outcome',
  )
  const duration = histogram(
    'layover_request_duration_seconds',
    'Time from the arrival of a request to the end of its answer.',
    [0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900],
    'kind',
    'outcome',
  )
  const revalidations = counter(
    'layover_revalidations_total',
    'Questions to upstreams about tags that were not fresh any more.',
    'upstream',
    'result',
  )
  const staleServed = counter(
    'layover_stale_served_total',
    'Answers from the cache because the upstream could not answer.',
    'upstream',
    'reason',
  )
  const tagAge = histogram(
    'layover_tag_age_seconds',
    'Time since the upstream last confirmed a tag, when the tag was served.',
    [0, 1, 10, 60, 300, 900, 3600, 21_600, 86_400, 259_200, 604_800],
  ).cell()
  const state = gauge(
    'layover_upstream_state',
    'Whether the upstream is asked: 0 yes (closed), 1 on trial (half-open), 2 no (open).',
    'upstream',
  )
  const rateRemaining = gauge(
    'layover_upstream_ratelimit_remaining',
    'Requests left in the rate limit window, as the upstream last said.',
    'upstream',
  )
  const rateLimit = gauge(
    'layover_upstream_ratelimit_limit',
    'Requests allowed in a rate limit window, as the upstream last said.',
    'upstream',
  )
  const evictedBlobs = counter('layover_evicted_blobs_total', 'Blobs removed to make room.', 'reason')
  const evictedBytes = counter('layover_evicted_bytes_total', 'Bytes removed to make room.', 'reason')
  const storeFailures = counter(
    'layover_store_failures_total',
    'Store operations that failed; the pull went on.',
    'operation',
  )
  const aborts = counter('layover_client_aborts_total', 'Clients that left before the end of their answer.').cell()
  const buildInfo = gauge('layover_build_info', 'Always 1; the version of Layover and of Node.', 'version', 'node')
  const connections = gauge('layover_client_connections', 'Open client connections.').cell()
  const storage = {
    blobs: gauge('layover_storage_blobs', 'Verified blobs in the store.').cell(),
    blobBytes: gauge('layover_storage_blob_bytes', 'Bytes of the verified blobs.').cell(),
    manifests: gauge('layover_storage_manifests', 'Manifests in the store.').cell(),
    manifestBytes: gauge('layover_storage_manifest_bytes', 'Bytes of the manifests.').cell(),
    reservedBytes: gauge('layover_storage_reserved_bytes', 'Room taken by running downloads.').cell(),
    maxBytes: gauge('layover_storage_max_bytes', 'The storage budget: blobs, downloads and manifests together.').cell(),
  } satisfies Record<keyof StorageUsage, Cell>
  const shared = {
    requests: counter(
      'layover_shared_requests_total',
      'Requests to the store that replicas share, by status code or reason.',
      'operation',
      'outcome',
    ),
    seconds: histogram(
      'layover_shared_request_duration_seconds',
      'Time until the store that replicas share answered.',
      fast,
      'operation',
    ),
    bytes: counter(
      'layover_shared_bytes_total',
      'Bytes of blobs read from the shared store and uploaded to it.',
      'direction',
    ),
    pendingUploads: gauge(
      'layover_shared_pending_uploads',
      'Blobs that wait for their upload, or are uploaded now.',
    ).cell(),
    pendingBytes: gauge('layover_shared_pending_bytes', 'Bytes of the blobs that wait for their upload.').cell(),
  }
  const redis = {
    commands: counter('layover_redis_commands_total', 'Commands and scripts that Redis was asked for.', 'outcome'),
    seconds: histogram('layover_redis_command_duration_seconds', 'Time of commands to Redis.', fast).cell(),
    up: gauge('layover_redis_up', 'Whether Redis is asked: 1 yes, 0 no; absent where none is configured.'),
  }
  const fleet = {
    leases: counter(
      'layover_lease_waits_total',
      'Downloads by who downloads for all replicas: this one (owner), another (follower), each for itself (alone).',
      'result',
    ),
    bytes: counter('layover_peer_bytes_total', 'Bytes of blobs between replicas.', 'direction'),
  }
  return {
    exposed,
    requests,
    responses,
    served,
    fetched,
    upstreamRequests,
    upstreamSeconds,
    tokens,
    running,
    fills,
    failed,
    resumed,
    fillSeconds,
    fillReaders,
    rejected,
    firstByte,
    duration,
    revalidations,
    staleServed,
    tagAge,
    state,
    rateRemaining,
    rateLimit,
    evictedBlobs,
    evictedBytes,
    storeFailures,
    aborts,
    buildInfo,
    connections,
    storage,
    shared,
    redis,
    fleet,
    savings: defineSavings(counter, gauge),
  }
}

type Define = <L extends string>(name: string, help: string, ...labels: L[]) => Family<L>

function defineSavings(counter: Define, gauge: Define) {
  return {
    grossBytes: counter('layover_savings_gross_bytes_total', 'Bytes that clients got.', 'upstream', 'link'),
    costBytes: counter('layover_savings_cost_bytes_total', 'Bytes that were fetched for them.', 'upstream', 'link'),
    netBytes: gauge('layover_savings_net_bytes', 'Bytes saved since the start: gross less cost.', 'upstream', 'link'),
    grossMoney: counter(
      'layover_savings_gross_money_total',
      'What the bytes that clients got would have cost over the link.',
      'upstream',
      'link',
      'currency',
    ),
    costMoney: counter(
      'layover_savings_cost_money_total',
      'What was paid: for what was fetched, and for what Layover itself causes.',
      'cause',
      'currency',
    ),
    netMoney: gauge('layover_savings_net_money', 'Money saved since the start: gross less cost.', 'currency'),
    pullsAvoided: counter(
      'layover_upstream_pulls_avoided_total',
      'Manifests that clients got without a pull at the upstream: the most it has been since the start.',
      'upstream',
    ),
    lifetimeServed: gauge(
      'layover_lifetime_served_bytes',
      'Bytes that clients got since the totals began, of all replicas that share them.',
      'upstream',
    ),
    lifetimeFetched: gauge(
      'layover_lifetime_upstream_bytes',
      'Bytes that were fetched since the totals began, of all replicas that share them.',
      'upstream',
    ),
    lifetimePulls: gauge(
      'layover_lifetime_pulls_avoided',
      'Pulls avoided since the totals began, of all replicas that share them.',
      'upstream',
    ),
  }
}
