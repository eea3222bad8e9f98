import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { createManifests } from '../../src/cache/manifests.ts'
import { createReferrers } from '../../src/cache/referrers.ts'
import { createRights } from '../../src/cache/rights.ts'
import { createTagLists } from '../../src/cache/tag-lists.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { openEmbeddedStores } from '../../src/store/embedded.ts'
import { createUpstream } from '../../src/upstream/registry-client.ts'
import { FakeClock } from '../fakes/clock.ts'
import { ociIndexType, ociManifestType } from '../fakes/image.ts'
import { type FakeRegistry, type FakeRegistryOptions, startFakeRegistry } from '../fakes/registry.ts'
import { reference, targetOf } from '../fakes/targets.ts'
import { maxStaleMs, ttlMs } from './manifests-room.ts'

const name = 'registry.test'
const alpine = targetOf('library/alpine', name)

/** The real client over loopback, and the real store in a directory of its own. */
async function wire(options: FakeRegistryOptions = {}, { mirror }: { mirror?: FakeRegistry } = {}) {
  const registry = await startFakeRegistry(options)
  const dataDir = await mkdtemp(join(tmpdir(), 'layover-manifests-'))
  const clock = new FakeClock()
  const stores = await openEmbeddedStores({ dataDir, maxBytes: 2 ** 26, clock, observer: silentObserver })
  const upstream = createUpstream({
    config: {
      name,
      aliases: [],
      url: registry.url,
      mirrors: mirror ? [mirror.url] : [],
      default: true,
      credentials: undefined,
      ca: undefined,
      insecure: true,
      proxy: undefined,
      realmHosts: [],
      redirectHosts: [],
      maxConnections: 8,
      connectTimeoutMs: 2000,
      headersTimeoutMs: 2000,
      idleTimeoutMs: 2000,
      tagTtlMs: ttlMs,
      maxStaleMs,
      whenGone: 'deny',
    },
    offline: false,
    clock,
    observer: silentObserver,
  })
  onTestFinished(async () => {
    await upstream.close()
    await stores.close()
    await registry.stop()
    await rm(dataDir, { recursive: true, force: true })
  })
  const common = {
    upstreams: new Map([[name, upstream]]),
    settings: () => ({ tagTtlMs: ttlMs, maxStaleMs, whenGone: 'deny' as const }),
    metadata: stores.metadata,
    blobs: stores.blobs,
    clock,
    observer: silentObserver,
    offline: false,
  }
  const rights = createRights(common)
  const manifests = createManifests({ ...common, rights })
  return {
    registry,
    clock,
    stores,
    rights,
    pull: async (text: string, target = alpine) => manifests.get(target, reference(text)),
    tagLists: createTagLists(common),
    referrers: createReferrers(common),
  }
}

it('P-29, P-47: a tag costs one GET, later one HEAD, and after a move HEAD and GET', async () => {
  const { registry, clock, pull } = await wire()
  const first = registry.image('library/alpine', 'latest', { seed: 1 })
  const served = await pull('latest')
  expect(Buffer.from(served.bytes)).toEqual(first.manifestBytes)
  expect(served).toMatchObject({ digest: first.digest, mediaType: ociManifestType, outcome: 'fill' })
  clock.advance(ttlMs)
  expect(await pull('latest')).toMatchObject({ outcome: 'revalidated' })
  const second = registry.image('library/alpine', 'latest', { seed: 2 })
  clock.advance(ttlMs)
  expect(await pull('latest')).toMatchObject({ digest: second.digest, outcome: 'fill' })
  expect(registry.requests.map(({ method, path }) => `${method} ${path.split('/').at(-1)}`)).toEqual([
    'GET latest',
    'HEAD latest',
    'HEAD latest',
    `GET ${second.digest}`,
  ])
})

it('P-40: a registry that sends no digest is asked by GET', async () => {
  const { registry, clock, pull } = await wire()
  registry.settings.digestHeader = false
  const { digest } = registry.image('library/alpine', 'latest', { seed: 1 })
  expect(await pull('latest')).toMatchObject({ digest })
  clock.advance(ttlMs)
  expect(await pull('latest')).toMatchObject({ digest, outcome: 'revalidated' })
})

it.each([401, 403, 405, 501])('F-32: a registry that answers HEAD with %i is asked by GET', async status => {
  const { registry, clock, pull } = await wire()
  registry.settings.headStatus = status
  registry.image('library/alpine', 'latest', { seed: 1 })
  await pull('latest')
  clock.advance(ttlMs)
  const { digest } = registry.image('library/alpine', 'latest', { seed: 2 })
  expect(await pull('latest')).toMatchObject({ digest, outcome: 'fill' })
})

it.each([0, 100, -1])('T-20: a manifest with a flipped byte (at %i) is 502 and not kept', async at => {
  const { registry, pull, stores } = await wire()
  const { digest, manifestBytes } = registry.image('library/alpine', 'latest', { seed: 1 })
  const flip = { kind: 'flip', at: at < 0 ? manifestBytes.length + at : at } as const
  for (const text of ['latest', digest]) {
    registry.fault({ path: /manifests/ }, flip)
    await expect(pull(text)).rejects.toMatchObject({ status: 502 })
    expect(stores.usage().manifests).toBe(0)
    expect(await stores.metadata.knownTags(name, 'library/alpine')).toEqual([])
  }
  expect(await pull('latest')).toMatchObject({ digest, outcome: 'fill' })
})

it('T-20, T-21: content by digest comes from a mirror when upstream breaks it; a tag never does', async () => {
  const mirror = await startFakeRegistry()
  onTestFinished(() => mirror.stop())
  const { registry, pull } = await wire({}, { mirror })
  const { digest, manifestBytes } = registry.image('library/alpine', 'latest', { seed: 1 })
  mirror.image('library/alpine', 'latest', { seed: 1 })
  registry.corrupt(digest, Buffer.concat([manifestBytes, Buffer.from(' ')]))
  expect(await pull(digest)).toMatchObject({ digest, outcome: 'fill' })
  const asked = mirror.count()
  await expect(pull('latest')).rejects.toMatchObject({ status: 502 })
  expect(mirror.count()).toBe(asked)
})

it.each(['html', 'empty'] as const)(
  'P-115, F-31: 200 with %s instead of a manifest is 502 and not kept',
  async kind => {
    const { registry, pull } = await wire()
    const { digest } = registry.image('library/alpine', 'latest', { seed: 1 })
    registry.fault({ path: /manifests/ }, { kind })
    await expect(pull('latest')).rejects.toMatchObject({ status: 502 })
    expect(await pull('latest')).toMatchObject({ digest })
  },
)

it('F-27: serves what it has when upstream is gone, also after the breaker opened, once its blobs are here', async () => {
  const { registry, clock, pull, stores } = await wire()
  const image = registry.image('library/alpine', 'latest', { seed: 1, layers: 0 })
  const index = registry.addManifest(
    'library/alpine',
    'multi',
    {
      schemaVersion: 2,
      mediaType: ociIndexType,
      manifests: [{ mediaType: ociManifestType, digest: image.digest, size: image.manifestBytes.length }],
    },
    ociIndexType,
  )
  await pull('latest')
  await pull('multi')
  await registry.stop()
  for (let round = 0; round < 4; round++) {
    clock.advance(ttlMs)
    expect(await pull('multi')).toMatchObject({ digest: index, outcome: 'stale' })
    await expect(pull('latest')).rejects.toMatchObject({ status: 503, code: 'UNAVAILABLE' })
  }
  const file = await stores.spool.create(image.config.size)
  if (!file) throw new Error('there is room')
  await file.write([image.config.bytes], 0)
  await stores.blobs.publish(image.config.digest, image.config.size, file)
  const stale = await pull('latest')
  expect(stale).toMatchObject({ digest: image.digest, outcome: 'stale' })
  expect(stale.warnings[0]).toMatch(/^299 - "stale: registry\.test cannot be asked \(\w+\), last checked \d+ s ago"$/)
})

it('P-97, T-11: of a repository that upstream keeps closed nothing is told but 403, without a challenge', async () => {
  const { registry, pull, rights } = await wire({ auth: 'bearer', private: ['company/secret'] })
  const shared = registry.image('library/alpine', 'latest', { seed: 1 })
  registry.image('company/secret', 'latest', { seed: 1 })
  await pull('latest')
  const secret = targetOf('company/secret', name)
  for (const text of ['latest', shared.digest])
    await expect(pull(text, secret)).rejects.toMatchObject({ status: 403, code: 'DENIED', headers: {} })
  expect(await rights.mayReadBlob(secret, shared.config.digest)).toBe('ask')
  await expect(rights.confirm(secret, shared.config.digest)).rejects.toMatchObject({ status: 403 })
})

it.each([401, 405])('T-11: a HEAD that is answered with %i opens nothing for another repository', async status => {
  const { registry, pull } = await wire()
  const { digest } = registry.image('library/alpine', 'latest', { seed: 1 })
  registry.image('other/repo', 'latest', { seed: 2 })
  await pull('latest')
  registry.settings.headStatus = status
  await expect(pull(digest, targetOf('other/repo', name))).rejects.toMatchObject({ status: 404 })
})

it('P-99, P-102: 429 is told as 503 with Retry-After', async () => {
  const { registry, pull } = await wire()
  registry.image('library/alpine', 'latest', { seed: 1 })
  registry.fault({ times: 100 }, { kind: 'status', status: 429, headers: { 'retry-after': '17' } })
  await expect(pull('latest')).rejects.toMatchObject({ status: 503, headers: { 'retry-after': '17' } })
})

it('P-74, P-76: pages of tags follow upstream’s links', async () => {
  const { registry, tagLists } = await wire()
  for (const tag of ['c', 'a', 'b']) registry.image('library/alpine', tag, { seed: 1 })
  const extra = new URLSearchParams()
  const first = await tagLists.list(alpine, { n: '2', last: undefined, extra })
  expect(first.body.toString()).toBe('{"name":"library/alpine","tags":["a","b"]}')
  const next = first.nextQuery ?? extra
  const second = await tagLists.list(alpine, { n: next.get('n') ?? '', last: next.get('last') ?? '', extra: next })
  expect(JSON.parse(second.body.toString())).toMatchObject({ tags: ['c'] })
  expect(second.nextQuery).toBeUndefined()
})

it.each([true, false])('P-80, P-81: referrers are found with the API: %s', async api => {
  const { registry, referrers } = await wire({ referrers: api })
  const { digest, manifestBytes } = registry.image('library/alpine', 'latest', { seed: 1 })
  const subject = { mediaType: ociManifestType, digest, size: manifestBytes.length }
  const config = { mediaType: 'application/vnd.example.signature', digest, size: 1 }
  const signature = { schemaVersion: 2, mediaType: ociManifestType, config, layers: [], subject }
  const signed = registry.addManifest('library/alpine', undefined, signature, ociManifestType)
  const described = { mediaType: ociManifestType, digest: signed, size: 1, artifactType: config.mediaType }
  const tagged = { schemaVersion: 2, mediaType: ociIndexType, manifests: [described] }
  registry.addManifest('library/alpine', digest.replace(':', '-'), tagged, ociIndexType)
  const page = await referrers.list(alpine, digest, { artifactType: config.mediaType })
  expect(JSON.parse(page.body.toString())).toMatchObject({ manifests: [{ digest: signed }] })
  expect(page).toMatchObject({ filtersApplied: 'artifactType', mediaType: ociIndexType })
})
