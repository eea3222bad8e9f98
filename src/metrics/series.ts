import { Histogram, type Registry } from 'prom-client'
import type { StorageUsage } from '../store/stores.ts'
import { type Cell, Family } from './family.ts'

export type Series = ReturnType<typeof defineSeries>

/** Every metric of Layover, by name; https://prometheus.io/docs/practices/naming/ */
export function defineSeries(registry: Registry) {
  const counter = <L extends string>(name: string, help: string, ...labels: L[]) =>
    new Family('counter', { name, help, labels, registry })
  const gauge = <L extends string>(name: string, help: string, ...labels: L[]) =>
    new Family('gauge', { name, help, labels, registry })
  const histogram = <L extends string>(name: string, help: string, buckets: number[], ...labels: L[]) =>
    new Histogram<L>({ name, help, buckets, labelNames: labels, registers: [registry] })

  const requests = counter('layover_requests_total', 'Requests answered.', 'upstream', 'kind', 'outcome')
  const responses = counter('layover_responses_total', 'Responses by status code.', 'kind', 'code')
  const served = counter(
    'layover_served_bytes_total',
    'Body bytes of registry content written to clients; bodies of denied and error answers are not counted.',
    'upstream',
    'kind',
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
  const running = gauge('layover_fills_running', 'Downloads that are running now.', 'upstream')
  const fills = counter('layover_fills_total', 'Downloads that ended.', 'upstream', 'outcome')
  const failed = counter('layover_fills_failed_total', 'Downloads that failed, by reason.', 'upstream', 'reason')
  const resumed = counter(
    'layover_fills_resumed_total',
    'Times that a download broke off and went on from where it was.',
    'upstream',
    'reason',
  )
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
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
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
  const evictedBlobs = counter('layover_evicted_blobs_total', 'Blobs removed to make room.').cell()
  const evictedBytes = counter('layover_evicted_bytes_total', 'Bytes removed to make room.').cell()
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
  return {
    shared,
    requests,
    responses,
    served,
    fetched,
    upstreamRequests,
    upstreamSeconds,
    running,
    fills,
    failed,
    resumed,
    rejected,
    firstByte,
    duration,
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
  }
}
