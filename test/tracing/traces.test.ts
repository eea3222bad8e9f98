import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import type { Config, TracingConfig } from '../../src/config/config.ts'
import { accessLines, eventually, get, openStream, untilStored } from '../edge/pulling.ts'
import { FakeClock } from '../fakes/clock.ts'
import { type Collector, type ExportedSpan, startCollector } from '../fakes/collector.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { freePorts } from '../fakes/ports.ts'
import { redisConfig, RedisServer } from '../fakes/redis.ts'
import { type FakeRegistry, type FakeRegistryOptions, startFakeRegistry } from '../fakes/registry.ts'

let collector: Collector
beforeEach(async () => {
  collector = await startCollector()
})
afterEach(() => collector.stop())

type Scene = { readonly registry: FakeRegistry; readonly layover: TestLayover; readonly clock: FakeClock }

const configOf = (change: Partial<TracingConfig> = {}): TracingConfig => ({
  endpoint: collector.endpoint,
  sampleRatio: 1,
  resource: { 'service.name': 'layover' },
  propagateUpstream: false,
  ...change,
})

async function scene(
  change: Partial<TracingConfig> = {},
  { auth = 'bearer', ...options }: FakeRegistryOptions = {},
  config: Partial<Config> = {},
): Promise<Scene> {
  const registry = await startFakeRegistry({ auth, username: 'user', password: 'canary-password', ...options })
  const clock = new FakeClock()
  const credentials = { kind: 'password', username: 'user', password: 'canary-password' } as const
  const layover = await startTestLayover({
    upstreams: { 'fake.test': { url: registry.url, insecure: true, ...(auth === 'none' ? {} : { credentials }) } },
    config: { ...config, tracing: configOf(change) },
    clock,
  })
  onTestFinished(async () => {
    await layover.close()
    await registry.stop()
  })
  return { registry, layover, clock }
}

/** Stops Layover as an operator does, after which all spans have been sent. */
async function exported(layover: TestLayover): Promise<readonly ExportedSpan[]> {
  await layover.drain()
  return collector.spans
}

const server = 2
const requests = (spans: readonly ExportedSpan[]) => spans.filter(({ kind }) => kind === server)
const fills = (spans: readonly ExportedSpan[]) => spans.filter(({ name }) => name === 'fill')
const childrenOf = (spans: readonly ExportedSpan[], parent: ExportedSpan | undefined) =>
  spans.filter(({ parentSpanId }) => parentSpanId === parent?.spanId)
const namesUnder = (spans: readonly ExportedSpan[], parent: ExportedSpan | undefined) =>
  childrenOf(spans, parent)
    .map(({ name }) => name)
    .sort()

const one = <T>(found: readonly T[]): T => {
  expect(found).toHaveLength(1)
  return found[0] as T
}

describe('spans', () => {
  it('of a manifest: the request, what upstream was asked on its behalf, the token; and a hit that asks nobody', async () => {
    const { registry, layover } = await scene()
    const { digest } = registry.image('team/app', 'v1')
    await get(layover, '/v2/team/app/manifests/v1?ns=fake.test')
    await get(layover, `/v2/team/app/manifests/${digest}`)
    const spans = await exported(layover)
    const [miss, hit] = requests(spans)
    expect(miss).toMatchObject({
      name: 'GET /v2/<name>/manifests/<reference>',
      parentSpanId: undefined,
      failed: false,
      attributes: {
        'http.request.method': 'GET',
        'http.route': '/v2/<name>/manifests/<reference>',
        'http.response.status_code': 200,
        'layover.outcome': 'fill',
        'layover.upstream': 'fake.test',
        'layover.repository': 'team/app',
        'layover.reference': 'v1',
      },
    })
    expect(Number(miss?.attributes['http.response.body.size'])).toBeGreaterThan(100)
    expect(namesUnder(spans, miss)).toEqual(['GET manifest'])
    const asked = one(childrenOf(spans, miss))
    expect(asked.attributes).toMatchObject({
      'http.request.method': 'GET',
      'http.response.status_code': 200,
      'layover.redirects': 0,
      'server.address': new URL(registry.url).host,
    })
    expect(namesUnder(spans, asked)).toEqual(['token'])
    expect(hit?.attributes).toMatchObject({ 'layover.outcome': 'hit', 'layover.reference': digest })
    expect(namesUnder(spans, hit)).toEqual([])
    expect(hit?.traceId).not.toBe(miss?.traceId)
  })

  it('of a blob: the download is a trace of its own, linked to who started it and to who joined', async () => {
    const { registry, layover } = await scene({}, { blobRedirect: 'absolute' })
    const { layers } = registry.image('team/app', 'v1', { layers: 1, layerBytes: 300_000 })
    const path = `/v2/team/app/blobs/${layers[0]?.digest}`
    const gate = registry.gate({ method: 'GET', path: /cdn|blobs/, afterBytes: 100_000 })
    const first = await openStream(layover, path)
    const second = await openStream(layover, path)
    gate.release()
    await Promise.all([first.rest(), second.rest()])
    await untilStored(layover)
    await get(layover, path)
    const spans = await exported(layover)
    const [started, joined, hit] = ['fill', 'joined', 'hit'].map(outcome =>
      requests(spans).find(({ attributes }) => attributes['layover.outcome'] === outcome),
    )
    const fill = one(fills(spans))
    expect(fill.parentSpanId).toBeUndefined()
    expect(fill.attributes).toMatchObject({
      'layover.outcome': 'published',
      'layover.source': 'upstream',
      'layover.bytes': 300_000,
      'layover.reference': layers[0]?.digest,
    })
    expect(new Set(fill.links)).toEqual(new Set([started?.spanId, joined?.spanId]))
    expect(started?.links).toEqual([fill.spanId])
    expect(joined?.links).toEqual([fill.spanId])
    expect(hit?.links).toEqual([])
    expect([started, joined, hit].flatMap(request => namesUnder(spans, request))).toEqual([])
    const asked = one(childrenOf(spans, fill))
    expect(asked).toMatchObject({ name: 'GET blob', traceId: fill.traceId, attributes: { 'layover.redirects': 1 } })
  })

  it('of what is fetched ahead: a trace of its own that hangs on nobody', async () => {
    const { registry, layover } = await scene({}, { auth: 'none' }, { prefetch: 'config' })
    const { config } = registry.image('team/app', 'v1')
    await get(layover, '/v2/team/app/manifests/v1')
    await untilStored(layover)
    const spans = await exported(layover)
    const fill = one(fills(spans))
    expect(fill).toMatchObject({ links: [], parentSpanId: undefined })
    expect(fill.attributes).toMatchObject({ 'layover.background': true, 'layover.reference': config.digest })
    expect(namesUnder(spans, fill)).toEqual(['GET blob'])
  })

  it('of a tag that is asked for again, and of one that cannot be', async () => {
    const { registry, layover, clock } = await scene({}, { auth: 'none' })
    registry.image('team/app', 'v1')
    await get(layover, '/v2/team/app/manifests/v1')
    clock.advance(301_000)
    await get(layover, '/v2/team/app/manifests/v1')
    registry.fault({ path: /manifests/, times: 9 }, { kind: 'status', status: 503 })
    clock.advance(301_000)
    // The blobs must be there for the old answer to be served.
    const stale = await get(layover, '/v2/team/app/manifests/v1')
    const spans = await exported(layover)
    const [, revalidated, last] = requests(spans)
    expect(revalidated?.attributes['layover.outcome']).toBe('revalidated')
    expect(namesUnder(spans, revalidated)).toEqual(['HEAD manifest'])
    expect(last?.attributes['http.response.status_code']).toBe(stale.status)
    expect(last?.failed).toBe(stale.status >= 500)
    const attempts = childrenOf(spans, last)
    expect(attempts.every(({ failed, attributes }) => failed && attributes['error.type'] === 'http_503')).toBe(true)
    expect(attempts.map(({ attributes }) => attributes['http.request.resend_count'])).toEqual([undefined, 1, 2])
  })

  it('of an old tag that is served because upstream is away', async () => {
    const { registry, layover, clock } = await scene({}, { auth: 'none' })
    const { config, layers } = registry.image('team/app', 'v1', { layers: 1 })
    await get(layover, '/v2/team/app/manifests/v1')
    for (const { digest } of [config, ...layers]) await get(layover, `/v2/team/app/blobs/${digest}`)
    await untilStored(layover, 2)
    await registry.stop()
    clock.advance(301_000)
    await get(layover, '/v2/team/app/manifests/v1')
    const spans = await exported(layover)
    const stale = one(requests(spans).filter(({ attributes }) => attributes['layover.outcome'] === 'stale'))
    expect(stale.failed).toBe(false)
    expect(childrenOf(spans, stale).every(({ failed }) => failed)).toBe(true)
  })

  it('of several replicas: Redis, the lease, and reading from the one that downloads, in one trace', async () => {
    const redis = await RedisServer.start()
    onTestFinished(() => redis.stop())
    const registry = await startFakeRegistry()
    onTestFinished(() => registry.stop())
    const ports = await freePorts(2)
    const shared = redisConfig({ kind: 'url', url: redis.url }, { commandTimeoutMs: 5_000 })
    const { secretFile, remove } = await secretOnDisk()
    onTestFinished(remove)
    const replicas = await Promise.all(
      ports.map(port =>
        startTestLayover({
          upstreams: { 'fake.test': registry },
          config: {
            tracing: configOf({ resource: { 'service.name': `layover-${port}` } }),
            redis: shared,
            replica: { listen: { host: '127.0.0.1', port }, url: `http://127.0.0.1:${port}`, secretFile },
          },
        }),
      ),
    )
    onTestFinished(async () => void (await Promise.all(replicas.map(replica => replica.close()))))
    const [owner, follower] = replicas as [TestLayover, TestLayover]
    const { layers } = registry.image('team/app', 'v1', { layers: 1, layerBytes: 400_000 })
    const path = `/v2/team/app/blobs/${layers[0]?.digest}`
    const gate = registry.gate({ method: 'GET', path: /blobs/, afterBytes: 100_000 })
    const first = await openStream(owner, path)
    await gate.reached
    const second = await openStream(follower, path)
    gate.release()
    expect((await Promise.all([first.rest(), second.rest()])).every(({ complete }) => complete)).toBe(true)
    await Promise.all(replicas.map(replica => replica.drain()))
    const { spans } = collector
    const following = one(fills(spans).filter(({ attributes }) => attributes['layover.source'] === 'peer'))
    const owning = one(fills(spans).filter(({ attributes }) => attributes['layover.source'] === 'upstream'))
    expect(namesUnder(spans, following)).toContain('redis acquire')
    const read = one(childrenOf(spans, following).filter(({ name }) => name === 'peer read'))
    const answered = one(childrenOf(spans, read))
    expect(answered).toMatchObject({
      name: 'GET /internal/fills/<digest>',
      kind: server,
      traceId: following.traceId,
      attributes: { 'http.response.status_code': 206 },
    })
    expect(answered.links).toEqual([owning.spanId])
    expect(namesUnder(spans, owning)).toContain('GET blob')
  })
})

async function secretOnDisk() {
  const directory = await mkdtemp(join(tmpdir(), 'layover-secret-'))
  const secretFile = join(directory, 'secret')
  await writeFile(secretFile, 'a secret of more than sixteen bytes')
  return { secretFile, remove: () => rm(directory, { recursive: true }) }
}

describe('the trace of a client', () => {
  const traceId = 'a'.repeat(32)

  it('is gone on with, whatever its share, and told in the access log', async () => {
    const { registry, layover } = await scene({ sampleRatio: 0 }, { auth: 'none' })
    registry.image('team/app', 'v1')
    await get(layover, '/v2/team/app/manifests/v1', { traceparent: `00-${traceId}-${'b'.repeat(16)}-01` })
    await get(layover, '/v2/team/app/manifests/v1', { traceparent: `00-${'c'.repeat(32)}-${'b'.repeat(16)}-00` })
    await get(layover, '/v2/team/app/manifests/v1')
    const lines = await accessLines(layover, 3)
    expect(lines.map(line => line['trace_id'])).toEqual([traceId, undefined, undefined])
    const spans = await exported(layover)
    expect(new Set(spans.map(span => span.traceId))).toEqual(new Set([traceId]))
    expect(one(requests(spans)).parentSpanId).toBe('b'.repeat(16))
  })

  it('is not told to registries', async () => {
    const { registry, layover } = await scene({}, { auth: 'none' })
    registry.image('team/app', 'v1')
    await get(layover, '/v2/team/app/manifests/v1', { traceparent: `00-${traceId}-${'b'.repeat(16)}-01` })
    await exported(layover)
    expect(registry.requests.some(({ headers }) => headers['traceparent'] !== undefined)).toBe(false)
  })

  it('is told to the registry itself where that is configured, and not to where it redirects', async () => {
    const { registry, layover } = await scene({ propagateUpstream: true }, { blobRedirect: 'absolute' })
    const { layers } = registry.image('team/app', 'v1', { layers: 1 })
    await get(layover, `/v2/team/app/blobs/${layers[0]?.digest}`)
    const spans = await exported(layover)
    const fill = one(fills(spans))
    const told = registry.requests.filter(({ headers }) => headers['traceparent'] !== undefined)
    expect(told.length).toBeGreaterThan(0)
    expect(
      told.every(
        ({ origin, headers }) => origin === 'registry' && String(headers['traceparent']).includes(fill.traceId),
      ),
    ).toBe(true)
    expect(registry.requests.filter(({ origin }) => origin === 'cdn')).toHaveLength(1)
  })
})

describe('what is exported', () => {
  it('T-10: holds no credential, token, query or presigned URL', async () => {
    const { registry, layover } = await scene({}, { blobRedirect: 'absolute' })
    const { layers } = registry.image('team/app', 'v1', { layers: 1 })
    const headers = { authorization: 'Bearer canary-token', cookie: 'canary-cookie=1', 'user-agent': 'canary-agent' }
    await get(layover, '/v2/team/app/manifests/v1?ns=fake.test&key=canary-query', headers)
    await get(layover, `/v2/team/app/blobs/${layers[0]?.digest}`, headers)
    await get(layover, '/v2/team/app/tags/list?last=canary-last', headers)
    registry.fault({ path: /manifests/, times: 9 }, { kind: 'status', status: 500 })
    await get(layover, '/v2/team/app/manifests/v2', headers)
    await registry.stop()
    await get(layover, '/v2/team/app/manifests/v3', headers)
    await exported(layover)
    const raw = collector.raw()
    expect(raw).toContain('canary-agent')
    expect(raw.match(/canary-(?!agent)[a-z]+/g)).toBeNull()
    expect(raw).not.toMatch(/[Ss]ignature|Bearer|X-Amz|\?/)
  })

  it('says which service it is, with the headers that the collector wants', async () => {
    vi.stubEnv('OTEL_EXPORTER_OTLP_HEADERS', 'x-collector-token=canary-collector')
    onTestFinished(() => void vi.unstubAllEnvs())
    const { layover } = await scene({ resource: { 'service.name': 'cache-a', 'deployment.environment': 'test' } })
    await get(layover, '/v2/')
    await exported(layover)
    expect(collector.resource).toMatchObject({ 'service.name': 'cache-a', 'deployment.environment': 'test' })
    expect(collector.headers[0]).toMatchObject({
      'content-type': 'application/json',
      'x-collector-token': 'canary-collector',
    })
    expect(`${collector.raw()}${layover.logged()}`).not.toContain('canary-collector')
  })
})

describe('a collector that is away', () => {
  it('harms no pull, and is told once', async () => {
    const [port = 0] = await freePorts(1)
    const { registry, layover } = await scene({ endpoint: `http://127.0.0.1:${port}/v1/traces` }, { auth: 'none' })
    const { layers } = registry.image('team/app', 'v1', { layers: 1 })
    for (let pulls = 0; pulls < 3; pulls++) {
      expect((await get(layover, '/v2/team/app/manifests/v1')).status).toBe(200)
      expect((await get(layover, `/v2/team/app/blobs/${layers[0]?.digest}`)).status).toBe(200)
    }
    await layover.drain()
    await eventually(() => (toldOf(layover).length > 0 ? true : undefined), 20_000)
    expect(toldOf(layover)).toHaveLength(1)
  })
})

const toldOf = (layover: TestLayover) =>
  layover.lines().filter(({ msg }) => msg === 'traces could not be exported; pulls are not concerned')
