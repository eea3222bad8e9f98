import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { freePorts } from '../fakes/ports.ts'
import { redisConfig, RedisServer, until } from '../fakes/redis.ts'
import { startFakeRegistry } from '../fakes/registry.ts'
import { accessKeyId, FakeS3, secretAccessKey } from '../fakes/s3.ts'
import { openStream } from '../edge/pulling.ts'
import { cloudPrices } from './prices.ts'
import { ask, blobPath, manifestPath, pull, together } from './pulling.ts'

/** Two Layovers as one cache, with Redis and a bucket; the second keeps nothing on its disk. */
export type Replicas = {
  readonly layovers: readonly TestLayover[]
  day(day: number): Promise<void>
  close(): Promise<void>
}

export async function startReplicas(): Promise<Replicas> {
  process.env['AWS_ACCESS_KEY_ID'] = accessKeyId
  process.env['AWS_SECRET_ACCESS_KEY'] = secretAccessKey
  const [registry, redis, s3] = await Promise.all([startFakeRegistry(), RedisServer.start(), FakeS3.start()])
  const directory = await mkdtemp(join(tmpdir(), 'layover-secret-'))
  const secretFile = join(directory, 'secret')
  await writeFile(secretFile, randomBytes(32).toString('hex'))
  const start = (port: number, maxBytes: number): Promise<TestLayover> =>
    startTestLayover({
      upstreams: { 'fleet.test': registry },
      config: {
        pricing: cloudPrices('fleet.test'),
        s3: s3.config(),
        redis: redisConfig({ kind: 'url', url: redis.url }, { keyPrefix: 'fleet', commandTimeoutMs: 2_000 }),
        hotTier: { maxBytes },
        replica: { listen: { host: '127.0.0.1', port }, url: `http://127.0.0.1:${port}`, secretFile },
      },
    })
  const [firstPort = 0, secondPort = 0] = await freePorts(2)
  const [first, second] = await Promise.all([start(firstPort, 1024 ** 3), start(secondPort, 0)])

  return {
    layovers: [first, second],
    async day(day) {
      const image = registry.image('app', `day-${day}`, { layerBytes: 60_000, layers: 1, seed: `fleet ${day}` })
      const [{ digest } = { digest: '' }] = image.layers
      for (const layover of [first, second]) await ask(layover, manifestPath('fleet.test', 'app', `day-${day}`))
      const open = (layover: TestLayover) => () => openStream(layover, blobPath('fleet.test', 'app', digest))
      await together(registry, digest, open(first), open(second))
      await pull(first, 'fleet.test', 'app', image, `day-${day}`)
      await until(() => [...s3.objects.keys()].some(key => key.includes(digest.replace('sha256:', ''))), 30_000)
      await until(async () => (await second.metric('layover_storage_blobs')) === 0, 30_000)
      await pull(second, 'fleet.test', 'app', image, `day-${day}`)
      await withoutRedis(day)
    },
    async close() {
      await Promise.all([first.close(), second.close()])
      await Promise.all([registry.stop(), redis.stop(), s3.stop()])
      await rm(directory, { recursive: true })
    },
  }

  async function withoutRedis(day: number): Promise<void> {
    await redis.kill()
    const image = registry.image('app', `alone-${day}`, { layerBytes: 60_000, seed: `alone ${day}` })
    await pull(first, 'fleet.test', 'app', image, `alone-${day}`)
    await redis.run()
    await until(async () => {
      const page = (await (await fetch(`${first.adminUrl}/status`)).json()) as { redis?: { state?: string } }
      return page.redis?.state === 'up'
    }, 30_000)
  }
}
