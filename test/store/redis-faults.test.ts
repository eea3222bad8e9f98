import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import type { RedisConfig } from '../../src/config/config.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { RedisConnection } from '../../src/store/redis-connection.ts'
import { RedisLeases } from '../../src/store/redis-leases.ts'
import { openRedisMetadata, type RedisMetadataStore } from '../../src/store/redis-metadata.ts'
import { redisConfig, RedisServer, until } from '../fakes/redis.ts'
import { recordingObserver } from './opened.ts'
import { documentedRules } from './redis-acl.ts'

const bytes = Buffer.from('{"schemaVersion":2}')
const manifest = { digest: digestOf(bytes), mediaType: 'application/vnd.oci.image.manifest.v1+json', bytes }
const key = { upstream: 'docker.io', repository: 'library/alpine', tag: '3.20' }
const tag = { digest: manifest.digest, mediaType: manifest.mediaType, size: bytes.byteLength, checkedAt: 42 }

async function started(...options: readonly (readonly string[])[]): Promise<RedisServer> {
  const server = await RedisServer.start(...options)
  onTestFinished(() => server.stop())
  return server
}

type Opened = {
  readonly metadata: RedisMetadataStore
  readonly failures: ReturnType<typeof recordingObserver>['failures']
  readonly lines: readonly string[]
}

async function opened(server: RedisServer, rest: Partial<RedisConfig> = {}): Promise<Opened> {
  const { observer, failures } = recordingObserver()
  const lines: string[] = []
  const metadata = await openRedisMetadata({
    config: redisConfig({ kind: 'url', url: server.url }, rest),
    clock: systemClock,
    observer,
    log: { info: (...line: readonly unknown[]) => void lines.push(String(line.at(-1))) },
  })
  onTestFinished(() => metadata.close())
  return { metadata, failures, lines }
}

async function timed<Result>(work: () => Promise<Result>): Promise<{ result: Result; ms: number }> {
  const start = performance.now()
  const result = await work()
  return { result, ms: performance.now() - start }
}

describe('Redis gone', () => {
  it('F-59: at the start costs misses, one line, and no pull; it is used once it is there', async () => {
    const server = await started()
    await server.kill()
    const { metadata, failures, lines } = await opened(server)
    await metadata.putManifest(manifest)
    await metadata.putTag(key, tag)
    await metadata.putLinks('docker.io', 'a', [manifest.digest], 'confirmed')
    await metadata.deleteTag(key)
    expect(await metadata.getManifest(manifest.digest)).toBeUndefined()
    expect(await metadata.knownTags('docker.io', 'a')).toEqual([])
    expect(await metadata.isConfirmedAt('docker.io', manifest.digest)).toBe(false)
    expect(failures.map(({ operation }) => operation)).toEqual(['redis.unavailable'])
    expect(metadata.usage().isUp).toBe(false)

    await server.run()
    await until(() => metadata.usage().isUp)
    await metadata.putTag(key, tag)
    expect(await metadata.getTag(key)).toEqual(tag)
    expect(lines).toEqual(['redis answers again'])
  })

  it('F-59: killed while it is used and back, one line each, and misses take no time', async () => {
    const server = await started()
    const { metadata, failures, lines } = await opened(server)
    await metadata.putTag(key, tag)
    await server.kill()
    await until(() => !metadata.usage().isUp)
    const { ms } = await timed(async () => {
      for (let n = 0; n < 1000; n++) expect(await metadata.getTag(key)).toBeUndefined()
    })
    expect(ms).toBeLessThan(500)
    await server.run()
    await until(() => metadata.usage().isUp)
    await metadata.putTag(key, tag)
    expect(await metadata.getTag(key)).toEqual(tag)
    expect(failures.map(({ operation }) => operation)).toEqual(['redis.unavailable'])
    expect(lines).toEqual(['redis answers again'])
  })
})

describe('Redis slow', () => {
  it('F-60: costs at most three time-outs, then nothing, until it answers again', async () => {
    const server = await started()
    const { metadata, failures } = await opened(server)
    await metadata.putTag(key, tag)
    server.stand()
    for (let n = 0; n < 3; n++) {
      const { result, ms } = await timed(() => metadata.getTag(key))
      expect(result).toBeUndefined()
      expect(ms).toBeLessThan(900)
    }
    const { ms } = await timed(async () => {
      for (let n = 0; n < 100; n++) expect(await metadata.getTag(key)).toBeUndefined()
    })
    expect(ms).toBeLessThan(200)
    expect(failures.map(({ operation }) => operation)).toEqual(['redis.unavailable'])
    expect(String(failures[0]?.error)).toContain('does not answer in time')

    server.goOn()
    await until(() => metadata.usage().isUp)
    expect(await metadata.getTag(key)).toEqual(tag)
  })

  it('F-60: many who ask at once wait one time-out together', async () => {
    const server = await started()
    const { metadata } = await opened(server)
    server.stand()
    const { ms } = await timed(() => Promise.all(Array.from({ length: 500 }, () => metadata.getTag(key))))
    expect(ms).toBeLessThan(900)
    server.goOn()
  })

  it('F-68: one that stands still when it is dialled holds up the start for two seconds at most', async () => {
    const server = await started()
    server.stand()
    const { result, ms } = await timed(() => opened(server))
    expect(ms).toBeLessThan(3000)
    expect(result.metadata.usage().isUp).toBe(false)
    server.goOn()
    await until(() => result.metadata.usage().isUp)
  })
})

describe('Redis that takes no writes', () => {
  it('F-62: full with noeviction: what is there is served, one line is logged, and it recovers', async () => {
    const server = await started(['maxmemory-policy', 'noeviction'])
    const { metadata, failures, lines } = await opened(server)
    await metadata.putTag(key, tag)
    await server.admin.config('SET', 'maxmemory', '1kb')
    for (let n = 0; n < 10; n++) {
      await metadata.putManifest(manifest)
      await metadata.putTag({ ...key, tag: `t${n}` }, tag)
      expect(await metadata.getTag(key)).toEqual(tag)
    }
    await metadata.deleteLink('docker.io', 'a', manifest.digest)
    expect(failures.map(({ operation, error }) => `${operation} ${String(error)}`)).toEqual([
      expect.stringMatching(/^redis\.write .*noeviction/),
    ])
    expect(metadata.usage()).toEqual({ isUp: true, refusals: ['write: OOM'] })
    await server.admin.config('SET', 'maxmemory', '0')
    await metadata.putManifest(manifest)
    expect((await metadata.getManifest(manifest.digest))?.mediaType).toBe(manifest.mediaType)
    expect(metadata.usage().refusals).toEqual([])
    expect(lines).toHaveLength(1)
  })

  it('F-62: under every eviction policy a full Redis is misses and nothing else', async () => {
    const server = await started(['maxmemory', '2mb'])
    const { metadata, failures } = await opened(server)
    for (const policy of [
      'allkeys-lru',
      'allkeys-lfu',
      'allkeys-random',
      'volatile-lru',
      'volatile-ttl',
      'volatile-random',
    ]) {
      await server.admin.config('SET', 'maxmemory-policy', policy)
      for (let n = 0; n < 200; n++) {
        const large = Buffer.from(JSON.stringify({ policy, n, filler: 'x'.repeat(10_000) }))
        const record = { ...manifest, digest: digestOf(large), bytes: large }
        await metadata.putManifest(record)
        const found = await metadata.getManifest(record.digest)
        expect(found === undefined || large.equals(found.bytes)).toBe(true)
      }
    }
    expect(failures).toEqual([])
    expect(Number(/evicted_keys:(\d+)/.exec(await server.admin.info('stats'))?.[1])).toBeGreaterThan(0)
  })

  it('F-61: a master that has become a replica is left for the new one, and that is told once', async () => {
    const server = await started()
    const other = await started()
    const { metadata, failures } = await opened(server)
    await metadata.putTag(key, tag)
    await server.admin.config('SET', 'replica-serve-stale-data', 'yes')
    await server.admin.replicaof('127.0.0.1', String(other.port))
    await metadata.putTag({ ...key, tag: 'refused' }, tag)
    expect(failures.map(({ operation }) => operation)).toEqual(['redis.write'])
    expect(String(failures[0]?.error)).toContain('is a replica')
    await server.admin.replicaof('NO', 'ONE')
    await until(async () => {
      await metadata.putTag({ ...key, tag: 'taken' }, tag)
      return (await metadata.getTag({ ...key, tag: 'taken' })) !== undefined
    })
    // The connection to what was a replica was given up, once.
    expect(failures.map(({ operation }) => operation)).toEqual(['redis.write', 'redis.unavailable'])
    expect(metadata.usage()).toEqual({ isUp: true, refusals: [] })
  })
})

describe('the ACL user', () => {
  it('T-58: of docs/redis.md can do all that is done, and nothing else', async () => {
    const server = await started()
    await server.admin.call('ACL', 'SETUSER', 'layover', 'on', '>right', ...documentedRules())
    const access = { username: 'layover', password: 'right', keyPrefix: 'layover' }
    const { metadata, failures } = await opened(server, access)
    await metadata.putManifest(manifest)
    await metadata.putTag(key, tag)
    await metadata.putLinks('docker.io', 'a', [manifest.digest], 'named')
    await metadata.putLinks('docker.io', 'a', [manifest.digest], 'confirmed')
    await metadata.putDocument('d', { bytes, mediaType: 'a/b', storedAt: 1, attributes: {} })
    expect(await metadata.getManifest(manifest.digest)).toBeDefined()
    expect(await metadata.getTag(key)).toEqual(tag)
    expect(await metadata.knownTags(key.upstream, key.repository)).toEqual([key.tag])
    expect(await metadata.getLink('docker.io', 'a', manifest.digest)).toBe('confirmed')
    expect(await metadata.isConfirmedAt('docker.io', manifest.digest)).toBe(true)
    await metadata.deleteLink('docker.io', 'a', manifest.digest)
    await metadata.deleteTag(key)
    await metadata.deleteManifest(manifest.digest)
    await metadata.close()

    const { observer } = recordingObserver()
    const config = redisConfig({ kind: 'url', url: server.url.replace(/0$/, '3') }, access)
    const connection = new RedisConnection({ config, observer })
    onTestFinished(() => connection.close())
    await connection.settled(2000)
    const lease = await new RedisLeases({ connection, keyPrefix: 'layover' }).acquire(manifest.digest, {
      url: 'http://10.0.0.1:5002',
    })
    if (lease === undefined || 'heldBy' in lease) throw new Error('no lease')
    expect(await lease.renew(1)).toBe(true)
    await lease.release()

    expect(failures).toEqual([])
    expect(await server.admin.call('ACL', 'LOG')).toEqual([])
    for (const forbidden of [
      'KEYS *',
      'FLUSHALL',
      'CONFIG GET *',
      'SCRIPT FLUSH',
      'ACL LIST',
      'GET other',
      'SUBSCRIBE x',
    ])
      expect(String(await server.admin.call('ACL', 'DRYRUN', 'layover', ...forbidden.split(' ')))).not.toBe('OK')
  })

  it('F-73: a wrong password is told once, without the password, and a rotated one is taken up', async () => {
    const server = await started()
    await server.admin.call('ACL', 'SETUSER', 'layover', 'on', '>canary-new', ...documentedRules())
    const directory = mkdtempSync(join(tmpdir(), 'layover-password-'))
    onTestFinished(() => rmSync(directory, { recursive: true }))
    const passwordFile = join(directory, 'password')
    writeFileSync(passwordFile, 'canary-old\n')
    const { metadata, failures } = await opened(server, { username: 'layover', passwordFile, keyPrefix: 'layover' })
    expect(metadata.usage().isUp).toBe(false)
    expect(failures.map(({ operation }) => operation)).toEqual(['redis.unavailable'])
    const [failure] = failures
    expect(String(failure?.error)).toContain('refuses user name or password')
    expect(JSON.stringify(failure?.error, Object.getOwnPropertyNames(failure?.error))).not.toContain('canary')

    writeFileSync(passwordFile, 'canary-new\n')
    await until(() => metadata.usage().isUp)
    await metadata.putTag(key, tag)
    expect(await metadata.getTag(key)).toEqual(tag)
  })
})
