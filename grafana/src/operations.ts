import type { DashboardSpec } from './frame.ts'
import { events, lines, number, states } from './panels.ts'
import { count, share, max, mean, min, pulls, quantile, rate, recent, series, sum, total } from './promql.ts'
import { outcomeColours, stateMappings } from './words.ts'

const firstByte = 'layover_time_to_first_byte_seconds'
const onlyRedis = 'No data is fine: then there is no Redis.'
const onlyBucket = 'No data is fine: then there is no bucket.'

/** Median and 99th percentile by labels, as two lines each. */
const spread = (name: string, by: readonly string[], ...labels: readonly string[]) => {
  const shown = by.map(label => `{{${label}}}`).join(' ')
  return [
    { expr: quantile(0.5, name, by, ...labels), legend: `${shown} p50`.trim(), exemplars: true },
    { expr: quantile(0.99, name, by, ...labels), legend: `${shown} p99`.trim(), exemplars: true },
  ]
}

/** For whoever is called: what is slow, what fails, what is full. From the clients inwards. */
export const operations: DashboardSpec = {
  uid: 'layover-operations',
  title: 'Layover / Operations',
  description: 'Latency, downloads, registries, stores and saturation, for whoever runs Layover.',
  last: '3h',
  rows: [
    {
      title: 'At a glance',
      panels: [
        number({
          title: 'Instances down',
          description: 'Instances that Prometheus cannot read now. Runbook: LayoverInstanceDown.',
          queries: [{ expr: 'count(up{job=~"$job", instance=~"$instance"} == 0) or vector(0)', legend: 'down' }],
          unit: 'short',
          thresholds: ['green', [1, 'red']],
          width: 3,
        }),
        number({
          title: 'Server errors',
          description: 'The share of requests for images that are answered with 5xx now. Runbook: LayoverPullErrors.',
          queries: [
            {
              expr: share(
                `(${sum(rate('layover_responses_total', pulls, 'code=~"5.."'))} or vector(0))`,
                sum(rate('layover_responses_total', pulls)),
              ),
              legend: 'errors',
            },
          ],
          unit: 'percentunit',
          decimals: 2,
          thresholds: ['green', [0.01, 'orange'], [0.1, 'red']],
          empty: 'no pulls now',
          width: 3,
        }),
        number({
          title: 'Downloads running',
          description: 'Layers that come from a registry, the bucket or another replica at this moment.',
          queries: [{ expr: sum(series('layover_fills_running')), legend: 'running' }],
          unit: 'short',
          thresholds: ['text'],
          width: 3,
        }),
        number({
          title: 'Client connections',
          description: 'Open now. `clients.maxConnections` is the limit of each instance.',
          queries: [{ expr: sum(series('layover_client_connections')), legend: 'open' }],
          unit: 'short',
          thresholds: ['text'],
          width: 3,
        }),
        number({
          title: 'Event loop lag',
          description:
            'How late timers are in the busiest instance, p99. Above 0.25 s everything it does is slow. Runbook: LayoverEventLoopSaturated.',
          queries: [{ expr: `max(${series('nodejs_eventloop_lag_p99_seconds')})`, legend: 'p99' }],
          unit: 's',
          thresholds: ['green', [0.1, 'orange'], [0.25, 'red']],
          width: 3,
        }),
        number({
          title: 'Fullest cache',
          description: 'Blobs, manifests and running downloads against `storage.maxBytes`. Full alone is normal.',
          queries: [
            {
              expr: `max((${series('layover_storage_blob_bytes')} + ${series('layover_storage_manifest_bytes')} + ${series('layover_storage_reserved_bytes')}) / ${series('layover_storage_max_bytes')})`,
              legend: 'used',
            },
          ],
          unit: 'percentunit',
          decimals: 0,
          thresholds: ['green'],
          width: 3,
        }),
        number({
          title: 'Wrong bytes',
          description:
            'Answers of registries that were refused because size or digest were wrong, in the chosen time. No client got them as complete. Runbook: LayoverWrongBytes.',
          queries: [
            {
              expr: count(total('layover_content_rejected_total', 'reason=~"digest_mismatch|size_mismatch"')),
              legend: 'refused',
            },
          ],
          unit: 'short',
          thresholds: ['green', [1, 'red']],
          width: 3,
        }),
        number({
          title: 'Versions',
          description: 'How many instances run which version of Layover. Two for long: a roll-out that got stuck.',
          queries: [{ expr: `count by (version) (${series('layover_build_info')})`, legend: '{{version}}' }],
          unit: 'short',
          thresholds: ['text'],
          width: 3,
        }),
      ],
    },
    {
      title: 'Clients',
      panels: [
        lines({
          title: 'Requests by outcome',
          description:
            'What happened to requests, those for `/v2/` and for unknown registries included. `error` alone is no alarm: clients ask for what does not exist. Compare with the codes beside it.',
          queries: [{ expr: sum(rate('layover_requests_total'), 'outcome'), legend: '{{outcome}}' }],
          unit: 'reqps',
          min: 0,
          colours: outcomeColours,
          stacked: true,
          width: 8,
        }),
        lines({
          title: 'Responses by code',
          description:
            '404: asked for what is not there. 502: a registry sent what cannot be used. 503: a registry cannot be asked now and nothing is cached. 500: a fault of Layover; its log says which.',
          queries: [{ expr: sum(rate('layover_responses_total'), 'code'), legend: '{{code}}' }],
          unit: 'reqps',
          min: 0,
          stacked: true,
          width: 8,
        }),
        lines({
          title: 'Connections and clients that left',
          description:
            'Open connections, and answers a second that clients did not wait for. Lazy-loading snapshotters leave often; many with whole images means that pulls time out.',
          queries: [
            { expr: sum(series('layover_client_connections'), 'instance'), legend: '{{instance}}' },
            { expr: sum(rate('layover_client_aborts_total')), legend: 'left, per second' },
          ],
          unit: 'short',
          min: 0,
          width: 8,
        }),
        lines({
          title: 'First byte, cached manifests',
          description:
            'Time to the first byte of manifests that were in the cache. Milliseconds; when it grows, look at the event loop and at Redis.',
          queries: spread(firstByte, ['outcome'], 'kind=~"manifest_tag|manifest_digest"', 'outcome=~"hit|stale"'),
          unit: 's',
          width: 8,
        }),
        lines({
          title: 'First byte, manifests that a registry was asked for',
          description: 'The registry’s own time is in these. When it grows, look at the times of the registries below.',
          queries: spread(
            firstByte,
            ['outcome'],
            'kind=~"manifest_tag|manifest_digest"',
            'outcome=~"fill|revalidated"',
          ),
          unit: 's',
          width: 8,
        }),
        lines({
          title: 'First byte, blobs',
          description:
            'hit: from disk or bucket. joined: from a download that was running. fill: the registry’s time is in it.',
          queries: spread(firstByte, ['outcome'], 'kind="blob"', 'outcome=~"hit|joined|fill"'),
          unit: 's',
          width: 8,
        }),
        lines({
          title: 'Whole answers',
          description: 'Time from the request to the end of its answer. For blobs it is mostly the client’s own speed.',
          queries: spread('layover_request_duration_seconds', ['kind'], pulls),
          unit: 's',
          width: 8,
        }),
        lines({
          title: 'Bytes to clients, by source',
          description:
            'memory and disk cost nothing; s3, peer and fill come over a network first; redirect goes from the bucket straight to the client.',
          queries: [{ expr: sum(rate('layover_served_bytes_total'), 'source'), legend: '{{source}}' }],
          unit: 'binBps',
          min: 0,
          stacked: true,
          width: 8,
        }),
        lines({
          title: 'Age of served tags',
          description:
            'How long ago a tag that was served had been confirmed. Up to `tagTtl` while registries answer, more while they do not.',
          queries: spread('layover_tag_age_seconds', []),
          unit: 's',
          min: 0,
          width: 8,
        }),
      ],
    },
    {
      title: 'Downloads',
      panels: [
        lines({
          title: 'Running',
          description: 'Downloads at this moment, by registry. A line that never comes down: a registry that trickles.',
          queries: [{ expr: sum(series('layover_fills_running'), 'upstream'), legend: '{{upstream}}' }],
          unit: 'short',
          min: 0,
          stacked: true,
          width: 8,
        }),
        lines({
          title: 'Ended, by outcome',
          description:
            'published: kept. uncached: streamed and not kept, for want of room. failed: broke and could not be resumed. cancelled: nobody waited any more. Runbooks: LayoverFillsFailing, LayoverNotCaching.',
          queries: [{ expr: sum(rate('layover_fills_total'), 'outcome'), legend: '{{outcome}}' }],
          unit: 'ops',
          min: 0,
          colours: { published: 'green', uncached: 'orange', failed: 'red', cancelled: 'blue' },
          stacked: true,
          width: 8,
        }),
        lines({
          title: 'Duration',
          description:
            'From the start of a download to its end. Compare with the size of the layers and the speed of the link.',
          queries: spread('layover_fill_duration_seconds', ['outcome'], 'outcome=~"published|failed"'),
          unit: 's',
          min: 0,
          width: 8,
        }),
        events({
          title: 'Failed, by reason',
          description:
            'Downloads that failed although they were resumed. The runbook LayoverFillsFailing explains the reasons.',
          queries: [
            {
              expr: sum(recent('layover_fills_failed_total'), 'upstream', 'reason'),
              legend: '{{upstream}} {{reason}}',
            },
          ],
          unit: 'short',
          empty: 'none failed',
          width: 8,
        }),
        events({
          title: 'Resumed, by reason',
          description:
            'Times that a download broke and went on where it was; clients did not notice. Many: the path to the registry is bad. No data is fine: nothing broke.',
          queries: [
            {
              expr: sum(recent('layover_fills_resumed_total'), 'upstream', 'reason'),
              legend: '{{upstream}} {{reason}}',
            },
          ],
          unit: 'short',
          empty: 'none resumed',
          width: 8,
        }),
        lines({
          title: 'Readers of a download',
          description:
            'How many clients read the same download at once, at most. What is above 1 is traffic that was saved before anything was cached.',
          queries: [
            { expr: mean('layover_fill_readers', []), legend: 'mean' },
            { expr: quantile(0.99, 'layover_fill_readers', []), legend: 'p99' },
          ],
          unit: 'short',
          min: 0,
          width: 8,
        }),
      ],
    },
    {
      title: 'Registries',
      panels: [
        states({
          title: 'State',
          description: 'As the worst-off instance sees them. Runbook: LayoverUpstreamUnreachable.',
          queries: [{ expr: max(series('layover_upstream_state'), 'upstream'), legend: '{{upstream}}' }],
          unit: 'short',
          mappings: stateMappings,
          width: 12,
        }),
        lines({
          title: 'Exchanges by outcome',
          description:
            'HTTP exchanges with registries by status code or reason: 429 is a limit, dns, connect, tls and timeout are the way there, 5xx is theirs.',
          queries: [{ expr: sum(rate('layover_upstream_requests_total'), 'outcome'), legend: '{{outcome}}' }],
          unit: 'reqps',
          min: 0,
          stacked: true,
          width: 12,
        }),
        lines({
          title: 'Time of exchanges, p99',
          description:
            'By what was asked. Blobs take as long as their bytes need; manifests above 1 s make every pull slow.',
          queries: [
            {
              expr: quantile(0.99, 'layover_upstream_request_duration_seconds', ['kind']),
              legend: '{{kind}}',
              exemplars: true,
            },
          ],
          unit: 's',
          min: 0,
          width: 8,
        }),
        lines({
          title: 'Tags asked for again',
          description:
            'What registries said when a tag was older than `tagTtl`: same, changed, gone, or nothing (failed).',
          queries: [{ expr: sum(rate('layover_revalidations_total'), 'result'), legend: '{{result}}' }],
          unit: 'ops',
          min: 0,
          stacked: true,
          colours: { same: 'green', changed: 'blue', gone: 'orange', failed: 'red' },
          width: 8,
        }),
        events({
          title: 'Stale answers, by reason',
          description:
            'Tags that were served unconfirmed, and why. Runbook: LayoverStaleServing. No data is fine: then all registries answered.',
          queries: [
            {
              expr: sum(recent('layover_stale_served_total'), 'upstream', 'reason'),
              legend: '{{upstream}} {{reason}}',
            },
          ],
          unit: 'short',
          empty: 'none stale',
          width: 8,
        }),
        lines({
          title: 'Logins',
          description:
            'Token exchanges with registries by outcome. A steady flow of failures: a password that changed. No data is fine: then no registry asked for a token.',
          queries: [
            {
              expr: sum(rate('layover_token_exchanges_total'), 'upstream', 'outcome'),
              legend: '{{upstream}} {{outcome}}',
            },
          ],
          unit: 'ops',
          min: 0,
          empty: 'no logins',
          width: 8,
        }),
        lines({
          title: 'Rate limit left',
          description:
            'Requests that the registry still allows in its window, as a share. At 0 only what is cached is served. Runbook: LayoverUpstreamLimited. No data is fine: few registries tell.',
          queries: [
            {
              expr: min(
                `${series('layover_upstream_ratelimit_remaining')} / ${series('layover_upstream_ratelimit_limit')}`,
                'upstream',
              ),
              legend: '{{upstream}}',
            },
          ],
          unit: 'percentunit',
          min: 0,
          max: 1,
          thresholds: ['red', [0.1, 'green']],
          marks: true,
          empty: 'no registry tells',
          width: 8,
        }),
        events({
          title: 'Refused content',
          description:
            'Answers that were refused for what they are: wrong digest, wrong size, or no manifest. Runbook: LayoverWrongBytes.',
          queries: [
            {
              expr: sum(recent('layover_content_rejected_total'), 'upstream', 'kind', 'reason'),
              legend: '{{upstream}} {{kind}} {{reason}}',
            },
          ],
          unit: 'short',
          empty: 'none refused',
          width: 8,
        }),
      ],
    },
    {
      title: 'Stores',
      panels: [
        lines({
          title: 'Room used',
          description:
            'Blobs, manifests and running downloads of all chosen instances, under their budget. At the budget the least recently used goes first.',
          queries: [
            { expr: sum(series('layover_storage_blob_bytes')), legend: 'blobs' },
            { expr: sum(series('layover_storage_manifest_bytes')), legend: 'manifests' },
            { expr: sum(series('layover_storage_reserved_bytes')), legend: 'running downloads' },
            { expr: sum(series('layover_storage_max_bytes')), legend: 'budget' },
          ],
          unit: 'bytes',
          min: 0,
          colours: { budget: 'red' },
          width: 6,
        }),
        lines({
          title: 'Evicted bytes',
          description:
            'Removed to make room, or for another reason that the label names. A quarter of the budget in an hour is too much. Runbook: LayoverStorageNearlyFull.',
          queries: [{ expr: sum(rate('layover_evicted_bytes_total'), 'reason'), legend: '{{reason}}' }],
          unit: 'binBps',
          min: 0,
          width: 6,
        }),
        lines({
          title: 'Objects, and how many go',
          description: 'Blobs and manifests that are kept, and blobs that were evicted since the point before.',
          queries: [
            { expr: sum(series('layover_storage_blobs')), legend: 'blobs' },
            { expr: sum(series('layover_storage_manifests')), legend: 'manifests' },
            { expr: sum(recent('layover_evicted_blobs_total'), 'reason'), legend: 'evicted, {{reason}}' },
          ],
          unit: 'short',
          min: 0,
          width: 6,
        }),
        events({
          title: 'Failures of stores',
          description:
            'Operations on disk, Redis or bucket that failed while the pull went on. Some are no reason to get up; a steady flow is. No data is fine: nothing failed.',
          queries: [{ expr: sum(recent('layover_store_failures_total'), 'operation'), legend: '{{operation}}' }],
          unit: 'short',
          empty: 'none failed',
          width: 6,
        }),
      ],
    },
    {
      title: 'Saturation',
      panels: [
        lines({
          title: 'Event loop',
          description: 'How late timers are, p99, by instance. Runbook: LayoverEventLoopSaturated.',
          queries: [{ expr: max(series('nodejs_eventloop_lag_p99_seconds'), 'instance'), legend: '{{instance}}' }],
          unit: 's',
          min: 0,
          thresholds: ['green', [0.25, 'red']],
          marks: true,
          width: 6,
        }),
        lines({
          title: 'Processor',
          description: 'Cores in use, by instance. One event loop can use little more than one; then add instances.',
          queries: [{ expr: sum(rate('process_cpu_seconds_total'), 'instance'), legend: '{{instance}}' }],
          unit: 'short',
          min: 0,
          thresholds: ['green', [1, 'red']],
          marks: true,
          width: 6,
        }),
        lines({
          title: 'Memory',
          description: 'Resident memory and the part that is JavaScript’s heap. A heap that only grows is a leak.',
          queries: [
            { expr: sum(series('process_resident_memory_bytes'), 'instance'), legend: '{{instance}}' },
            { expr: sum(series('nodejs_heap_size_used_bytes'), 'instance'), legend: '{{instance}} heap' },
          ],
          unit: 'bytes',
          min: 0,
          width: 6,
        }),
        lines({
          title: 'Open files, and the limit',
          description:
            'Sockets and files against the limit of the process (`LimitNOFILE`, ulimit). Each running download takes a few.',
          queries: [
            { expr: max(series('process_open_fds'), 'instance'), legend: '{{instance}}' },
            { expr: min(series('process_max_fds')), legend: 'limit' },
          ],
          unit: 'short',
          min: 0,
          colours: { limit: 'red' },
          width: 6,
        }),
        lines({
          title: 'Up since',
          description:
            'How long each instance has been running. A saw is a process that keeps ending. Runbook: LayoverRestarting.',
          queries: [
            { expr: `time() - ${max(series('process_start_time_seconds'), 'instance')}`, legend: '{{instance}}' },
          ],
          unit: 's',
          min: 0,
          width: 12,
        }),
        lines({
          title: 'Garbage collection',
          description:
            'The share of time that collections take, by kind. Above 0.1 for long: too little memory for what runs at once.',
          queries: [{ expr: sum(rate('nodejs_gc_duration_seconds_sum'), 'kind'), legend: '{{kind}}' }],
          unit: 'percentunit',
          min: 0,
          width: 12,
        }),
      ],
    },
    {
      title: 'Redis and other replicas',
      collapsed: true,
      panels: [
        number({
          title: 'Redis out of reach of',
          description: `Instances that get no answer of Redis. Pulls go on without it; each instance is then a cache of its own. Runbook: LayoverRedisDown. ${onlyRedis}`,
          queries: [{ expr: `sum(1 - ${series('layover_redis_up')})`, legend: 'instances' }],
          unit: 'short',
          thresholds: ['green', [1, 'red']],
          empty: 'no Redis',
          width: 4,
          height: 8,
        }),
        lines({
          title: 'Redis, commands',
          description: `By outcome. Failures cost a miss, not a pull. ${onlyRedis}`,
          queries: [{ expr: sum(rate('layover_redis_commands_total'), 'outcome'), legend: '{{outcome}}' }],
          unit: 'ops',
          min: 0,
          empty: 'no Redis',
          stacked: true,
          width: 10,
        }),
        lines({
          title: 'Redis, time',
          description: `Of a command. Above some milliseconds it is far away or busy; it is given up after \`commandTimeout\`. ${onlyRedis}`,
          queries: spread('layover_redis_command_duration_seconds', []),
          unit: 's',
          min: 0,
          empty: 'no Redis',
          width: 10,
        }),
        lines({
          title: 'Who downloads',
          description:
            'What asking for the lease of a blob came to. owner: this replica downloads. follower: it reads from the one that does. alone: no lease could be had, so it downloads by itself. Many alone: Redis or the other replicas are out of reach.',
          queries: [{ expr: sum(rate('layover_lease_waits_total'), 'result'), legend: '{{result}}' }],
          unit: 'ops',
          min: 0,
          empty: 'no other replicas',
          colours: { owner: 'green', follower: 'blue', alone: 'orange' },
          stacked: true,
          width: 12,
        }),
        lines({
          title: 'Between replicas',
          description:
            'Bytes that replicas read from each other while one of them downloads. Between zones this costs money. No data is fine: then there are no other replicas.',
          queries: [{ expr: sum(rate('layover_peer_bytes_total'), 'direction'), legend: '{{direction}}' }],
          unit: 'binBps',
          min: 0,
          empty: 'no other replicas',
          width: 12,
        }),
      ],
    },
    {
      title: 'Bucket',
      collapsed: true,
      panels: [
        lines({
          title: 'Bucket, requests',
          description: `By operation and status. 503 is the bucket slowing us down, 403 its rights. ${onlyBucket}`,
          queries: [
            {
              expr: sum(rate('layover_shared_requests_total'), 'operation', 'outcome'),
              legend: '{{operation}} {{outcome}}',
            },
          ],
          unit: 'reqps',
          min: 0,
          empty: 'no bucket',
          stacked: true,
          width: 8,
        }),
        lines({
          title: 'Bucket, time, p99',
          description: `Of a request, by operation. Reads are in the time of the first byte. ${onlyBucket}`,
          queries: [
            { expr: quantile(0.99, 'layover_shared_request_duration_seconds', ['operation']), legend: '{{operation}}' },
          ],
          unit: 's',
          min: 0,
          empty: 'no bucket',
          width: 8,
        }),
        lines({
          title: 'Bucket, bytes',
          description: `Read from it and uploaded to it. Redirected clients read beside Layover and are not in this. ${onlyBucket}`,
          queries: [{ expr: sum(rate('layover_shared_bytes_total'), 'direction'), legend: '{{direction}}' }],
          unit: 'binBps',
          min: 0,
          empty: 'no bucket',
          width: 8,
        }),
        lines({
          title: 'Uploads that wait',
          description: `Blobs that are on a disk and not yet in the bucket, by instance. It should return to 0 after each roll-out. Runbook: LayoverUploadsStuck. ${onlyBucket}`,
          queries: [{ expr: sum(series('layover_shared_pending_uploads'), 'instance'), legend: '{{instance}}' }],
          unit: 'short',
          min: 0,
          empty: 'no bucket',
          width: 8,
        }),
        lines({
          title: 'Bytes that wait',
          description: `The same in bytes: they are lost when the disk is lost before they are uploaded, and fetched again from the registry. ${onlyBucket}`,
          queries: [{ expr: sum(series('layover_shared_pending_bytes'), 'instance'), legend: '{{instance}}' }],
          unit: 'bytes',
          min: 0,
          empty: 'no bucket',
          width: 8,
        }),
        lines({
          title: 'What Layover itself costs, per hour',
          description:
            'Requests to the bucket, storage in it, traffic between zones, at the configured prices. No data is fine: then no price is configured.',
          queries: [
            {
              expr: `${sum(rate('layover_savings_cost_money_total', 'cause!="upstream"'), 'cause', 'currency')} * 3600`,
              legend: '{{cause}}, {{currency}}',
            },
          ],
          unit: 'short',
          min: 0,
          empty: 'no prices configured',
          width: 8,
        }),
      ],
    },
  ],
}
