import { describe, expect, onTestFinished, test } from 'vitest'
import type { RedirectConfig } from '../../src/config/config.ts'
import { parseNetwork } from '../../src/config/network.ts'
import { hexOf } from '../../src/oci/digest.ts'
import { FakeClock } from '../fakes/clock.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { rawRequest } from '../fakes/raw-client.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { accessKeyId, FakeS3, secretAccessKey } from '../fakes/s3.ts'
import { accessLines, get, head } from './pulling.ts'

const layerBytes = 200_000

const from = (...networks: readonly string[]): RedirectConfig => ({
  networks: networks.flatMap(network => parseNetwork(network) ?? []),
  minBytes: 100_000,
  ttlMs: 900_000,
  endpoint: undefined,
})

type Options = { readonly redirect?: RedirectConfig; readonly mayRead?: boolean }

/** Layover before a bucket, with an image that was pulled and uploaded. */
async function pulled({ redirect = from('127.0.0.0/8') }: Options = {}) {
  process.env.AWS_ACCESS_KEY_ID = accessKeyId
  process.env.AWS_SECRET_ACCESS_KEY = secretAccessKey
  const s3 = await FakeS3.start()
  onTestFinished(() => s3.stop())
  const registry: FakeRegistry = await startFakeRegistry()
  onTestFinished(() => registry.stop())
  const image = registry.image('library/app', 'latest', { layers: 2, layerBytes })
  const layover: TestLayover = await startTestLayover({
    upstreams: { 'fake.test': registry },
    config: { s3: s3.config({ redirect }) },
    // What was seen a moment ago stays so, however long the machine takes.
    clock: new FakeClock(),
  })
  onTestFinished(() => layover.close())
  expect((await get(layover, '/v2/library/app/manifests/latest')).status).toBe(200)
  for (const { digest } of [image.config, ...image.layers])
    expect((await get(layover, pathOf(digest))).status).toBe(200)
  await expect.poll(() => keys(s3).length, { timeout: 20_000 }).toBe(1 + image.layers.length)
  await expect.poll(() => layover.metric('layover_shared_pending_uploads'), { timeout: 20_000 }).toBe(0)
  const [layer] = image.layers
  if (!layer) throw new Error('no layer')
  return { layover, registry, s3, image, layer }
}

const pathOf = (digest: string, repository = 'library/app'): string => `/v2/${repository}/blobs/${digest}`
const keys = (s3: FakeS3): string[] => [...s3.objects.keys()].filter(key => key.startsWith('blobs/'))
const readsOf = (s3: FakeS3, digest: string) =>
  s3.seen.filter(({ method, key }) => method === 'GET' && key.endsWith(digest.slice(7)))

describe('a client of a network that is sent to the bucket', () => {
  test('P-63: is answered with 307 and reads what it asked for there, with nothing of ours', async () => {
    const { layover, s3, layer } = await pulled()
    const before = s3.seen.length
    const answer = await get(layover, `${pathOf(layer.digest)}?ns=fake.test`)
    expect(answer.status).toBe(307)
    expect(answer.body.length).toBe(0)
    expect(answer.headers).toMatchObject({
      'content-length': '0',
      'cache-control': 'no-store',
      'docker-content-digest': layer.digest,
      'cache-status': `Layover; hit; key="${layer.digest}"; detail="redirected"`,
    })
    const location = new URL(answer.headers['location'] ?? '')
    expect(location.origin).toBe(s3.endpoint)
    expect(location.searchParams.has('ns')).toBe(false)
    expect(location.searchParams.get('X-Amz-Expires')).toBe('900')
    const read = await fetch(location)
    expect(read.status).toBe(200)
    expect(Buffer.from(await read.arrayBuffer()).equals(layer.bytes)).toBe(true)
    // What was uploaded a moment ago is known to be there.
    expect(s3.seen.slice(before).map(({ method, signed }) => `${method} ${signed}`)).toEqual(['GET url'])
  })

  test('P-63: repeats its range there, and what it asked for is counted', async () => {
    const { layover, layer } = await pulled()
    const range = 'bytes=1000-1999'
    const answer = await get(layover, pathOf(layer.digest), { range })
    expect(answer.status).toBe(307)
    const read = await fetch(answer.headers['location'] ?? '', { headers: { range } })
    expect(read.status).toBe(206)
    expect(Buffer.from(await read.arrayBuffer()).equals(layer.bytes.subarray(1000, 2000))).toBe(true)
    await get(layover, pathOf(layer.digest))
    const lines = (await accessLines(layover, 6)).filter(({ outcome }) => outcome === 'redirected')
    expect(lines.map(({ status, bytes, redirectedBytes }) => [status, bytes, redirectedBytes])).toEqual([
      [307, 0, 1000],
      [307, 0, layerBytes],
    ])
    const series = 'layover_served_bytes_total{upstream="fake.test",kind="blob",source="redirect"}'
    expect(await layover.metric(series)).toBe(1000 + layerBytes)
  })

  test('P-63: what the bucket would answer otherwise, or is not worth the way, is answered here', async () => {
    const { layover, image, layer } = await pulled()
    const whole = { 'if-range': `"${layer.digest}"`, range: 'bytes=0-9' }
    expect((await get(layover, pathOf(layer.digest), whole)).status).toBe(206)
    expect((await get(layover, pathOf(layer.digest), { range: 'bytes=0-1,5-6' })).status).toBe(206)
    expect((await get(layover, pathOf(layer.digest), { range: `bytes=${layerBytes}-` })).status).toBe(416)
    expect((await get(layover, pathOf(layer.digest), { 'if-none-match': `"${layer.digest}"` })).status).toBe(304)
    const small = await get(layover, pathOf(image.config.digest))
    expect([small.status, small.body.equals(image.config.bytes)]).toEqual([200, true])
  })

  test('P-50, P-63: HEAD and manifests are never redirected', async () => {
    const { layover, layer } = await pulled({ redirect: { ...from('127.0.0.0/8'), minBytes: 0 } })
    const answer = await head(layover, pathOf(layer.digest))
    expect([answer.status, answer.headers['content-length']]).toEqual([200, String(layerBytes)])
    for (const method of ['GET', 'HEAD'])
      expect((await rawRequest(layover.port, '/v2/library/app/manifests/latest', { method })).status).toBe(200)
  })

  test('T-10: the URL is in no log, no metric and not in /status', async () => {
    const { layover, layer } = await pulled()
    const location = new URL((await get(layover, pathOf(layer.digest))).headers['location'] ?? '')
    const signature = location.searchParams.get('X-Amz-Signature') ?? ''
    expect(signature).toMatch(/^[0-9a-f]{64}$/)
    const status = await (await fetch(`${layover.adminUrl}/status`)).text()
    const all = [layover.logged(), await layover.metrics(), status].join()
    for (const secret of [signature, 'X-Amz', accessKeyId, secretAccessKey]) expect(all).not.toContain(secret)
  })

  test('T-11: another repository learns nothing: upstream is asked, and its answer counts', async () => {
    const { layover, registry, layer } = await pulled()
    registry.image('library/other', 'latest', { seed: 9 })
    const answer = await get(layover, pathOf(layer.digest, 'library/other'))
    expect([answer.status, answer.headers['location']]).toEqual([404, undefined])
  })

  test('F-51, F-55: an object that is lost, and a bucket that does not answer, are no detour', async () => {
    const { layover, s3, layer, image } = await pulled()
    const fresh = await layover.restart()
    onTestFinished(() => fresh.close())
    s3.objects.delete(`blobs/sha256/${hexOf(layer.digest).slice(0, 2)}/${hexOf(layer.digest)}`)
    const lost = await get(fresh, pathOf(layer.digest))
    expect([lost.status, lost.body.equals(layer.bytes)]).toEqual([200, true])
    const [, other] = image.layers
    s3.break('HEAD', { kind: 'hang' })
    const served = await get(fresh, pathOf(other?.digest ?? ''))
    expect([served.status, served.body.equals(other?.bytes ?? Buffer.alloc(0))]).toEqual([200, true])
  })
})

describe('nobody else', () => {
  test.each([
    ['another network', from('10.0.0.0/8', 'fd00::/8'), {}],
    [
      'an address that only a header claims',
      from('10.0.0.0/8'),
      { 'x-forwarded-for': '10.0.0.1', forwarded: 'for=10.0.0.1' },
    ],
  ])('P-63: %s is served here', async (_, redirect, headers) => {
    const { layover, s3, layer } = await pulled({ redirect })
    const reads = readsOf(s3, layer.digest).length
    const answer = await get(layover, pathOf(layer.digest), headers)
    expect([answer.status, answer.body.equals(layer.bytes)]).toEqual([200, true])
    expect(readsOf(s3, layer.digest).length).toBe(reads)
  })
})
