import { describe, expect, it } from 'vitest'
import { allKeys } from '../../src/config/keys.ts'
import { describeConfig } from '../../src/config/show.ts'
import { problemsOf, read } from './reading.ts'

const secret = { '/etc/layover/replica': 'a-secret-of-sixteen-bytes', '/etc/layover/redis': 'redispass' }

const whole = `
redis: { url: "redis://redis.example.com:6379/1", username: layover, passwordFile: redis }
s3: { bucket: layover, prefix: /cache/, endpoint: "http://127.0.0.1:9000/", pathStyle: true, sse: AES256, tags: [team=platform, env=a=b] }
hotTier: { maxBytes: 20GiB }
replica: { url: "http://10.0.0.5:5002", secretFile: replica }
`

describe('the distributed sections', () => {
  it('are absent as long as nobody writes them', () => {
    const { config } = read('')
    expect(['s3', 'redis', 'hotTier', 'replica'].filter(key => key in config)).toEqual([])
  })

  it('are read with their defaults, and files by their absolute paths', () => {
    const { config } = read(whole, { files: secret })
    expect(config.s3).toEqual({
      bucket: 'layover',
      prefix: 'cache/',
      endpoint: 'http://127.0.0.1:9000',
      region: 'us-east-1',
      pathStyle: true,
      sse: 'AES256',
      storageClass: undefined,
      tags: { team: 'platform', env: 'a=b' },
      multipartBytes: 1024 ** 3,
      uploads: 4,
      requestTimeoutMs: 5000,
    })
    expect(config.redis).toEqual({
      endpoint: { kind: 'url', url: 'redis://redis.example.com:6379/1' },
      username: 'layover',
      password: undefined,
      passwordFile: '/etc/layover/redis',
      sentinelUsername: undefined,
      sentinelPassword: undefined,
      tls: undefined,
      keyPrefix: 'layover',
      commandTimeoutMs: 250,
    })
    expect(config.hotTier).toEqual({ maxBytes: 20 * 1024 ** 3 })
    expect(config.replica).toEqual({
      listen: { host: '0.0.0.0', port: 5002 },
      url: 'http://10.0.0.5:5002',
      secretFile: '/etc/layover/replica',
    })
  })

  it('can be set by variables alone', () => {
    const { config } = read('', {
      env: {
        LAYOVER_S3_BUCKET: 'b',
        LAYOVER_S3_KMS_KEY_ID: 'key',
        LAYOVER_HOT_TIER_MAX_BYTES: '0',
        LAYOVER_REDIS_SENTINELS: 'a.example.com:26379, b.example.com:26379',
        LAYOVER_REDIS_SERVERNAME: 'redis.internal',
      },
    })
    expect(config.s3).toMatchObject({ bucket: 'b', prefix: '', sse: { kmsKeyId: 'key' } })
    expect(config.hotTier).toEqual({ maxBytes: 0 })
    expect(config.redis).toMatchObject({
      endpoint: { kind: 'sentinels', name: 'mymaster', sentinels: [{ port: 26379 }, { host: 'b.example.com' }] },
      tls: { ca: undefined, servername: 'redis.internal' },
    })
  })

  it('P-63: clients are sent to the bucket only from networks that are named', () => {
    expect(read('s3: { bucket: b }').config.s3?.redirect).toBeUndefined()
    const { config } = read('s3: { bucket: b }', {
      env: { LAYOVER_S3_REDIRECT_NETWORKS: '10.0.0.0/8, fd00::/8, 192.0.2.1', LAYOVER_S3_REDIRECT_TTL: '1h' },
    })
    expect(config.s3?.redirect).toEqual({
      networks: [
        { address: '10.0.0.0', prefix: 8, family: 'ipv4' },
        { address: 'fd00::', prefix: 8, family: 'ipv6' },
        { address: '192.0.2.1', prefix: 32, family: 'ipv4' },
      ],
      minBytes: 1024 ** 2,
      ttlMs: 3_600_000,
      endpoint: undefined,
    })
  })

  it('take nodes of a Cluster', () => {
    const { config } = read('redis: { cluster: ["10.0.0.1:6379", "10.0.0.2:6379"], tls: true }')
    expect(config.redis?.endpoint).toEqual({
      kind: 'cluster',
      nodes: [
        { host: '10.0.0.1', port: 6379 },
        { host: '10.0.0.2', port: 6379 },
      ],
    })
    expect(config.redis?.tls).toEqual({ ca: undefined, servername: undefined })
  })

  it.each([
    ['s3: { region: eu-west-1 }', 'layover.yaml:1:1: s3: needs a bucket: set s3.bucket'],
    [
      'redis: { url: "redis://a:1", keyPrefix: "{a}" }',
      'layover.yaml:1:41: redis.keyPrefix: expected text without braces, which Redis Cluster gives a meaning, got "{a}"',
    ],
    ['redis: { keyPrefix: a }', 'layover.yaml:1:1: redis: needs exactly one of url, sentinels and cluster'],
    [
      'redis: { url: "redis://a:1", cluster: ["b:1"] }',
      'layover.yaml:1:1: redis: needs exactly one of url, sentinels and cluster',
    ],
    [
      'hotTier: { maxBytes: 1GiB }',
      'layover.yaml:1:1: hotTier: needs s3: without a bucket, storage.maxBytes is the budget',
    ],
    [
      'redis: { url: "redis://u:pass@a:1" }',
      'layover.yaml:1:15: redis.url: a URL holds no user name or password here: use username and passwordFile',
    ],
    [
      's3: { bucket: b, sse: AES256, kmsKeyId: k }',
      'layover.yaml:1:41: s3.kmsKeyId: only one of sse and kmsKeyId can be used',
    ],
    [
      's3: { bucket: b, tags: [team] }',
      'layover.yaml:1:25: s3.tags[0]: expected a tag such as team=platform, got "team"',
    ],
    [
      's3: { bucket: b, multipartAbove: 6GiB }',
      'layover.yaml:1:34: s3.multipartAbove: expected at most 5GiB, got "6GiB"',
    ],
    [
      's3: { bucket: b, redirect: { networks: [10.0.0.0/33] } }',
      'layover.yaml:1:41: s3.redirect.networks[0]: expected a network such as 10.0.0.0/8 or fd00::/8, got "10.0.0.0/33"',
    ],
    [
      's3: { bucket: b, redirect: { endpoint: "https://b" } }',
      'layover.yaml:1:18: s3.redirect: needs networks: without them nobody is sent to the bucket',
    ],
    [
      's3: { bucket: b, redirect: { networks: [10.0.0.0/8], ttl: 8d } }',
      'layover.yaml:1:59: s3.redirect.ttl: expected at most 7d',
    ],
    ['s3: { bukcet: b }', 'layover.yaml:1:7: s3.bukcet: no such setting, did you mean bucket?'],
  ])('%s is a problem that names its place', (yaml, problem) => {
    expect(problemsOf(yaml)).toContain(problem)
  })

  it('T-19: a replica needs Redis, an address of its own and a secret that is long enough', () => {
    const files = { '/etc/layover/short': 'too short' }
    expect(problemsOf('replica: { secretFile: short, url: "http://a:1/x" }', { files })).toEqual([
      'layover.yaml:1:36: replica.url: expected a URL without a path, such as http://10.0.0.5:5002',
    ])
    expect(problemsOf('replica: { secretFile: short, url: "http://a:1" }', { files })).toEqual([
      'layover.yaml:1:1: replica: needs redis: there the replicas find out who downloads what',
      'layover.yaml:1:24: replica.secretFile: short: is too short: at least 16 bytes',
    ])
  })

  it('T-10: are shown without secrets, only where they are written, and can be read again', () => {
    const loaded = read(`${whole}\ndrain: 1m`, {
      files: secret,
      env: { LAYOVER_REDIS_SENTINEL_PASSWORD: 'hunter2canary' },
    })
    const shown = describeConfig(loaded)
    expect(shown).not.toContain('hunter2canary')
    expect(shown).toContain('sentinelPassword: "***"')
    const again = read(shown, { files: secret }).config
    expect({ ...again.s3, ...again.hotTier }).toEqual({ ...loaded.config.s3, ...loaded.config.hotTier })
    expect(describeConfig(read(''))).not.toMatch(/^(s3|redis|replica|hotTier):/m)
  })

  it('have keys that are all described', () => {
    const keys = allKeys().filter(({ path }) => ['s3', 'redis', 'hotTier', 'replica'].includes(path[0] ?? ''))
    expect(keys.length).toBeGreaterThan(25)
  })
})
