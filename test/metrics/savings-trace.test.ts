import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Config, PricingConfig } from '../../src/config/config.ts'
import { bucketPresets, linkPresets } from '../../src/config/price-presets.ts'
import type { SavingsStats } from '../../src/metrics/savings.ts'
import { FakeClock } from '../fakes/clock.ts'
import { type FakeImage, ociManifestType, pseudoRandomBytes } from '../fakes/image.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { rawRequest, type RawResponse } from '../fakes/raw-client.ts'
import { freePorts } from '../fakes/ports.ts'
import { redisConfig, RedisServer } from '../fakes/redis.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { accessKeyId, FakeS3, secretAccessKey } from '../fakes/s3.ts'
import { parseExposition } from './exposition.ts'

const gibibyte = 1024 ** 3
const price = (name: string) => linkPresets.get(name) ?? { name, freeBytes: 0, tiers: [] }
const pricing: PricingConfig = {
  currency: 'USD',
  links: { 'fake.test': price('aws-nat') },
  crossZone: price('aws-cross-zone'),
  bucket: bucketPresets.get('aws-s3'),
}

/** What a client counted for itself. */
type Tally = { requests: number; content: number; bytes: number; pulls: number }

type Scene = {
  readonly registry: FakeRegistry
  readonly image: FakeImage
  readonly clock: FakeClock
  readonly replicas: readonly TestLayover[]
  readonly tally: Tally
}

async function scene(config: Partial<Config>, replicas: readonly Partial<Config>[]): Promise<Scene> {
  const registry = await startFakeRegistry({ auth: 'bearer', blobRedirect: 'absolute' })
  onTestFinished(() => registry.stop())
  const image = registry.image('library/app', 'latest', { layers: 4, layerBytes: 300_000 })
  const clock = new FakeClock()
  const running: TestLayover[] = []
  for (const own of replicas) {
    const layover = await startTestLayover({
      upstreams: { 'fake.test': registry },
      config: { prefetch: 'config', pricing, ...config, ...own },
      clock,
    })
    onTestFinished(() => layover.close())
    running.push(layover)
  }
  return { registry, image, clock, replicas: running, tally: { requests: 0, content: 0, bytes: 0, pulls: 0 } }
}

/** Asks as a client does and writes down what it got. */
async function ask(
  { replicas, tally }: Scene,
  target: string,
  {
    replica = 0,
    method = 'GET',
    headers = {},
  }: { replica?: number; method?: string; headers?: Record<string, string> } = {},
): Promise<RawResponse> {
  const port = replicas[replica]?.port ?? 0
  const answer = await rawRequest(port, target, { method, headers, timeoutMs: 20_000 })
  tally.requests += 1
  if (answer.status >= 400) return answer
  tally.content += 1
  tally.bytes += bodyBytes(answer)
  if (method === 'GET' && target.includes('/manifests/')) tally.pulls += 1
  return answer
}

/** Of a body in chunks, without their framing. */
function bodyBytes({ headers, body }: RawResponse): number {
  if (headers['transfer-encoding'] !== undefined) throw new Error('answers have a length')
  return body.length
}

const blob = (image: FakeImage, index: number): string => `/v2/library/app/blobs/${image.layers[index]?.digest}`
const manifest = '/v2/library/app/manifests/latest'

/**
 * Hits, misses, a prefetch that nobody asked for, a resumed download, one that was sent again from the start, wrong bytes, ranges, HEAD, 304, 404,
 * lists, tokens that end, tags that are confirmed and that move, redirects of the upstream.
 */
async function replay(scene: Scene, other: number): Promise<void> {
  const { registry, image, clock } = scene
  await ask(scene, manifest)
  await ask(scene, manifest, { method: 'HEAD' })
  await ask(scene, `/v2/library/app/manifests/${image.digest}`, { replica: other })
  await ask(scene, manifest, { headers: { 'if-none-match': `"${image.digest}"` } })
  await ask(scene, blob(image, 0))
  await settled(scene)
  await ask(scene, blob(image, 0), { replica: other })
  await ask(scene, blob(image, 0), { headers: { range: 'bytes=10-4999' } })
  await ask(scene, blob(image, 0), { headers: { range: 'bytes=0-9,100-199' } })
  await ask(scene, blob(image, 0), { method: 'HEAD' })
  registry.fault({ origin: 'cdn' }, { kind: 'cut', at: 120_000, how: 'fin' })
  await ask(scene, blob(image, 1))
  registry.fault({ origin: 'cdn' }, { kind: 'cut', at: 100_000, how: 'fin' })
  registry.fault({ origin: 'cdn' }, { kind: 'ignoreRange' })
  await ask(scene, blob(image, 2), { replica: other })
  await Promise.all([
    ask(scene, blob(image, 3)),
    ask(scene, blob(image, 3)),
    ask(scene, blob(image, 3), { replica: other }),
  ])
  const wrong = registry.addBlobTo('library/app', pseudoRandomBytes(50_000, 'wrong'))
  registry.fault({ origin: 'cdn' }, { kind: 'flip', at: 7 })
  expect((await ask(scene, `/v2/library/app/blobs/${wrong}`)).body.length).toBeLessThan(50_000)
  await ask(scene, '/v2/library/app/manifests/nowhere')
  await ask(scene, '/v2/library/app/tags/list')
  await ask(scene, '/v2/library/app/tags/list', { replica: other })
  await ask(scene, `/v2/library/app/referrers/${image.digest}`)
  // Tokens end, the tag is confirmed, and later it is another.
  registry.revokeTokens()
  clock.advance(400_000)
  await ask(scene, manifest)
  const next = { schemaVersion: 2, mediaType: ociManifestType, config: descriptorOf(image), layers: [] }
  registry.addManifest('library/app', 'latest', next, ociManifestType)
  clock.advance(400_000)
  await ask(scene, manifest, { replica: other })
}

function descriptorOf({ config }: FakeImage) {
  return { mediaType: 'application/vnd.oci.image.config.v1+json', digest: config.digest, size: config.size }
}

/** Nothing is counted any more: every answer is reported, every download and upload is done. */
async function settled({ replicas, tally }: Scene): Promise<void> {
  const sum = async (name: RegExp): Promise<number> =>
    sumOf(await Promise.all(replicas.map(each => each.metrics())), name)
  await expect.poll(() => sum(/^layover_requests_total$/), { timeout: 20_000 }).toBe(tally.requests)
  await expect.poll(() => sum(/^layover_fills_running$|^layover_shared_pending_uploads$/), { timeout: 20_000 }).toBe(0)
}

function sumOf(expositions: readonly string[], name: RegExp, labels: Readonly<Record<string, string>> = {}): number {
  return expositions
    .flatMap(text => parseExposition(text).samples)
    .filter(sample => name.test(sample.name))
    .filter(sample => Object.entries(labels).every(([label, value]) => sample.labels[label] === value))
    .reduce((sum, { value }) => sum + value, 0)
}

async function savings(layover: TestLayover, query = ''): Promise<SavingsStats> {
  return (await (await fetch(`${layover.adminUrl}/savings${query}`)).json()) as SavingsStats
}

/** What the upstream's own log says: bodies that it gave to the network, and manifests that it gave by GET. */
function logOf({ registry }: Scene) {
  const pulls = registry.requests.filter(
    ({ method, path, status }) => method === 'GET' && path.includes('/manifests/') && status === 200,
  )
  return { bytes: registry.bytes(), pulls: pulls.length, tokens: registry.bytes({ path: /^\/token$/ }) }
}

async function checkAgainstLog(scene: Scene): Promise<SavingsStats> {
  const { replicas, tally } = scene
  await settled(scene)
  const log = logOf(scene)
  const pages = await Promise.all(replicas.map(each => each.metrics()))
  const of = (name: string, labels?: Readonly<Record<string, string>>): number =>
    sumOf(pages, new RegExp(`^${name}$`), { upstream: 'fake.test', ...labels })
  expect(log.tokens).toBeGreaterThan(0)
  expect({
    served: of('layover_served_bytes_total'),
    fetched: of('layover_upstream_bytes_total'),
    tokens: of('layover_upstream_bytes_total', { kind: 'token' }),
    gross: of('layover_savings_gross_bytes_total', { link: 'aws-nat' }),
    cost: of('layover_savings_cost_bytes_total', { link: 'aws-nat' }),
    net: of('layover_savings_net_bytes', { link: 'aws-nat' }),
  }).toEqual({
    served: tally.bytes,
    fetched: log.bytes,
    tokens: log.tokens,
    gross: tally.bytes,
    cost: log.bytes,
    net: tally.bytes - log.bytes,
  })
  const money = (name: string, labels: Readonly<Record<string, string>>): number =>
    sumOf(pages, new RegExp(`^${name}$`), labels)
  expect(money('layover_savings_gross_money_total', { currency: 'USD' })).toBeCloseTo(
    (tally.bytes / gibibyte) * 0.045,
    12,
  )
  expect(money('layover_savings_cost_money_total', { cause: 'upstream' })).toBeCloseTo(
    (log.bytes / gibibyte) * 0.045,
    12,
  )

  // What others write is read every other second.
  const [first] = replicas
  if (!first) throw new Error('no replica')
  const whole = { servedBytes: tally.bytes, upstreamBytes: log.bytes, savedBytes: tally.bytes - log.bytes }
  await expect
    .poll(() => savings(first), { timeout: 20_000 })
    .toMatchObject({
      ...whole,
      pullsAvoided: tally.pulls - log.pulls,
      currency: 'USD',
    })
  const report = await savings(first)
  const [row] = report.upstreams
  expect(row).toMatchObject({ upstream: 'fake.test', link: 'aws-nat', ...whole, requests: tally.content })
  expect(row?.gross).toBeCloseTo(((tally.bytes - log.bytes) / gibibyte) * 0.045, 12)
  expect(row?.pullsAvoided).toBe(tally.pulls - log.pulls)
  return report
}

test('every figure of the replayed trace is that of the log of the upstream, to the byte', async () => {
  const one = await scene({}, [{}])
  await replay(one, 0)
  const report = await checkAgainstLog(one)
  expect(report.money?.cost).toBe(0)
  const [layover] = one.replicas
  const page = (await layover?.metrics()) ?? ''
  const from = (kind: string, source: string): number =>
    sumOf([page], /^layover_served_bytes_total$/, { upstream: 'fake.test', kind, source })
  const layer = one.image.layers[0]?.size ?? 0
  // Twice in part, once whole, of what was stored. Ranges in parts have their framing.
  expect(from('blob', 'disk')).toBeGreaterThanOrEqual(layer + 4_990 + 110)
  expect(from('blob', 'fill')).toBeGreaterThanOrEqual(4 * layer)
  expect(from('manifest_digest', 'memory')).toBe(one.image.manifestBytes.length)
  expect(sumOf([page], /^layover_revalidations_total$/, { result: 'same' })).toBe(1)
  expect(sumOf([page], /^layover_revalidations_total$/, { result: 'changed' })).toBe(1)
  expect(sumOf([page], /^layover_tag_age_seconds_count$/)).toBeGreaterThanOrEqual(4)
  expect(sumOf([page], /^layover_token_exchanges_total$/)).toBe(one.registry.tokenExchanges.length)

  // Again after a restart: the counters begin anew, the totals do not.
  const again = await layover?.restart()
  if (!again) throw new Error('no replica')
  onTestFinished(() => again.close())
  const { servedBytes, upstreamBytes, pullsAvoided, since } = report
  expect(await savings(again)).toMatchObject({ servedBytes, upstreamBytes, pullsAvoided, since })
  const restarted = [await again.metrics()]
  expect(sumOf(restarted, /^layover_savings_gross_bytes_total$/)).toBe(0)
  expect(sumOf(restarted, /^layover_lifetime_served_bytes$/)).toBe(servedBytes)
  expect(sumOf(restarted, /^layover_lifetime_upstream_bytes$/)).toBe(upstreamBytes)
  expect(sumOf(restarted, /^layover_lifetime_pulls_avoided$/)).toBe(pullsAvoided)
  await rawRequest(again.port, `/v2/library/app/manifests/${one.image.digest}`)
  await expect
    .poll(async () => (await savings(again)).servedBytes, { timeout: 20_000 })
    .toBe(servedBytes + one.image.manifestBytes.length)
  // Manifests from the index come from the disk once.
  expect(
    sumOf([await again.metrics()], /^layover_served_bytes_total$/, { kind: 'manifest_digest', source: 'disk' }),
  ).toBe(one.image.manifestBytes.length)
})

describe('with Redis, a bucket and two replicas', () => {
  test('every figure of both together is that of the log of the upstream, and of the bucket', async () => {
    process.env['AWS_ACCESS_KEY_ID'] = accessKeyId
    process.env['AWS_SECRET_ACCESS_KEY'] = secretAccessKey
    const [redis, s3] = await Promise.all([RedisServer.start(), FakeS3.start()])
    onTestFinished(() => Promise.all([redis.stop(), s3.stop()]).then(() => undefined))
    const directory = await mkdtemp(join(tmpdir(), 'layover-secret-'))
    onTestFinished(() => rm(directory, { recursive: true }))
    const secretFile = join(directory, 'secret')
    await writeFile(secretFile, randomBytes(32).toString('hex'))
    const ports = await freePorts(2)
    const config = { redis: redisConfig({ kind: 'url', url: redis.url }, { commandTimeoutMs: 5_000 }), s3: s3.config() }
    const two = await scene(
      config,
      ports.map(port => ({
        replica: { listen: { host: '127.0.0.1', port }, url: `http://127.0.0.1:${port}`, secretFile },
      })),
    )
    await replay(two, 1)
    await readFromPeer(two)
    const report = await checkAgainstLog(two)
    await s3.idle()
    const reads = s3.seen.filter(({ method, query }) => method === 'HEAD' || (method === 'GET' && !isList(query)))
    const writes = s3.seen.filter(({ method, query }) => method === 'PUT' || method === 'POST' || isList(query))
    const pages = await Promise.all(two.replicas.map(each => each.metrics()))
    const cost = (cause: string): number => sumOf(pages, /^layover_savings_cost_money_total$/, { cause })
    expect(cost('s3_requests')).toBeCloseTo((reads.length * 0.0004 + writes.length * 0.005) / 1000, 12)
    const from = (kind: string, source: string): number =>
      sumOf(pages.slice(1), /^layover_served_bytes_total$/, { kind, source })
    // The other replica had the first layer from the bucket, the manifest from Redis, and a blob while the first was still at it.
    expect(from('blob', 's3')).toBeGreaterThanOrEqual(two.image.layers[0]?.size ?? 0)
    expect(from('blob', 'peer')).toBeGreaterThanOrEqual(peerBlobBytes)
    expect(from('manifest_digest', 'memory')).toBe(two.image.manifestBytes.length)
    expect(sumOf(pages, /^layover_lease_waits_total$/, { result: 'follower' })).toBeGreaterThan(0)
    const peers = sumOf(pages, /^layover_peer_bytes_total$/, { direction: 'read' })
    expect(sumOf(pages, /^layover_peer_bytes_total$/, { direction: 'sent' })).toBeGreaterThanOrEqual(peers)
    expect(peers).toBeGreaterThanOrEqual(peerBlobBytes)
    expect(cost('cross_zone')).toBeCloseTo((peers / gibibyte) * 0.02, 12)
    expect(report.money?.cost).toBeGreaterThan(cost('s3_requests'))
    expect(sumOf(pages, /^layover_redis_up$/)).toBe(2)
    expect(sumOf(pages, /^layover_redis_commands_total$/, { outcome: 'ok' })).toBeGreaterThan(0)
  })
})

const peerBlobBytes = 400_000

/** The other replica asks for what the first one is in the middle of. */
async function readFromPeer(two: Scene): Promise<void> {
  const { registry } = two
  const path = `/v2/library/app/blobs/${registry.addBlobTo('library/app', pseudoRandomBytes(peerBlobBytes, 'peer'))}`
  const gate = registry.gate({ origin: 'cdn', afterBytes: 100_000 })
  const before = registry.count({ origin: 'cdn' })
  const first = ask(two, path)
  await expect.poll(() => registry.count({ origin: 'cdn' }), { timeout: 20_000 }).toBe(before + 1)
  const read = async (): Promise<number> =>
    (await two.replicas[1]?.metric('layover_peer_bytes_total{direction="read"}')) ?? 0
  const had = await read()
  const second = ask(two, path, { replica: 1 })
  await expect.poll(read, { timeout: 20_000 }).toBeGreaterThan(had)
  gate.release()
  expect((await Promise.all([first, second])).map(({ body }) => body.length)).toEqual([peerBlobBytes, peerBlobBytes])
}

const isList = (query: URLSearchParams): boolean =>
  query.has('list-type') || query.has('uploads') || query.has('prefix')
