import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { RedisConnection } from '../../src/store/redis-connection.ts'
import { RedisLeases } from '../../src/store/redis-leases.ts'
import { RedisQuestions } from '../../src/store/redis-questions.ts'
import { openRedisMetadata, type RedisMetadataStore } from '../../src/store/redis-metadata.ts'
import type { ManifestRecord } from '../../src/store/stores.ts'
import { redisConfig, type RedisServer, startRedisCluster, until } from '../fakes/redis.ts'
import { recordingObserver } from './opened.ts'
import { documentedRules } from './redis-acl.ts'

const access = { username: 'layover', password: 'right', keyPrefix: 'layover' }

let nodes: readonly RedisServer[] = []

beforeAll(async () => {
  nodes = await startRedisCluster(['cluster-require-full-coverage', 'no'])
}, 60_000)
afterAll(() => Promise.all(nodes.map(node => node.stop())))

const records: readonly ManifestRecord[] = Array.from({ length: 60 }, (_, n) => {
  const bytes = Buffer.from(`{"n":${n}}`)
  return { digest: digestOf(bytes), mediaType: 'application/vnd.oci.image.manifest.v1+json', bytes }
})

async function opened(): Promise<{
  readonly metadata: RedisMetadataStore
  readonly failures: ReturnType<typeof recordingObserver>['failures']
}> {
  const { observer, failures } = recordingObserver()
  const config = redisConfig({ kind: 'cluster', nodes: nodes.map(node => node.address) })
  const metadata = await openRedisMetadata({ config, clock: systemClock, observer })
  onTestFinished(() => metadata.close())
  return { metadata, failures }
}

/** How many there are; no reading takes longer than `withinMs`. */
async function countWithin(metadata: RedisMetadataStore, withinMs: number): Promise<number> {
  let found = 0
  for (const { digest } of records) {
    const start = performance.now()
    if (await metadata.getManifest(digest)) found++
    expect(performance.now() - start).toBeLessThan(withinMs)
  }
  return found
}

describe('one node of a cluster', () => {
  it('F-59: killed: the records of the others are served, its own are misses soon told; back, it is used again', async () => {
    const { metadata } = await opened()
    for (const record of records) await metadata.putManifest(record)
    expect(await countWithin(metadata, 900)).toBe(records.length)
    await nodes[1]?.kill()
    const left = await countWithin(metadata, 900)
    expect(left).toBeGreaterThan(0)
    expect(left).toBeLessThan(records.length)
    expect(metadata.usage().isUp).toBe(true)
    await nodes[1]?.run()
    await until(async () => {
      for (const record of records) await metadata.putManifest(record)
      return (await countWithin(metadata, 900)) === records.length
    })
  }, 40_000)

  it('F-60: standing still: a time-out each, then misses at once, and the others are served again', async () => {
    const { metadata, failures } = await opened()
    for (const record of records) await metadata.putManifest(record)
    nodes[2]?.stand()
    const found = await countWithin(metadata, 900)
    expect(found).toBeLessThan(records.length)
    await until(async () => (await countWithin(metadata, 900)) > records.length / 2)
    nodes[2]?.goOn()
    await until(async () => {
      for (const record of records) await metadata.putManifest(record)
      return (await countWithin(metadata, 900)) === records.length
    })
    expect(failures.filter(({ operation }) => operation === 'redis.garbage')).toEqual([])
  }, 40_000)
})

describe('the ACL user in a cluster', () => {
  it('T-58: needs no more than docs/redis.md gives it', async () => {
    for (const node of nodes) await node.admin.call('ACL', 'SETUSER', 'layover', 'on', '>right', ...documentedRules())
    const { observer, failures } = recordingObserver()
    const config = redisConfig({ kind: 'cluster', nodes: nodes.map(node => node.address) }, access)
    const connection = new RedisConnection({ config, observer })
    onTestFinished(() => connection.close())
    const metadata = await openRedisMetadata({ config, clock: systemClock, observer, connection })
    for (const record of records) await metadata.putManifest(record)
    expect(await countWithin(metadata, 900)).toBe(records.length)
    const digests = records.map(({ digest }) => digest)
    await metadata.putLinks('docker.io', 'library/alpine', digests, 'confirmed')
    for (const digest of digests) expect(await metadata.isConfirmedAt('docker.io', digest)).toBe(true)
    const leases = new RedisLeases({ connection, keyPrefix: config.keyPrefix })
    for (const digest of digests)
      expect(await leases.acquire(digest, { url: 'http://10.0.0.1:5002' })).toMatchObject({ token: expect.any(Number) })
    for (const digest of digests)
      expect(await leases.acquire(digest, { url: 'http://10.0.0.2:5002' })).toMatchObject({
        heldBy: 'http://10.0.0.1:5002',
      })
    const questions = new RedisQuestions({ connection, keyPrefix: config.keyPrefix })
    for (const reference of digests) {
      const question = { upstream: 'docker.io', repository: 'library/alpine', reference }
      const taken = await questions.take(question)
      expect(await questions.take(question)).toMatchObject({ state: 'asked' })
      if (taken?.state === 'yours') await taken.answered('absent')
    }
    expect(failures).toEqual([])
    for (const node of nodes) expect(await node.admin.call('ACL', 'LOG')).toEqual([])
  })
})
