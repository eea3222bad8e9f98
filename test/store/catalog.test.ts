import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import type { Catalog } from '../../src/store/catalog.ts'
import { RedisCatalog, type CatalogLimits } from '../../src/store/redis-catalog.ts'
import { RedisConnection } from '../../src/store/redis-connection.ts'
import { openRedisMetadata } from '../../src/store/redis-metadata.ts'
import type { MetadataStore } from '../../src/store/stores.ts'
import { RedisServer, redisConfig, startRedisCluster } from '../fakes/redis.ts'
import { opened } from './opened.ts'
import { documentedRules } from './redis-acl.ts'

type Opened = { readonly catalog: Catalog; readonly metadata: MetadataStore }

let single: RedisServer
let cluster: readonly RedisServer[] = []

beforeAll(async () => {
  ;[single, cluster] = await Promise.all([RedisServer.start(), startRedisCluster()])
}, 60_000)
afterAll(async () => {
  await Promise.all([single, ...cluster].map(server => server?.stop()))
})

let prefixes = 0

async function openRedis(
  endpoint: Parameters<typeof redisConfig>[0],
  limits: Partial<CatalogLimits> = {},
  rest: Parameters<typeof redisConfig>[1] = {},
): Promise<Opened & { readonly keyPrefix: string }> {
  // Everything that a pattern could take for more than a letter.
  const keyPrefix = `lay[o]ver*${prefixes++}?`
  const config = redisConfig(endpoint, { keyPrefix, ...rest })
  const connection = new RedisConnection({ config, observer: silentObserver })
  const metadata = await openRedisMetadata({ config, clock: systemClock, observer: silentObserver, connection })
  onTestFinished(async () => {
    await metadata.close()
    connection.close()
  })
  // Nothing is remembered from one look to the next, unless a test says so.
  const catalog = new RedisCatalog({ connection, keyPrefix, clock: systemClock, limits: { forMs: 0, ...limits } })
  return { catalog, metadata, keyPrefix }
}

async function openEmbedded(): Promise<Opened> {
  const { catalog, metadata } = await opened()
  return { catalog, metadata }
}

const manifest = (name: string) => {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, name }))
  return { digest: digestOf(bytes), mediaType: 'application/vnd.oci.image.manifest.v1+json', bytes }
}
const blob = (name: string): Digest => digestOf(Buffer.from(name))
const upstream = 'docker.io'

async function putImage(
  metadata: MetadataStore,
  repository: string,
  names: { tag?: string; layers?: readonly string[] } = {},
) {
  const record = manifest(`${repository}:${names.tag}`)
  await metadata.putManifest(record)
  await metadata.putLinks(upstream, repository, [record.digest], 'confirmed')
  await metadata.putLinks(upstream, repository, (names.layers ?? []).map(blob), 'named')
  const { digest, mediaType, bytes } = record
  if (names.tag !== undefined)
    await metadata.putTag(
      { upstream, repository, tag: names.tag },
      { digest, mediaType, size: bytes.length, checkedAt: 42 },
    )
  return record
}

/** Goes from page to page as a reader does. */
async function all<Entry>(
  read: (page: {
    after?: string | undefined
    limit: number
  }) => Promise<{ entries: readonly Entry[]; next: string | undefined }>,
  limit: number,
) {
  const pages: (readonly Entry[])[] = []
  let after: string | undefined
  do {
    const page = await read({ after, limit })
    pages.push(page.entries)
    after = page.next
  } while (after !== undefined)
  return pages
}

describe.each([
  ['SQLite', openEmbedded],
  ['Redis', () => openRedis({ kind: 'url', url: single.url })],
  ['Redis Cluster', () => openRedis({ kind: 'cluster', nodes: cluster.map(node => node.address) })],
] as const)('catalog of %s', (_name, open) => {
  it('has nothing at first', async () => {
    const { catalog } = await open()
    expect((await catalog.repositories(upstream, { limit: 10 })).entries).toEqual([])
    expect((await catalog.tags(upstream, 'a', { limit: 10 })).entries).toEqual([])
    expect((await catalog.manifests(upstream, 'a', { limit: 10 })).entries).toEqual([])
    expect(await catalog.tag(upstream, 'a', 'b')).toBeUndefined()
    expect(await catalog.manifest(upstream, 'a', blob('x'))).toBeUndefined()
  })

  it('pages through repositories in their order, each upstream for itself', async () => {
    const { catalog, metadata } = await open()
    for (const repository of ['c', 'a/b', 'a', 'd', 'a-b'])
      await putImage(metadata, repository, { layers: ['1', '2', '3'] })
    await metadata.putLinks('ghcr.io', 'b', [blob('1')], 'named')
    const read = (page: { after?: string | undefined; limit: number }) => catalog.repositories(upstream, page)
    expect(await all(read, 2)).toEqual([['a', 'a-b'], ['a/b', 'c'], ['d']])
    expect(await all(read, 5)).toHaveLength(1)
  })

  it('pages through tags', async () => {
    const { catalog, metadata } = await open()
    for (const tag of ['3', '3.20', 'latest']) await putImage(metadata, 'alpine', { tag })
    const pages = await all(page => catalog.tags(upstream, 'alpine', page), 2)
    expect(pages.map(page => page.map(({ tag }) => tag))).toEqual([['3', '3.20'], ['latest']])
    expect(await catalog.tag(upstream, 'alpine', '3')).toMatchObject({
      tag: '3',
      checkedAt: 42,
      digest: manifest('alpine:3').digest,
    })
  })

  it('tells manifests from the blobs that a repository holds', async () => {
    const { catalog, metadata } = await open()
    const records = await Promise.all(
      ['1', '2', '3'].map(tag => putImage(metadata, 'alpine', { tag, layers: ['a', 'b', 'c', tag] })),
    )
    const pages = await all(page => catalog.manifests(upstream, 'alpine', page), 2)
    expect(pages.flat().map(({ digest }) => digest)).toEqual(records.map(({ digest }) => digest).sort())
    expect(pages.flat()[0]).toMatchObject({ mediaType: records[0]?.mediaType, size: records[0]?.bytes.length })
  })

  it('gives a manifest under the repositories that hold it alone', async () => {
    const { catalog, metadata } = await open()
    const record = await putImage(metadata, 'alpine', { tag: '3' })
    const found = await catalog.manifest(upstream, 'alpine', record.digest)
    expect(Buffer.from(found?.bytes ?? [])).toEqual(record.bytes)
    expect(await catalog.manifest(upstream, 'other', record.digest)).toBeUndefined()
    expect(await catalog.manifest('ghcr.io', 'alpine', record.digest)).toBeUndefined()
  })

  it('finds who else holds a blob', async () => {
    const { catalog, metadata } = await open()
    for (const repository of ['a', 'b', 'c', 'd'])
      await putImage(metadata, repository, { layers: ['base', repository] })
    const digests = [blob('base'), blob('a')]
    const { repositories, complete } = await catalog.holders(upstream, digests, { except: 'a', limit: 2 })
    expect(complete).toBe(true)
    expect(repositories.get(blob('base'))).toEqual(['b', 'c'])
    expect(repositories.get(blob('a')) ?? []).toEqual([])
  })
})

describe('catalog of SQLite', () => {
  it('reading counts as no use', async () => {
    const stores = await opened()
    const record = await putImage(stores.metadata, 'alpine')
    const lastUsed = async () => (await stores.catalog.manifests(upstream, 'alpine', { limit: 1 })).entries[0]?.lastUsed
    const before = await lastUsed()
    await stores.catalog.manifest(upstream, 'alpine', record.digest)
    await stores.metadata.close()
    expect(await lastUsed()).toBe(before)
  })

  it('a page of a repository with very many blobs is short, and goes on', async () => {
    const { catalog, metadata } = await opened()
    await metadata.putLinks(
      upstream,
      'big',
      Array.from({ length: 5_000 }, (_, n) => blob(String(n))),
      'named',
    )
    const record = await putImage(metadata, 'big')
    const pages = await all(page => catalog.manifests(upstream, 'big', page), 100)
    expect(pages.length).toBeGreaterThan(2)
    expect(pages.flat().map(({ digest }) => digest)).toEqual([record.digest])
  })
})

describe('catalog of Redis', () => {
  it('looks at so many keys and says that there are more', async () => {
    const { catalog, metadata } = await openRedis({ kind: 'url', url: single.url }, { links: 10 })
    await metadata.putLinks(
      upstream,
      'big',
      Array.from({ length: 3_000 }, (_, n) => blob(String(n))),
      'named',
    )
    expect((await catalog.repositories(upstream, { limit: 10 })).cut).toBe(true)
  })

  it('F-64: passes over what is no record', async () => {
    const { catalog, metadata, keyPrefix } = await openRedis({ kind: 'url', url: single.url })
    await putImage(metadata, 'alpine')
    const garbage = [
      'l:{docker.io NO NAME}:x',
      'n:{docker.io <script>}',
      'l:{docker.io fine}:nodigest',
      'l:{}',
      'n:{docker.io ../x}',
    ]
    for (const key of garbage) await single.admin.set(`${keyPrefix}:1:${key}`, 'x')
    expect((await catalog.repositories(upstream, { limit: 10 })).entries).toEqual(['alpine', 'fine'])
  })

  it('T-58: needs the permissions that docs/redis.md names for it, and says which are missing', async () => {
    const page = readFileSync(join(import.meta.dirname, '../../docs/redis.md'), 'utf8')
    const [, more = ''] = /status page\]\(page\.md\), add `([^`]+)`/.exec(page) ?? []
    // The keys of this test have another prefix.
    const rules = documentedRules().map(rule => (rule.startsWith('~') ? '~*' : rule))
    const allow = (...added: readonly string[]) =>
      single.admin.call('ACL', 'SETUSER', 'looker', 'on', '>secret', ...rules, ...added)
    await allow()
    const user = { username: 'looker', password: 'secret' }
    const { catalog, metadata } = await openRedis({ kind: 'url', url: single.url }, {}, user)
    const record = await putImage(metadata, 'alpine', { tag: '3' })
    await expect(catalog.repositories(upstream, { limit: 10 })).rejects.toMatchObject({ code: 'NOPERM' })
    await allow(...more.split(' '))
    expect((await catalog.repositories(upstream, { limit: 10 })).entries).toEqual(['alpine'])
    expect((await catalog.manifests(upstream, 'alpine', { limit: 10 })).entries).toHaveLength(1)
    expect(await catalog.manifest(upstream, 'alpine', record.digest)).toBeDefined()
    expect((await catalog.tags(upstream, 'alpine', { limit: 10 })).entries).toHaveLength(1)
  })

  it('T-42: who holds what is found without going through every repository for every blob', async () => {
    const { catalog, keyPrefix } = await openRedis({ kind: 'url', url: single.url })
    const digests = Array.from({ length: 128 }, (_, n) => blob(String(n)))
    const links = single.admin.pipeline()
    for (let n = 0; n < 1_000; n++) links.set(`${keyPrefix}:1:l:{docker.io r${n}}:${digests[n % 128]}`, 'named')
    await links.exec()
    const has = vi.spyOn(Set.prototype, 'has')
    onTestFinished(() => has.mockRestore())
    const { repositories } = await catalog.holders(upstream, digests, { except: 'r0', limit: 2 })
    expect(has.mock.calls.length).toBeLessThan(10_000)
    expect(repositories.get(digests[0] ?? blob(''))).toEqual(['r128', 'r256'])
  })

  it('one look is good for a while', async () => {
    const { catalog, metadata } = await openRedis({ kind: 'url', url: single.url }, { forMs: 60_000 })
    await putImage(metadata, 'a')
    expect((await catalog.repositories(upstream, { limit: 10 })).entries).toEqual(['a'])
    await putImage(metadata, 'b')
    expect((await catalog.repositories(upstream, { limit: 10 })).entries).toEqual(['a'])
  })
})
