import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { linkKey, manifestKey, tagObjectKey } from '../../src/store/archive-keys.ts'
import { RedisServer } from '../fakes/redis.ts'
import { accessKeyId, FakeS3, secretAccessKey } from '../fakes/s3.ts'
import { type Finished, layover } from './process.ts'

const mediaType = 'application/vnd.oci.image.manifest.v1+json'
const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, layers: [] }))
const digest = digestOf(bytes)
const at = { upstream: 'docker.io', repository: 'library/alpine' }

async function bucketWithRecords(): Promise<FakeS3> {
  const bucket = await FakeS3.start()
  onTestFinished(() => bucket.stop())
  const tag = JSON.stringify({ digest, mediaType, size: bytes.byteLength, checkedAt: 42 })
  const put = (key: string | undefined, content: Buffer): void =>
    void bucket.objects.set(`site/${key}`, { bytes: content, headers: { 'content-type': mediaType } })
  put(manifestKey(digest), bytes)
  put(linkKey({ ...at, digest }), Buffer.alloc(0))
  put(tagObjectKey({ ...at, tag: '3.20' }), Buffer.from(tag))
  return bucket
}

async function reindex(config: object, ...flags: readonly string[]): Promise<Finished> {
  const cwd = mkdtempSync(join(tmpdir(), 'layover-reindex-'))
  onTestFinished(() => rmSync(cwd, { recursive: true, force: true }))
  writeFileSync(join(cwd, 'layover.yaml'), JSON.stringify(config))
  const env = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey }
  return layover(['reindex', ...flags], { cwd, env })
}

const s3Of = (bucket: FakeS3) => ({
  bucket: bucket.bucket,
  prefix: 'site/',
  endpoint: bucket.endpoint,
  pathStyle: true,
})

describe('layover reindex', () => {
  it('F-63: fills an empty Redis from the bucket, twice with the same result', async () => {
    const bucket = await bucketWithRecords()
    const redis = await RedisServer.start()
    onTestFinished(() => redis.stop())
    const config = { s3: s3Of(bucket), redis: { url: redis.url } }
    const first = await reindex(config)
    expect([first.code, first.out]).toEqual([0, ''])
    expect(first.err).toContain('manifests: 1 restored, 0 were there, 0 ignored')
    expect(first.err).toContain('tags: 1 restored')
    expect(await redis.admin.keys('*')).toHaveLength(5)
    const second = await reindex(config)
    expect(second.code).toBe(0)
    expect(second.err).toContain('links: 0 restored, 1 were there, 0 ignored')
    expect(await redis.admin.keys('*')).toHaveLength(5)
  })

  it('exit codes: 1 without a bucket or with a key of others, 2 when Redis or the bucket is away', async () => {
    const bucket = await bucketWithRecords()
    const s3 = s3Of(bucket)
    const away = { url: 'redis://127.0.0.1:1' }
    const [nothing, key, noRedis] = await Promise.all([
      reindex({}),
      reindex({ s3, redis: away }, '--after', 'blobs/x'),
      reindex({ s3, redis: away }, '--after', `manifests/sha256/ab`),
    ])
    expect([nothing.code, key.code, noRedis.code]).toEqual([1, 1, 2])
    expect(noRedis.err).toContain("go on with: layover reindex --after 'manifests/sha256/ab'")
    const redis = await RedisServer.start()
    onTestFinished(() => redis.stop())
    bucket.break('GET', { kind: 'status', status: 503, code: 'SlowDown' })
    const noBucket = await reindex({ s3, redis: { url: redis.url } })
    expect([noBucket.code, noBucket.out]).toEqual([2, ''])
    expect(noBucket.err).toContain('stopped: ')
    expect(noBucket.err).not.toContain(secretAccessKey)
  })
})
