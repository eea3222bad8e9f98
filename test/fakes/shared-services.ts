import { createHash } from 'node:crypto'
import { basename } from 'node:path'
import type { Config } from '../../src/config/config.ts'
import { digestOfKey } from '../../src/store/s3-key.ts'
import { redisConfig, RedisServer } from './redis.ts'
import { accessKeyId, FakeS3, secretAccessKey } from './s3.ts'

/** One Redis and one bucket for all Layovers of a test file; each has its own names in them, made of its data directory. */
type SharedServices = { readonly redis: RedisServer; readonly s3: FakeS3 }

let services: Promise<SharedServices> | undefined

/** Tests of this process run with Redis and a bucket. */
export const isDistributed = (): boolean => process.env['LAYOVER_TEST_SETUP'] === 'distributed'

const prefixOf = (dataDir: string): string => `${basename(dataDir)}/`

/** What makes the configuration of one Layover distributed. Empty in the embedded set-up. Starts the services when they are not there. */
export async function distributedConfig(dataDir: string): Promise<Pick<Config, 's3' | 'redis' | 'hotTier'>> {
  if (!isDistributed()) return {}
  process.env['AWS_ACCESS_KEY_ID'] = accessKeyId
  process.env['AWS_SECRET_ACCESS_KEY'] = secretAccessKey
  services ??= startServices()
  const { redis, s3 } = await services
  return {
    s3: s3.config({ prefix: prefixOf(dataDir) }),
    // Many tests share two processors: a command that waited for them is no fault of Redis.
    redis: redisConfig({ kind: 'url', url: redis.url }, { keyPrefix: basename(dataDir), commandTimeoutMs: 2_000 }),
    hotTier: { maxBytes: 1024 ** 3 },
  }
}

async function startServices(): Promise<SharedServices> {
  const [redis, s3] = await Promise.all([RedisServer.start(), FakeS3.start()])
  return { redis, s3 }
}

/** Everything that Layovers have put into Redis and the bucket: names, values, headers. Empty in the embedded set-up. */
export async function dumpShared(): Promise<string> {
  if (!services) return ''
  const { redis, s3 } = await services
  await s3.idle()
  const keys = await redis.admin.keys('*')
  const values = await Promise.all(keys.map(key => valueOf(redis, key)))
  const objects = [...s3.objects].map(([key, { bytes, headers }]) =>
    [key, JSON.stringify(headers), bytes.toString('latin1')].join('\n'),
  )
  return [...keys, ...values, ...objects].join('\n')
}

async function valueOf({ admin }: RedisServer, key: string): Promise<string> {
  const kind = await admin.type(key)
  if (kind === 'hash') return JSON.stringify(await admin.hgetall(key))
  if (kind === 'zset') return (await admin.zrange(key, '-', '+', 'BYLEX')).join('\n')
  if (kind === 'set') return (await admin.smembers(key)).join('\n')
  if (kind === 'string' || kind === 'none') return (await admin.get(key)) ?? ''
  throw new Error(`a key of kind ${kind} cannot be shown`)
}

/** Objects of one Layover whose bytes are not what their key says; then they are deleted. Nothing may run on that directory any more. */
export async function clearBucket(dataDir: string): Promise<string[]> {
  if (!services) return []
  const { s3 } = await services
  await s3.idle()
  const prefix = prefixOf(dataDir)
  const own = [...s3.objects].filter(([key]) => key.startsWith(prefix))
  for (const [key] of own) s3.objects.delete(key)
  return own.flatMap(([key, { bytes }]) => {
    const [algorithm = '', hex = ''] = digestOfKey(prefix, key)?.split(':') ?? []
    return algorithm === '' || createHash(algorithm).update(bytes).digest('hex') === hex ? [] : [key]
  })
}

export async function stopServices(): Promise<void> {
  const running = await services
  services = undefined
  await Promise.all([running?.redis.stop(), running?.s3.stop()])
}
