import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { ContentRejected, FillEnded, UpstreamKind } from '../../src/log/observer.ts'
import { outcomes, requestKinds, servedSources } from '../../src/metrics/labels.ts'
import type { MeterReading } from '../../src/metrics/meter.ts'
import { createMetrics, type Metrics, type RequestEvent } from '../../src/metrics/metrics.ts'
import { namingFaults, parseExposition } from './exposition.ts'
import { promtoolFaults } from './promtool.ts'

const upstreams = ['docker.io', 'registry.example.com:5000']
const create = (): Metrics => createMetrics({ upstreams, version: '1.2.3' })

const event: RequestEvent = {
  upstream: 'docker.io',
  kind: 'blob',
  method: 'GET',
  status: 200,
  outcome: 'hit',
  source: 'disk',
  bytes: 1000,
  firstByteSeconds: 0.002,
  seconds: 0.2,
  aborted: false,
}

const ended = (upstream: string, outcome: FillEnded['outcome'], reason?: string): FillEnded => ({
  upstream,
  digest: 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  outcome,
  reason,
  bytes: 10,
  seconds: 1.5,
  readers: 3,
  error: reason === undefined ? undefined : new Error(reason),
})

const rejected = (upstream: string, kind: UpstreamKind, reason: string): ContentRejected => ({
  upstream,
  kind,
  digest: 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  reason,
})

/** Every kind of event once, so that every metric has a series. */
function exerciseAll(metrics: Metrics): void {
  for (const kind of requestKinds) for (const outcome of outcomes) metrics.request({ ...event, kind, outcome })
  metrics.request({ ...event, aborted: true, status: 206 })
  metrics.upstreamRequest({ upstream: 'docker.io', kind: 'blob', outcome: '200', seconds: 0.1 })
  metrics.upstreamBytes('docker.io', 'blob', 10)
  metrics.upstreamRateLimit('docker.io', { limit: 100, remaining: 76 })
  metrics.upstreamState('docker.io', 'open')
  metrics.fillStarted('docker.io')
  metrics.fillResumed('docker.io', 'reset')
  metrics.fillEnded(ended('docker.io', 'failed', 'digest_mismatch'))
  metrics.contentRejected(rejected('docker.io', 'manifest', 'schema_1'))
  metrics.evicted(2, 2000, 'budget')
  metrics.storeFailed('publish', new Error('EIO'))
  metrics.setUsage(() => ({
    blobs: 3,
    blobBytes: 300,
    manifests: 2,
    manifestBytes: 20,
    reservedBytes: 5,
    maxBytes: 1000,
  }))
  metrics.clients(() => 7)
  metrics.sharedRequest('get', '200', 0.01)
  metrics.sharedBytes('read', 10)
  metrics.revalidated('docker.io', 'same')
  metrics.redisCommand('ok', 0.001)
  metrics.leaseSettled('owner')
  metrics.peerBytes('read', 10)
  metrics.setRedis(() => ({ isUp: true, refusals: [] }))
  metrics.setSavings(() => reading)
  metrics.setPending(() => ({ uploads: 2, bytes: 20 }))
}

const reading: MeterReading = {
  currency: 'USD',
  upstreams: [
    { upstream: 'docker.io', link: 'aws-nat', servedBytes: 9, fetchedBytes: 4, grossMoney: 3, pullsAvoided: 2 },
    { upstream: 'quay.io', link: 'none', servedBytes: 5, fetchedBytes: 5, grossMoney: 0, pullsAvoided: -1 },
  ],
  costs: { upstream: 1, s3_requests: 0.25, s3_storage: 0.5, cross_zone: 0 },
  lifetime: {
    upstreams: [
      {
        upstream: 'docker.io',
        servedBytes: 90,
        upstreamBytes: 40,
        pullsAvoided: 20,
      },
    ],
  },
}

/** The value of one series as `name{label="value"}` is written in the exposition. */
async function valueOf(metrics: Metrics, series: string): Promise<number | undefined> {
  const { body } = await metrics.render()
  const line = body.split('\n').find(text => text.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.slice(series.length + 1))
}

describe('what a request counts', () => {
  test('counts it by upstream, kind and outcome, its status and its bytes', async () => {
    const metrics = create()
    metrics.request(event)
    metrics.request({ ...event, status: 206, bytes: 500 })
    expect(await valueOf(metrics, 'layover_requests_total{upstream="docker.io",kind="blob",outcome="hit"}')).toBe(2)
    expect(await valueOf(metrics, 'layover_responses_total{kind="blob",code="206"}')).toBe(1)
    expect(await valueOf(metrics, 'layover_served_bytes_total{upstream="docker.io",kind="blob",source="disk"}')).toBe(
      1500,
    )
    expect(
      await valueOf(metrics, 'layover_time_to_first_byte_seconds_bucket{le="0.0025",kind="blob",outcome="hit"}'),
    ).toBe(2)
    expect(await valueOf(metrics, 'layover_request_duration_seconds_count{kind="blob",outcome="hit"}')).toBe(2)
  })

  test('counts no first byte where there was none, and who left', async () => {
    const metrics = create()
    metrics.request({ ...event, firstByteSeconds: undefined, bytes: 0, aborted: true })
    expect(
      await valueOf(metrics, 'layover_time_to_first_byte_seconds_count{kind="blob",outcome="hit"}'),
    ).toBeUndefined()
    expect(await valueOf(metrics, 'layover_client_aborts_total')).toBe(1)
  })

  test('does not count the bodies of refusals as served content: savings are not flattered', async () => {
    const metrics = create()
    metrics.request({ ...event, status: 503, outcome: 'error' })
    metrics.request({ ...event, status: 403, outcome: 'denied' })
    expect(await valueOf(metrics, 'layover_served_bytes_total{upstream="docker.io",kind="blob",source="disk"}')).toBe(0)
    expect(metrics.snapshot().traffic.savedBytes).toBe(0)
  })

  test('every series that alerts look at exists at 0 before its first event', async () => {
    const metrics = create()
    for (const series of [
      'layover_fills_failed_total{upstream="docker.io",reason="digest_mismatch"}',
      'layover_content_rejected_total{upstream="docker.io",kind="manifest",reason="digest_mismatch"}',
      'layover_content_rejected_total{upstream="docker.io",kind="blob",reason="digest_mismatch"}',
      'layover_content_rejected_total{upstream="registry.example.com:5000",kind="blob",reason="size_mismatch"}',
      'layover_requests_total{upstream="docker.io",kind="manifest_tag",outcome="stale"}',
      'layover_upstream_state{upstream="registry.example.com:5000"}',
      'layover_fills_total{upstream="docker.io",outcome="published"}',
    ])
      expect([series, await valueOf(metrics, series)]).toEqual([series, 0])
  })
})

describe('savings', () => {
  test('are served minus fetched bytes per upstream, tokens included, and may be negative', () => {
    const metrics = create()
    metrics.upstreamBytes('docker.io', 'blob', 5000)
    metrics.upstreamBytes('docker.io', 'token', 40)
    metrics.request(event)
    metrics.request({ ...event, upstream: 'registry.example.com:5000', bytes: 30 })
    const { traffic, upstreams: byUpstream } = metrics.snapshot()
    expect(byUpstream['docker.io']).toEqual({
      servedBytes: 1000,
      upstreamBytes: 5040,
      savedBytes: -4040,
      upstreamRequests: 0,
    })
    expect(traffic).toEqual({ servedBytes: 1030, upstreamBytes: 5040, savedBytes: -4010 })
  })

  test('the snapshot says the same as the exposition, for any traffic', async () => {
    const upstream = fc.constantFrom('docker.io', 'registry.example.com:5000', 'none', 'evil.example')
    const step = fc.record({ upstream, served: fc.nat(1e6), fetched: fc.nat(1e6) })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async steps => {
        const metrics = create()
        for (const { upstream: name, served, fetched } of steps) {
          metrics.request({ ...event, upstream: name, bytes: served })
          metrics.upstreamBytes(name, 'blob', fetched)
        }
        const samples = parseExposition((await metrics.render()).body).samples
        const sum = (name: string): number =>
          samples
            .filter(sample => sample.name === name && upstreams.includes(sample.labels['upstream'] ?? ''))
            .reduce((total, sample) => total + sample.value, 0)
        const { traffic } = metrics.snapshot()
        expect(traffic.servedBytes).toBe(sum('layover_served_bytes_total'))
        expect(traffic.upstreamBytes).toBe(sum('layover_upstream_bytes_total'))
        expect(traffic.savedBytes).toBe(traffic.servedBytes - traffic.upstreamBytes)
      }),
      { numRuns: 20 },
    )
  })
})

describe('upstreams, fills and stores', () => {
  test('counts a fill from its start to its end', async () => {
    const metrics = create()
    metrics.fillStarted('docker.io')
    metrics.fillStarted('docker.io')
    expect(await valueOf(metrics, 'layover_fills_running{upstream="docker.io"}')).toBe(2)
    metrics.fillResumed('docker.io', 'reset')
    metrics.fillEnded(ended('docker.io', 'published'))
    metrics.fillEnded(ended('docker.io', 'failed', 'digest_mismatch'))
    expect(metrics.snapshot().fills).toEqual({
      running: 0,
      published: 1,
      uncached: 0,
      failed: 1,
      cancelled: 0,
      resumed: 1,
    })
    expect(await valueOf(metrics, 'layover_fills_failed_total{upstream="docker.io",reason="digest_mismatch"}')).toBe(1)
  })

  test('P-36, T-20: counts what was refused for its content by upstream, kind and reason, and no exchange for it', async () => {
    const metrics = create()
    metrics.contentRejected(rejected('docker.io', 'manifest', 'digest_mismatch'))
    metrics.contentRejected(rejected('docker.io', 'blob', 'digest_mismatch'))
    metrics.contentRejected(rejected('docker.io', 'blob', 'digest_mismatch'))
    metrics.contentRejected(rejected('docker.io', 'manifest', 'media_type_mismatch'))
    const of = (labels: string): Promise<number | undefined> =>
      valueOf(metrics, `layover_content_rejected_total{upstream="docker.io",${labels}}`)
    expect(await of('kind="manifest",reason="digest_mismatch"')).toBe(1)
    expect(await of('kind="blob",reason="digest_mismatch"')).toBe(2)
    expect(await of('kind="manifest",reason="media_type_mismatch"')).toBe(1)
    expect(metrics.snapshot().upstreams['docker.io']?.upstreamRequests).toBe(0)
  })

  test('says the state of an upstream as 0, 1, 2 and its rate limit once it is known', async () => {
    const metrics = create()
    const remaining = 'layover_upstream_ratelimit_remaining{upstream="docker.io"}'
    expect(await valueOf(metrics, remaining)).toBeUndefined()
    metrics.upstreamRateLimit('docker.io', { remaining: 0 })
    expect(await valueOf(metrics, remaining)).toBe(0)
    for (const [state, number] of [
      ['open', 2],
      ['half-open', 1],
      ['closed', 0],
    ] as const) {
      metrics.upstreamState('docker.io', state)
      expect(await valueOf(metrics, 'layover_upstream_state{upstream="docker.io"}')).toBe(number)
    }
  })

  test('reads storage and connections at the scrape; a store that cannot tell fails no scrape', async () => {
    const metrics = create()
    exerciseAll(metrics)
    expect(await valueOf(metrics, 'layover_storage_blob_bytes')).toBe(300)
    expect(await valueOf(metrics, 'layover_storage_max_bytes')).toBe(1000)
    expect(await valueOf(metrics, 'layover_client_connections')).toBe(7)
    metrics.setUsage(() => {
      throw new Error('database is locked')
    })
    expect(await valueOf(metrics, 'layover_storage_blob_bytes')).toBe(300)
    expect(await valueOf(metrics, 'layover_store_failures_total{operation="usage"}')).toBeGreaterThan(0)
  })

  test('survives figures that are no figures', async () => {
    const metrics = create()
    metrics.request({ ...event, bytes: Number.NaN, seconds: Number.NaN, firstByteSeconds: -1, status: Number.NaN })
    metrics.upstreamBytes('docker.io', 'blob', Number.POSITIVE_INFINITY)
    metrics.upstreamBytes('docker.io', 'blob', -5)
    metrics.evicted(-1, Number.NaN, 'budget')
    metrics.fillEnded(ended('docker.io', 'cancelled'))
    expect(metrics.snapshot().traffic).toEqual({ servedBytes: 0, upstreamBytes: 0, savedBytes: 0 })
    expect(await valueOf(metrics, 'layover_fills_running{upstream="docker.io"}')).toBe(0)
    expect(await valueOf(metrics, 'layover_responses_total{kind="blob",code="other"}')).toBe(1)
  })
})

describe('the shared store', () => {
  test('its requests by outcome, its bytes each way and the uploads that wait are counted', async () => {
    const metrics = create()
    expect(await valueOf(metrics, 'layover_shared_bytes_total{direction="read"}')).toBe(0)
    metrics.sharedRequest('get', 'slow_down')
    metrics.sharedBytes('read', 1000)
    metrics.setPending(() => ({ uploads: 2, bytes: 20 }))
    expect(await valueOf(metrics, 'layover_shared_requests_total{operation="get",outcome="slow_down"}')).toBe(1)
    expect(await valueOf(metrics, 'layover_shared_bytes_total{direction="read"}')).toBe(1000)
    expect(await valueOf(metrics, 'layover_shared_pending_uploads')).toBe(2)
    expect(await valueOf(metrics, 'layover_shared_pending_bytes')).toBe(20)
  })
})

describe('what is told apart', () => {
  test('where served bytes came from; what a client was sent to the bucket for counts as served', async () => {
    const metrics = create()
    for (const source of servedSources) metrics.request({ ...event, source, bytes: 10 })
    metrics.request({ ...event, status: 307, outcome: 'redirected', source: 'memory', bytes: 0, redirectedBytes: 5000 })
    const of = (source: string): Promise<number | undefined> =>
      valueOf(metrics, `layover_served_bytes_total{upstream="docker.io",kind="blob",source="${source}"}`)
    expect(await Promise.all(servedSources.map(of))).toEqual([10, 10, 10, 10, 10, 5010])
    expect(metrics.snapshot().traffic.servedBytes).toBe(5060)
    // The client's read is a request to the bucket.
    expect(metrics.amounts().get('s3_reads')).toBe(1)
  })

  test('why an answer is stale, and how old the tag was', async () => {
    const metrics = create()
    metrics.request({ ...event, kind: 'manifest_tag', outcome: 'stale', staleReason: 'timeout', tagAgeMs: 400_000 })
    metrics.request({ ...event, kind: 'manifest_tag', outcome: 'stale', staleReason: 'what a stranger says' })
    expect(await valueOf(metrics, 'layover_stale_served_total{upstream="docker.io",reason="timeout"}')).toBe(1)
    expect(await valueOf(metrics, 'layover_stale_served_total{upstream="docker.io",reason="other"}')).toBe(1)
    expect(await valueOf(metrics, 'layover_tag_age_seconds_bucket{le="300"}')).toBe(0)
    expect(await valueOf(metrics, 'layover_tag_age_seconds_bucket{le="900"}')).toBe(1)
    expect(await valueOf(metrics, 'layover_tag_age_seconds_sum')).toBe(400)
  })

  test('pulls are manifests by GET, on both sides, and their counter never goes back', async () => {
    const metrics = create()
    const manifest: RequestEvent = { ...event, kind: 'manifest_digest' }
    for (let n = 0; n < 3; n++) metrics.request(manifest)
    metrics.request({ ...manifest, method: 'HEAD' })
    metrics.request({ ...manifest, outcome: 'error', status: 404 })
    const asked = { upstream: 'docker.io', kind: 'manifest', seconds: 0.1 } as const
    metrics.upstreamRequest({ ...asked, method: 'GET', outcome: '200' })
    metrics.upstreamRequest({ ...asked, method: 'GET', outcome: '429' })
    metrics.upstreamRequest({ ...asked, method: 'HEAD', outcome: '200' })
    expect([metrics.amounts().get('pulls docker.io'), metrics.amounts().get('asked docker.io')]).toEqual([3, 1])
    let pullsAvoided = 7
    metrics.setSavings(() => ({ ...reading, upstreams: [{ ...reading.upstreams[0], pullsAvoided } as never] }))
    const counter = 'layover_upstream_pulls_avoided_total{upstream="docker.io"}'
    expect(await valueOf(metrics, counter)).toBe(7)
    pullsAvoided = 5
    expect(await valueOf(metrics, counter)).toBe(7)
  })

  test('savings in bytes and money, and the totals of configured upstreams', async () => {
    const metrics = create()
    metrics.setSavings(() => reading)
    expect(await valueOf(metrics, 'layover_savings_net_bytes{upstream="docker.io",link="aws-nat"}')).toBe(5)
    expect(await valueOf(metrics, 'layover_savings_net_bytes{upstream="quay.io",link="none"}')).toBe(0)
    expect(await valueOf(metrics, 'layover_savings_cost_money_total{cause="s3_storage",currency="USD"}')).toBe(0.5)
    expect(await valueOf(metrics, 'layover_savings_net_money{currency="USD"}')).toBe(1.25)
    expect(await valueOf(metrics, 'layover_lifetime_pulls_avoided{upstream="docker.io"}')).toBe(20)
    const { body } = await metrics.render()
    expect(body).not.toContain('layover_savings_gross_money_total{upstream="quay.io"')
  })

  test('downloads by how long they took and how many read them; evictions by reason; leases; Redis', async () => {
    const metrics = create()
    metrics.fillEnded(ended('docker.io', 'published'))
    metrics.evicted(2, 2000, 'disk')
    metrics.leaseSettled('follower')
    metrics.redisCommand('ok', 0.001)
    metrics.redisCommand('WRONGTYPE'.toLowerCase(), 0.001)
    metrics.redisCommand('surprise', 0.001)
    for (const [series, value] of [
      ['layover_fill_duration_seconds_bucket{le="1",upstream="docker.io",outcome="published"}', 0],
      ['layover_fill_duration_seconds_bucket{le="2.5",upstream="docker.io",outcome="published"}', 1],
      ['layover_fill_readers_bucket{le="5"}', 1],
      ['layover_evicted_blobs_total{reason="disk"}', 2],
      ['layover_evicted_bytes_total{reason="budget"}', 0],
      ['layover_lease_waits_total{result="follower"}', 1],
      ['layover_redis_commands_total{outcome="wrongtype"}', 1],
      ['layover_redis_commands_total{outcome="other"}', 1],
      ['layover_redis_command_duration_seconds_count', 3],
      ['layover_redis_up', undefined],
    ] as const)
      expect([series, await valueOf(metrics, series)]).toEqual([series, value])
    metrics.setRedis(() => ({ isUp: false, refusals: [] }))
    expect(await valueOf(metrics, 'layover_redis_up')).toBe(0)
  })
})

describe('cardinality', () => {
  test('T-50: names, reasons and codes from outside make no series of their own', async () => {
    const metrics = create()
    const storm = (round: number): void => {
      for (let n = 0; n < 10_000; n++) {
        const stranger = `host-${round}-${n}.example`
        metrics.request({ ...event, upstream: stranger, status: 1000 + n })
        // What only a caller that ignores the types can send.
        metrics.request({ ...event, kind: stranger as 'blob', outcome: stranger as 'hit' })
        metrics.upstreamRequest({ upstream: stranger, kind: 'blob', outcome: String(100 + (n % 500)), seconds: 1 })
        metrics.upstreamRequest({ upstream: 'docker.io', kind: 'blob', outcome: `http_${100 + (n % 500)}`, seconds: 1 })
        metrics.upstreamBytes(stranger, 'blob', 1)
        metrics.upstreamState(stranger, 'open')
        metrics.upstreamRateLimit(stranger, { limit: 1, remaining: 1 })
        metrics.fillStarted(stranger)
        metrics.fillResumed('docker.io', stranger)
        metrics.fillEnded(ended('docker.io', 'failed', stranger))
        metrics.contentRejected(rejected(stranger, 'blob', 'digest_mismatch'))
        metrics.contentRejected(rejected('docker.io', stranger as 'blob', stranger))
        metrics.storeFailed(`op${round}-${n}`, undefined)
        metrics.sharedRequest(stranger as 'get', stranger)
        metrics.revalidated(stranger, stranger as 'same')
        metrics.evicted(1, 1, stranger as 'disk')
        metrics.redisCommand(stranger, 1)
        metrics.leaseSettled(stranger as 'alone')
        metrics.request({ ...event, outcome: 'stale', staleReason: stranger })
      }
    }
    storm(1)
    const count = async (): Promise<number> =>
      parseExposition((await metrics.render()).body).samples.filter(({ name }) => name.startsWith('layover_')).length
    const after = await count()
    storm(2)
    expect(await count()).toBe(after)
    expect((await metrics.render()).body).not.toContain('.example"')
    expect(await valueOf(metrics, 'layover_upstream_state{upstream="other"}')).toBe(2)
    // Fixed by the vocabularies: 2 upstreams here, about 300 series each.
    expect(after).toBeLessThan(2500)
  })

  test('keeps reasons that are known, and classes of strange statuses', async () => {
    const metrics = create()
    metrics.fillResumed('docker.io', 'http_503')
    metrics.fillResumed('docker.io', 'http_599')
    metrics.fillResumed('docker.io', 'redirect_timeout')
    metrics.fillResumed('docker.io', 'token_http_429')
    metrics.fillResumed('docker.io', 'token_of_a_stranger')
    metrics.fillResumed('docker.io', 'secret token abc')
    for (const reason of ['http_503', 'http_5xx', 'redirect_timeout', 'token_http_429', 'token_other', 'other']) {
      const resumed = await valueOf(metrics, `layover_fills_resumed_total{upstream="docker.io",reason="${reason}"}`)
      expect([reason, resumed]).toEqual([reason, 1])
    }
  })

  test('two instances in one process do not add up', async () => {
    const [one, two] = [create(), create()]
    one.request(event)
    expect(two.snapshot().requests).toBe(0)
  })
})

describe('exposition', () => {
  test('follows the naming rules of Prometheus', async () => {
    const metrics = create()
    exerciseAll(metrics)
    const { contentType, body } = await metrics.render()
    expect(contentType).toMatch(/^text\/plain; version=0\.0\.4/)
    const { families } = parseExposition(body)
    expect(families.size).toBeGreaterThan(25)
    expect(namingFaults(families)).toEqual([])
    expect(await valueOf(metrics, `layover_build_info{version="1.2.3",node="${process.version}"}`)).toBe(1)
    expect(families.has('process_cpu_seconds_total')).toBe(true)
  })

  test('the naming rules refuse what promtool refuses', () => {
    const { families } = parseExposition(
      [
        '# TYPE layover_x counter',
        '# HELP nodejs_active_handles_total Gauge that ends in total',
        '# TYPE nodejs_active_handles_total gauge',
        '# HELP layover_wait_milliseconds Wrong unit',
        '# TYPE layover_wait_milliseconds gauge',
        '# HELP layover_camelCase Wrong case',
        '# TYPE layover_camelCase gauge',
      ].join('\n'),
    )
    expect(namingFaults(families)).toEqual([
      'layover_x: no help text',
      'layover_x: a counter ends in _total',
      'nodejs_active_handles_total: only a counter ends in _total',
      'layover_wait_milliseconds: not a base unit: milliseconds',
      'layover_camelCase: not snake_case',
    ])
  })

  test('promtool finds nothing to say about it, where promtool is installed', async () => {
    const metrics = create()
    exerciseAll(metrics)
    const { body } = await metrics.render()
    expect(
      promtoolFaults(['check', 'metrics'], { input: body }) ?? namingFaults(parseExposition(body).families),
    ).toEqual([])
  })
})
