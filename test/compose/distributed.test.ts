import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Clock } from '../../src/clock.ts'
import type { Config } from '../../src/config/config.ts'
import { hexOf } from '../../src/oci/digest.ts'
import { FakeClock } from '../fakes/clock.ts'
import type { FakeImage } from '../fakes/image.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { freePorts } from '../fakes/ports.ts'
import { redisConfig, RedisServer } from '../fakes/redis.ts'
import { startRedisLink } from '../fakes/redis-link.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { accessKeyId, FakeS3, secretAccessKey } from '../fakes/s3.ts'

type Parts = Partial<Pick<Config, 's3' | 'redis' | 'hotTier' | 'replica'>>

async function registryWith(options: { readonly layerBytes?: number } = {}) {
  const registry = await startFakeRegistry()
  onTestFinished(() => registry.stop())
  return { registry, image: registry.image('library/app', 'latest', { layers: 3, ...options }) }
}

async function bucket(): Promise<FakeS3> {
  process.env.AWS_ACCESS_KEY_ID = accessKeyId
  process.env.AWS_SECRET_ACCESS_KEY = secretAccessKey
  const s3 = await FakeS3.start()
  onTestFinished(() => s3.stop())
  return s3
}

async function redisServer(): Promise<RedisServer> {
  const redis = await RedisServer.start()
  onTestFinished(() => redis.stop())
  return redis
}

async function layoverWith(registry: FakeRegistry, config: Parts, clock?: Clock): Promise<TestLayover> {
  const layover = await startTestLayover({ upstreams: { 'fake.test': registry }, config, ...(clock && { clock }) })
  onTestFinished(() => layover.close())
  return layover
}

type Pulled = { readonly outcomes: readonly string[] }

/** Pulls as a client does and checks every byte; gives what `Cache-Status` said of each blob. */
async function pull(layover: TestLayover, image: FakeImage): Promise<Pulled> {
  const manifest = await fetch(`${layover.url}/v2/library/app/manifests/latest`)
  expect(manifest.status).toBe(200)
  expect(Buffer.from(await manifest.arrayBuffer()).equals(image.manifestBytes)).toBe(true)
  const outcomes = await Promise.all(
    [image.config, ...image.layers].map(async ({ digest }) => {
      const blob = await fetch(`${layover.url}/v2/library/app/blobs/${digest}`)
      expect(blob.status).toBe(200)
      const hash = createHash('sha256').update(Buffer.from(await blob.arrayBuffer()))
      expect(`sha256:${hash.digest('hex')}`).toBe(digest)
      return blob.headers.get('cache-status')?.split('; ')[1] ?? ''
    }),
  )
  return { outcomes }
}

async function status(layover: TestLayover): Promise<Record<string, unknown>> {
  return (await (await fetch(`${layover.adminUrl}/status`)).json()) as Record<string, unknown>
}

const blobGets = (registry: FakeRegistry): number =>
  registry.requests.filter(({ method, path }) => method === 'GET' && path.includes('/blobs/')).length

/** What was pulled is on the disk: clients have their last byte a moment before. */
const published = (layover: TestLayover, image: FakeImage): Promise<void> =>
  expect
    .poll(async () => (await status(layover))['storage'], { timeout: 5_000 })
    .toMatchObject({ blobs: 1 + image.layers.length, reservedBytes: 0 })

const keysUnder = (s3: FakeS3, prefix: string): string[] => [...s3.objects.keys()].filter(key => key.includes(prefix))

const uploaded = (s3: FakeS3, image: FakeImage): Promise<void> =>
  expect.poll(() => keysUnder(s3, 'blobs/').length, { timeout: 5_000 }).toBe(1 + image.layers.length)

const urlOf = (redis: RedisServer) => redisConfig({ kind: 'url', url: redis.url })

describe('each way to run', () => {
  it.each([
    { name: 'a directory alone', withRedis: false, withBucket: false },
    { name: 'SQLite and a bucket', withRedis: false, withBucket: true },
    { name: 'Redis and a directory', withRedis: true, withBucket: false },
    { name: 'Redis and a bucket', withRedis: true, withBucket: true },
  ])('$name: pulls, keeps, and serves when upstream is gone', async ({ withRedis, withBucket }) => {
    const { registry, image } = await registryWith()
    const s3 = withBucket ? await bucket() : undefined
    const redis = withRedis ? await redisServer() : undefined
    const layover = await layoverWith(registry, {
      ...(s3 && { s3: s3.config() }),
      ...(redis && { redis: urlOf(redis) }),
    })
    await pull(layover, image)
    await published(layover, image)
    if (s3) await uploaded(s3, image)
    await registry.stop()
    expect((await pull(layover, image)).outcomes.every(outcome => outcome === 'hit')).toBe(true)
    // None to read what lies on the disk. The probe and the list of unfinished uploads are the only others.
    const reads = s3?.seen.filter(({ method, key }) => method === 'GET' && key.includes('blobs/sha256')) ?? []
    expect(reads.every(({ status: answer }) => answer() === 404)).toBe(true)
    const page = await status(layover)
    expect(['shared' in page, 'redis' in page]).toEqual([withBucket, withRedis])
  })

  it('a replica with an empty disk asks upstream nothing for what the others have pulled', async () => {
    const { registry, image } = await registryWith()
    const [s3, redis] = [await bucket(), await redisServer()]
    const config = { s3: s3.config(), redis: urlOf(redis) }
    const first = await layoverWith(registry, config)
    await pull(first, image)
    await uploaded(s3, image)
    await registry.stop()
    const second = await layoverWith(registry, config)
    expect((await pull(second, image)).outcomes).toEqual(['hit', 'hit', 'hit', 'hit'])
    const reads = s3.seen.filter(({ method, status: answer }) => method === 'GET' && answer() < 300)
    expect(reads.filter(({ key }) => key.includes('blobs/sha256')).length).toBe(1 + image.layers.length)
    expect(await second.metric('layover_shared_bytes_total{direction="read"}')).toBeGreaterThan(0)
    expect(await second.metric('layover_upstream_bytes_total{upstream="fake.test",kind="blob"}')).toBe(0)
  })

  it('a machine that gets a bucket uploads what it has, and serves it as before', async () => {
    const { registry, image } = await registryWith()
    const before = await layoverWith(registry, {})
    await pull(before, image)
    await published(before, image)
    const s3 = await bucket()
    const after = await before.restart({ s3: s3.config() })
    onTestFinished(() => after.close())
    await uploaded(s3, image)
    expect((await pull(after, image)).outcomes).toEqual(['hit', 'hit', 'hit', 'hit'])
  })

  it('a hot tier of 0 keeps nothing that is in the bucket, and every pull is right', async () => {
    const { registry, image } = await registryWith()
    const s3 = await bucket()
    const layover = await layoverWith(registry, { s3: s3.config(), hotTier: { maxBytes: 0 } })
    await pull(layover, image)
    await uploaded(s3, image)
    await expect.poll(() => blobFiles(layover.dataDir), { timeout: 5_000 }).toEqual([])
    await registry.stop()
    expect((await pull(layover, image)).outcomes).toEqual(['hit', 'hit', 'hit', 'hit'])
  })
})

describe('what a pull costs at the bucket', () => {
  it('one GET for each blob that is not on this disk, nothing for what is', async () => {
    const { registry, image } = await registryWith()
    const [s3, redis] = [await bucket(), await redisServer()]
    const config = { s3: s3.config(), redis: urlOf(redis) }
    const first = await layoverWith(registry, config)
    await pull(first, image)
    await uploaded(s3, image)
    const second = await layoverWith(registry, config)
    const aboutBlobs = (since: number): string[] =>
      s3.seen
        .slice(since)
        .filter(({ key }) => [image.config, ...image.layers].some(({ digest }) => key.endsWith(hexOf(digest))))
        .filter(({ key }) => key.startsWith('blobs/'))
        .map(({ method }) => method)
    const cold = s3.seen.length
    await pull(second, image)
    await published(second, image)
    expect(aboutBlobs(cold)).toEqual(['GET', 'GET', 'GET', 'GET'])
    const hot = s3.seen.length
    await pull(second, image)
    expect(s3.seen.slice(hot).map(({ method, key }) => `${method} ${key}`)).toEqual([])
  })
})

describe('what is away', () => {
  it('F-55, F-59: Redis and the bucket gone at run time: it stays ready, and pulls go on from upstream', async () => {
    const { registry, image } = await registryWith()
    const [s3, redis] = [await bucket(), await redisServer()]
    const layover = await layoverWith(registry, { s3: s3.config({ requestTimeoutMs: 500 }), redis: urlOf(redis) })
    await pull(layover, image)
    await uploaded(s3, image)
    await redis.kill()
    await s3.stop()
    const other = registry.image('library/app', 'latest', { seed: 2 })
    await expect.poll(async () => (await status(layover))['redis'], { timeout: 5_000 }).toMatchObject({ state: 'down' })
    expect((await fetch(`${layover.adminUrl}/readyz`)).status).toBe(200)
    const answers = [other.config, ...other.layers].map(async ({ digest, bytes }) => {
      const blob = await fetch(`${layover.url}/v2/library/app/blobs/${digest}`)
      return Buffer.from(await blob.arrayBuffer()).equals(bytes)
    })
    expect(await Promise.all(answers)).toEqual(answers.map(() => true))
    // They wait for the bucket to come back.
    await expect.poll(() => layover.metric('layover_shared_pending_uploads')).toBe(1 + other.layers.length)
  })

  it('F-55, F-59: neither is needed for the start', async () => {
    const { registry, image } = await registryWith()
    const s3 = await bucket()
    const config = s3.config({ requestTimeoutMs: 500 })
    await s3.stop()
    const [port = 0] = await freePorts(1)
    const redis = redisConfig({ kind: 'url', url: `redis://127.0.0.1:${port}/0` })
    const layover = await layoverWith(registry, { s3: config, redis })
    expect((await fetch(`${layover.adminUrl}/readyz`)).status).toBe(200)
    await pull(layover, image)
  })
})

describe('the records in the bucket', () => {
  it('F-63: Redis and every disk are lost, upstream is gone: the image is pulled all the same', async () => {
    const { registry, image } = await registryWith()
    const [s3, redis] = [await bucket(), await redisServer()]
    const config = { s3: s3.config(), redis: urlOf(redis) }
    const first = await layoverWith(registry, config)
    await pull(first, image)
    await uploaded(s3, image)
    // The manifest, its tag, and that the repository holds it and each of its blobs.
    await expect.poll(() => s3.objects.size, { timeout: 5_000 }).toBe(2 * (1 + image.layers.length) + 3)
    await registry.stop()
    await redis.admin.flushall()
    const second = await layoverWith(registry, config)
    expect((await pull(second, image)).outcomes).toEqual(['hit', 'hit', 'hit', 'hit'])
  })
})

describe('replicas that tell each other what upstream said', () => {
  it('P-47: ask once for a manifest, and later once whether its tag is still the same', async () => {
    const { registry, image } = await registryWith()
    const redis = await redisServer()
    // Its time stands still while they wait for each other, however busy the machine is.
    const clock = new FakeClock()
    const config = { redis: { ...urlOf(redis), commandTimeoutMs: 5_000 } }
    const replicas = await Promise.all([1, 2, 3].map(() => layoverWith(registry, config, clock)))
    const manifests = async (reference: string): Promise<string[]> => {
      const before = registry.requests.length
      const answers = replicas.flatMap(({ url }) =>
        [1, 2].map(async () => {
          const answer = await fetch(`${url}/v2/library/app/manifests/${reference}`)
          expect(Buffer.from(await answer.arrayBuffer()).equals(image.manifestBytes)).toBe(true)
        }),
      )
      await Promise.all(answers)
      return registry.requests.slice(before).map(({ method }) => method)
    }
    expect(await manifests('latest')).toEqual(['GET'])
    clock.advance(300_001)
    expect(await manifests('latest')).toEqual(['HEAD'])
    expect(await manifests(image.digest)).toEqual([])
    // The records are lost: what is in memory needs none of them.
    await redis.admin.flushall()
    expect(await manifests('latest')).toEqual([])
    expect(await manifests(image.digest)).toEqual([])
  })
})

describe('replicas that read from each other', () => {
  const three = async (registry: FakeRegistry, redis: Config['redis']): Promise<TestLayover[]> => {
    const directory = await mkdtemp(join(tmpdir(), 'layover-secret-'))
    onTestFinished(() => rm(directory, { recursive: true }))
    const secretFile = join(directory, 'secret')
    await writeFile(secretFile, randomBytes(32).toString('hex'))
    return Promise.all(
      (await freePorts(3)).map(port =>
        layoverWith(registry, {
          redis,
          replica: { listen: { host: '127.0.0.1', port }, url: `http://127.0.0.1:${port}`, secretFile },
        }),
      ),
    )
  }

  it('download each blob once for all of them', async () => {
    const { registry, image } = await registryWith({ layerBytes: 512 * 1024 })
    const replicas = await three(registry, urlOf(await redisServer()))
    await Promise.all(replicas.flatMap(replica => [pull(replica, image), pull(replica, image)]))
    expect(blobGets(registry)).toBe(1 + image.layers.length)
  })

  it('F-60: do so too while every record is a miss, because Redis is slower than that', async () => {
    const { registry, image } = await registryWith({ layerBytes: 512 * 1024 })
    const redis = await redisServer()
    const link = await startRedisLink(redis.port, { delayMs: 150 })
    onTestFinished(() => link.stop())
    const replicas = await three(registry, {
      ...urlOf(redis),
      endpoint: { kind: 'url', url: link.url },
      commandTimeoutMs: 50,
    })
    await Promise.all(replicas.flatMap(replica => [pull(replica, image), pull(replica, image)]))
    expect(blobGets(registry)).toBe(1 + image.layers.length)
  })
})

/** Published blobs on this disk. */
function blobFiles(dataDir: string): string[] {
  const blobs = join(dataDir, 'blobs')
  if (!existsSync(blobs)) return []
  return readdirSync(blobs, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(({ name }) => name)
}
