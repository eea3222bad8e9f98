import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import type { RedisConfig } from '../../src/config/config.ts'
import type { Observer } from '../../src/log/observer.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { openRedisMetadata, type RedisMetadataStore } from '../../src/store/redis-metadata.ts'
import { RedisServer, redisConfig, type SentinelSetUp, startRedisCluster, startRedisSentinel } from '../fakes/redis.ts'
import { describeMetadataStore } from './metadata.conformance.ts'
import { recordingObserver } from './opened.ts'

let single: RedisServer
let cluster: readonly RedisServer[] = []
let sentinel: SentinelSetUp

beforeAll(async () => {
  ;[single, cluster, sentinel] = await Promise.all([RedisServer.start(), startRedisCluster(), startRedisSentinel()])
}, 60_000)

afterAll(async () => {
  const all = [single, ...cluster, sentinel?.sentinel, sentinel?.replica, sentinel?.master]
  await Promise.all(all.map(server => server?.stop()))
})

const onSingle = (rest: Partial<RedisConfig> = {}): RedisConfig => redisConfig({ kind: 'url', url: single.url }, rest)
const onCluster = (): RedisConfig => redisConfig({ kind: 'cluster', nodes: cluster.map(node => node.address) })
const onSentinel = (): RedisConfig =>
  redisConfig({ kind: 'sentinels', sentinels: [sentinel.sentinel.address], name: 'cache' })

const opened = async (config: RedisConfig, observer: Observer = silentObserver): Promise<RedisMetadataStore> =>
  openRedisMetadata({ config, clock: systemClock, observer })

const openedForTest = async (config: RedisConfig, observer?: Observer): Promise<RedisMetadataStore> => {
  const metadata = await opened(config, observer)
  onTestFinished(() => metadata.close())
  return metadata
}

describeMetadataStore('Redis', () => opened(onSingle()))
describeMetadataStore('Redis Cluster', () => opened(onCluster()))
describeMetadataStore('Redis behind Sentinel', () => opened(onSentinel()))

const bytes = Buffer.from('{"schemaVersion":2}')
const manifest = { digest: digestOf(bytes), mediaType: 'application/vnd.oci.image.manifest.v1+json', bytes }
const key = { upstream: 'docker.io', repository: 'library/alpine', tag: '3.20' }
const tag = { digest: manifest.digest, mediaType: manifest.mediaType, size: bytes.byteLength, checkedAt: 42 }
const document = { bytes: Buffer.from('[]'), mediaType: 'application/json', storedAt: 7, attributes: {} }

async function putAll(metadata: RedisMetadataStore): Promise<void> {
  await metadata.putManifest(manifest)
  await metadata.putTag(key, tag)
  await metadata.putLinks(key.upstream, key.repository, [manifest.digest], 'confirmed')
  await metadata.putDocument('list', document)
}

async function readAll(metadata: RedisMetadataStore): Promise<readonly unknown[]> {
  return Promise.all([
    metadata.getManifest(manifest.digest),
    metadata.getTag(key),
    metadata.knownTags(key.upstream, key.repository),
    metadata.getLink(key.upstream, key.repository, manifest.digest),
    metadata.isConfirmedAt(key.upstream, manifest.digest),
    metadata.getDocument('list'),
  ])
}

const nothing = [undefined, undefined, [], undefined, false, undefined]
const everything = [manifest, tag, [key.tag], 'confirmed', true, document]

describe('records in Redis', () => {
  it('F-62: every key has a time to live and stands under the versioned prefix', async () => {
    const config = onSingle()
    await putAll(await openedForTest(config))
    const keys = await single.admin.keys(`${config.keyPrefix}:*`)
    expect(keys).toHaveLength(6)
    for (const name of keys) {
      expect(name).toMatch(new RegExp(`^${config.keyPrefix}:1:[mtnlcd]:\\{`))
      expect(await single.admin.pttl(name)).toBeGreaterThan(29 * 24 * 60 * 60_000)
    }
  })

  it('F-62: what is used lives on, in batches', async () => {
    const config = onSingle()
    const metadata = await openedForTest(config)
    await putAll(metadata)
    const keys = await single.admin.keys(`${config.keyPrefix}:*`)
    for (const name of keys) await single.admin.pexpire(name, 60_000)
    await readAll(metadata)
    await metadata.close()
    for (const name of keys) expect(await single.admin.pttl(name)).toBeGreaterThan(29 * 24 * 60 * 60_000)
  })

  it('F-64, T-26: garbage, another type, an older form or other bytes are a miss, are deleted, and can be put anew', async () => {
    const config = onSingle()
    const { observer } = recordingObserver()
    const metadata = await openedForTest(config, observer)
    const spoils: readonly ((name: string) => Promise<unknown>)[] = [
      name => single.admin.set(name, 'garbage'),
      name => single.admin.set(name, ''),
      name => single.admin.set(name, Buffer.from([0xff, 0x0a, 0x00])),
      name => single.admin.set(name, `{"digest":"${manifest.digest}"}`),
      name => single.admin.set(name, `${manifest.mediaType}\n{"other":true}`),
      name => single.admin.set(name, `text/html\r\nX-Injected: 1\n${bytes.toString()}`),
      name => single.admin.lpush(name, 'a', 'b'),
      name => single.admin.hset(name, 'a', 'b'),
      name => single.admin.xadd(name, '*', 'a', 'b'),
    ]
    for (const spoil of spoils) {
      await putAll(metadata)
      const names = await single.admin.keys(`${config.keyPrefix}:*`)
      for (const name of names) {
        await single.admin.del(name)
        await spoil(name)
      }
      expect(await readAll(metadata)).toEqual(nothing)
      expect(await single.admin.keys(`${config.keyPrefix}:*`)).toEqual([])
    }
    await putAll(metadata)
    expect(await readAll(metadata)).toEqual(everything)
    expect(metadata.usage()).toEqual({ isUp: true, refusals: [] })
  })

  it('F-64: a write replaces what is of another type', async () => {
    const config = onSingle()
    const metadata = await openedForTest(config)
    await putAll(metadata)
    for (const name of await single.admin.keys(`${config.keyPrefix}:*`)) {
      await single.admin.del(name)
      await single.admin.lpush(name, 'a')
    }
    await metadata.putTag(key, tag)
    await metadata.putLinks(key.upstream, key.repository, [manifest.digest], 'confirmed')
    expect(await metadata.getTag(key)).toEqual(tag)
    expect(await metadata.knownTags(key.upstream, key.repository)).toEqual([key.tag])
    expect(await metadata.isConfirmedAt(key.upstream, manifest.digest)).toBe(true)
  })

  it('F-62: every key may go alone', async () => {
    const config = onSingle()
    const metadata = await openedForTest(config)
    await putAll(metadata)
    for (const name of await single.admin.keys(`${config.keyPrefix}:*`)) {
      await single.admin.del(name)
      const found = await readAll(metadata)
      const kept = found.filter((value, index) => JSON.stringify(value) === JSON.stringify(everything[index]))
      expect([name, kept.length]).toEqual([name, everything.length - 1])
      await putAll(metadata)
    }
  })

  it('F-63: FLUSHALL while it is used costs misses only', async () => {
    const metadata = await openedForTest(onCluster())
    for (let round = 0; round < 20; round++) {
      await Promise.all([putAll(metadata), readAll(metadata), ...cluster.map(node => node.admin.flushall())])
      await putAll(metadata)
      expect(await readAll(metadata)).toEqual(everything)
    }
  })

  it('F-62: keys that vanish at random while they are used are misses, never wrong answers', async () => {
    const config = onSingle()
    const { observer, failures } = recordingObserver()
    const metadata = await openedForTest(config, observer)
    let losing = true
    const loses = (async () => {
      while (losing) {
        const name = await single.admin.randomkey()
        if (name?.startsWith(config.keyPrefix)) await single.admin.del(name)
      }
    })()
    for (let round = 0; round < 200; round++) {
      await putAll(metadata)
      const found = await readAll(metadata)
      found.forEach((value, index) =>
        expect([nothing[index], everything[index]].map(known => JSON.stringify(known))).toContain(
          JSON.stringify(value),
        ),
      )
    }
    losing = false
    await loses
    expect(failures).toEqual([])
  })

  it('T-47: lists over a mebibyte are not kept, and names of tags are bounded', async () => {
    const config = onSingle()
    const metadata = await openedForTest(config)
    await metadata.putDocument('large', { ...document, bytes: Buffer.alloc(1024 * 1024 + 1) })
    expect(await metadata.getDocument('large')).toBeUndefined()
    await metadata.putTag(key, tag)
    const [names = ''] = await single.admin.keys(`${config.keyPrefix}:1:n:*`)
    const now = Date.now()
    await single.admin.zadd(names, ...Array.from({ length: 10_050 }, (_, n) => [now, `t${n}`]).flat())
    await metadata.putTag({ ...key, tag: 'last' }, tag)
    const known = await metadata.knownTags(key.upstream, key.repository)
    expect(known).toHaveLength(10_000)
    expect(known).toContain('last')
  })

  it('F-65: a tag list names no tag whose name is not one', async () => {
    const config = onSingle()
    const metadata = await openedForTest(config)
    await metadata.putTag(key, tag)
    const [names = ''] = await single.admin.keys(`${config.keyPrefix}:1:n:*`)
    await single.admin.zadd(names, Date.now(), '../x', Date.now(), '<b>')
    expect(await metadata.knownTags(key.upstream, key.repository)).toEqual([key.tag])
  })
})

describe('failover', () => {
  it('F-61: the new master is found, and records are kept on', async () => {
    const { observer, failures } = recordingObserver()
    const metadata = await openedForTest(onSentinel(), observer)
    await putAll(metadata)
    // WAIT is for the writes of its own connection, and replication keeps the order: once the replica has this one, it has the records.
    await sentinel.master.admin.set('last', '1')
    expect(await sentinel.master.admin.wait(1, 20_000)).toBe(1)
    await sentinel.master.kill()
    expect(await readAll(metadata)).toEqual(nothing)
    // That the connection is broken is found before it is known that nobody answers behind it: `isUp` says nothing yet.
    await expect.poll(() => readAll(metadata), { timeout: 30_000 }).toEqual(everything)
    await metadata.putTag({ ...key, tag: 'after' }, tag)
    expect(await metadata.getTag({ ...key, tag: 'after' })).toEqual(tag)
    expect(failures.filter(({ operation }) => operation === 'redis.unavailable')).toHaveLength(1)
  }, 60_000)
})
