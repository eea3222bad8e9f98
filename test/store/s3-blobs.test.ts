import { randomBytes } from 'node:crypto'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { digestOf, hexOf } from '../../src/oci/digest.ts'
import { keyOf } from '../../src/store/s3-key.ts'
import { publish } from './opened.ts'
import { fakeBucket, openedS3, readShared } from './s3-opened.ts'

const mebibyte = 1024 * 1024

/** Published in the hot tier, uploaded, and what the test then looks at. */
async function uploaded(opened: Awaited<ReturnType<typeof openedS3>>, bytes: Buffer, algorithm?: 'sha512') {
  const digest = await publish(opened.stores, bytes, algorithm)
  opened.shared.enqueue(digest, bytes.byteLength)
  await opened.shared.idle()
  return digest
}

describe('a blob in the bucket', () => {
  it('is uploaded from the hot tier under its digest, by one PUT whose hash the service checks', async () => {
    const bucket = await fakeBucket({}, 'cache/')
    const opened = await openedS3({ config: bucket.config({ prefix: 'cache/' }) })
    const bytes = randomBytes(3 * mebibyte + 17)
    const digest = await uploaded(opened, bytes)
    const key = `cache/blobs/sha256/${hexOf(digest).slice(0, 2)}/${hexOf(digest)}`
    expect(bucket.objects.get(key)?.bytes.equals(bytes)).toBe(true)
    const puts = bucket.seen.filter(seen => seen.method === 'PUT' && seen.key === key)
    expect(puts).toHaveLength(1)
    expect(puts[0]?.headers).toMatchObject({
      'content-length': String(bytes.byteLength),
      'x-amz-content-sha256': hexOf(digest),
      'x-amz-checksum-sha256': Buffer.from(hexOf(digest), 'hex').toString('base64'),
      'if-none-match': '*',
    })
    expect(opened.bytes.uploaded).toBe(bytes.byteLength)
    expect(opened.shared.pending()).toEqual({ uploads: 0, bytes: 0 })
    expect(opened.failures).toEqual([])
  })

  it('is uploaded under a sha512 digest as well, with a hash that the service can check', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const bytes = randomBytes(100_000)
    const digest = await uploaded(opened, bytes, 'sha512')
    expect(bucket.objects.get(keyOf('', digest))?.bytes.equals(bytes)).toBe(true)
    const put = bucket.seen.find(seen => seen.method === 'PUT' && seen.key === keyOf('', digest))
    expect(put?.headers['x-amz-content-sha256']).toBe(hexOf(digestOf(bytes)))
  })

  it('is uploaded when it is empty', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const digest = await uploaded(opened, Buffer.alloc(0))
    expect(bucket.objects.get(keyOf('', digest))?.bytes.byteLength).toBe(0)
    expect(await readShared(opened.shared, digest)).toEqual(Buffer.alloc(0))
  })

  it('is kept as the configuration says: encryption, storage class, tags', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({
      config: bucket.config({
        sse: { kmsKeyId: 'key-1' },
        storageClass: 'STANDARD_IA',
        tags: { team: 'a b', app: 'x&y' },
      }),
    })
    const digest = await uploaded(opened, randomBytes(1000))
    expect(bucket.objects.get(keyOf('', digest))?.headers).toMatchObject({
      'x-amz-server-side-encryption': 'aws:kms',
      'x-amz-server-side-encryption-aws-kms-key-id': 'key-1',
      'x-amz-storage-class': 'STANDARD_IA',
      'x-amz-tagging': 'team=a%20b&app=x%26y',
    })
  })

  it('P-72: goes there in parts when it is large, and no multipart upload is left', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config({ multipartBytes: mebibyte, sse: 'AES256' }) })
    const bytes = randomBytes(3 * mebibyte + 5)
    const digest = await uploaded(opened, bytes)
    const stored = bucket.objects.get(keyOf('', digest))
    expect(stored?.bytes.equals(bytes)).toBe(true)
    expect(stored?.headers['x-amz-server-side-encryption']).toBe('AES256')
    expect(bucket.seen.filter(seen => seen.query.has('partNumber'))).toHaveLength(4)
    expect(bucket.multiparts.size).toBe(0)
    expect(readdirSync(join(opened.dataDir, 'uploads'))).toEqual([])
  })

  it('is not sent again when it is there: the first replica wins', async () => {
    const bucket = await fakeBucket()
    const [first, second] = [await openedS3({ config: bucket.config() }), await openedS3({ config: bucket.config() })]
    const bytes = randomBytes(mebibyte)
    const digest = await uploaded(first, bytes)
    await uploaded(second, bytes)
    expect(second.bytes.uploaded).toBe(0)
    expect(bucket.seen.filter(seen => seen.method === 'PUT' && seen.key === keyOf('', digest))).toHaveLength(1)
  })

  it('F-54: replaces an object of another size, which cannot be right', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const bytes = randomBytes(10_000)
    bucket.objects.set(keyOf('', digestOf(bytes)), { bytes: Buffer.alloc(0), headers: {} })
    const digest = await uploaded(opened, bytes)
    expect(bucket.objects.get(keyOf('', digest))?.bytes.equals(bytes)).toBe(true)
  })

  it('T-26: is overwritten when its bytes were found to be wrong and it could not be deleted', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const bytes = randomBytes(10_000)
    const key = keyOf('', digestOf(bytes))
    bucket.objects.set(key, { bytes: Buffer.from(bytes.toReversed()), headers: {} })
    bucket.break(`DELETE ${hexOf(digestOf(bytes))}`, { kind: 'status', status: 403, code: 'AccessDenied' })
    await expect(opened.shared.delete(digestOf(bytes))).rejects.toMatchObject({ reason: 'denied' })
    // Until then it is as if it were not there.
    expect(await readShared(opened.shared, digestOf(bytes))).toBeUndefined()
    await uploaded(opened, bytes)
    expect(bucket.objects.get(key)?.bytes.equals(bytes)).toBe(true)
    expect((await readShared(opened.shared, digestOf(bytes)))?.equals(bytes)).toBe(true)
  })

  it('T-26: is overwritten also when somebody asked for its size meanwhile, and it has none for them', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const bytes = randomBytes(10_000)
    const key = keyOf('', digestOf(bytes))
    bucket.objects.set(key, { bytes: Buffer.from(bytes.toReversed()), headers: {} })
    bucket.break(`DELETE ${hexOf(digestOf(bytes))}`, { kind: 'status', status: 403, code: 'AccessDenied' })
    await expect(opened.shared.delete(digestOf(bytes))).rejects.toMatchObject({ reason: 'denied' })
    expect(await opened.shared.size(digestOf(bytes))).toBeUndefined()
    await uploaded(opened, bytes)
    expect(bucket.objects.get(key)?.bytes.equals(bytes)).toBe(true)
    expect(await opened.shared.size(digestOf(bytes))).toBe(bytes.length)
  })

  it('T-26: is overwritten also when its size was asked for before it was to be deleted, and told afterwards', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const bytes = randomBytes(10_000)
    const key = keyOf('', digestOf(bytes))
    bucket.objects.set(key, { bytes: Buffer.from(bytes.toReversed()), headers: {} })
    bucket.break(`DELETE ${hexOf(digestOf(bytes))}`, { kind: 'status', status: 403, code: 'AccessDenied' })
    const asked = opened.shared.size(digestOf(bytes))
    const deleted = opened.shared.delete(digestOf(bytes)).catch(() => undefined)
    await Promise.all([asked, deleted])
    await uploaded(opened, bytes)
    expect(bucket.objects.get(key)?.bytes.equals(bytes)).toBe(true)
  })

  it('is read from any offset by a signed URL that is used again', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const bytes = randomBytes(2 * mebibyte)
    const digest = await uploaded(opened, bytes)
    expect((await readShared(opened.shared, digest))?.equals(bytes)).toBe(true)
    expect((await readShared(opened.shared, digest, { offset: 1_000_000 }))?.equals(bytes.subarray(1_000_000))).toBe(
      true,
    )
    const part = await readShared(opened.shared, digest, { offset: 5, end: 9 })
    expect(part?.equals(bytes.subarray(5, 10))).toBe(true)
    const gets = bucket.seen.filter(seen => seen.method === 'GET' && seen.key === keyOf('', digest))
    expect(gets.map(seen => seen.signed)).toEqual(['url', 'url', 'url'])
    expect(new Set(gets.map(seen => seen.query.get('X-Amz-Signature'))).size).toBe(1)
    expect(opened.bytes.read).toBe(2 * mebibyte + (2 * mebibyte - 1_000_000) + 5)
  })

  it('tells the whole size whatever part is read, and the size alone by HEAD', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const bytes = randomBytes(1000)
    const digest = digestOf(bytes)
    bucket.objects.set(keyOf('', digest), { bytes, headers: {} })
    expect(await Promise.all([opened.shared.size(digest), opened.shared.size(digest)])).toEqual([1000, 1000])
    expect(bucket.seen.filter(seen => seen.method === 'HEAD' && seen.key === keyOf('', digest))).toHaveLength(1)
    const blob = await opened.shared.open(digest, { offset: 900, end: 2000 })
    expect(blob).toMatchObject({ offset: 900, size: 1000 })
    blob?.body.resume()
  })

  it('is absent when it is not there; that is remembered for two seconds', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const digest = digestOf(randomBytes(10))
    expect(await opened.shared.open(digest, { offset: 0 })).toBeUndefined()
    expect(await opened.shared.size(digest)).toBeUndefined()
    const asked = (): number => bucket.seen.filter(seen => seen.key === keyOf('', digest)).length
    expect(asked()).toBe(1)
    opened.clock.advance(2_001)
    expect(await opened.shared.size(digest)).toBeUndefined()
    expect(asked()).toBe(2)
  })

  it('is absent where missing objects are answered with 403, because listing is not allowed', async () => {
    const bucket = await fakeBucket({ mayList: false })
    const opened = await openedS3({ config: bucket.config() })
    const digest = await uploaded(opened, randomBytes(1000))
    expect(opened.shared.abilities().absentIs403).toBe(true)
    const other = digestOf(randomBytes(10))
    expect(await opened.shared.open(other, { offset: 0 })).toBeUndefined()
    opened.clock.advance(2_001)
    expect(await opened.shared.size(other)).toBeUndefined()
    expect((await readShared(opened.shared, digest))?.byteLength).toBe(1000)
  })

  it('is removed for everybody, as often as it is asked', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const digest = await uploaded(opened, randomBytes(1000))
    await opened.shared.delete(digest)
    await opened.shared.delete(digest)
    expect(bucket.objects.size).toBe(0)
    expect(await opened.shared.size(digest)).toBeUndefined()
  })

  it('that was just read from the bucket is not uploaded to it', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const bytes = randomBytes(1000)
    bucket.objects.set(keyOf('', digestOf(bytes)), { bytes, headers: {} })
    await readShared(opened.shared, digestOf(bytes))
    opened.shared.enqueue(await publish(opened.stores, bytes), bytes.byteLength)
    expect(opened.shared.pending().uploads).toBe(0)
  })
})

describe('what the endpoint can do', () => {
  it.each(['honoured', 'ignored', 'refused'] as const)('is found out and respected: %s', async support => {
    const bucket = await fakeBucket({ conditionalPuts: support, checksums: support })
    const opened = await openedS3({ config: bucket.config() })
    const digest = await uploaded(opened, randomBytes(1000))
    expect(opened.shared.abilities()).toEqual({
      conditionalPuts: support,
      checksums: support,
      deletes: true,
      absentIs403: false,
    })
    const put = bucket.seen.find(seen => seen.method === 'PUT' && seen.key === keyOf('', digest))
    expect(put?.headers['if-none-match']).toBe(support === 'refused' ? undefined : '*')
    expect([...bucket.objects.keys()]).toEqual([keyOf('', digest)])
    expect(opened.failures).toEqual([])
  })
})

describe('the queue of uploads', () => {
  it('survives a restart', async () => {
    const bucket = await fakeBucket()
    bucket.break('HEAD', { kind: 'status', status: 500, code: 'InternalError' })
    const first = await openedS3({ config: bucket.config() })
    const blobs = [randomBytes(1000), randomBytes(2000), randomBytes(3000)]
    for (const bytes of blobs) first.shared.enqueue(await publish(first.stores, bytes), bytes.byteLength)
    expect(first.shared.pending()).toEqual({ uploads: 3, bytes: 6000 })
    await first.close()
    bucket.heal()
    const second = await openedS3({ config: bucket.config(), dataDir: first.dataDir })
    await second.shared.idle()
    await second.shared.close()
    expect([...bucket.objects.keys()].sort()).toEqual(blobs.map(bytes => keyOf('', digestOf(bytes))).sort())
    expect(readdirSync(join(first.dataDir, 'uploads'))).toEqual([])
  })

  it('leaves files of other names alone and makes no key of them (T-25)', async () => {
    const bucket = await fakeBucket()
    const first = await openedS3({ config: bucket.config() })
    await first.close()
    const names = ['sha256-zz-1', `sha256-${'a'.repeat(63)}-5`, 'note.txt', `sha256-${'a'.repeat(64)}-x`]
    for (const name of names) writeFileSync(join(first.dataDir, 'uploads', name), '')
    const second = await openedS3({ config: bucket.config(), dataDir: first.dataDir })
    expect(second.shared.pending().uploads).toBe(0)
    await second.shared.close()
    expect(readdirSync(join(first.dataDir, 'uploads')).sort()).toEqual(names.sort())
  })

  it('is bounded', async () => {
    const bucket = await fakeBucket()
    bucket.break('HEAD', { kind: 'status', status: 500, code: 'InternalError' })
    const opened = await openedS3({ config: bucket.config(), maxPending: 2 })
    for (const size of [1, 2, 3]) opened.shared.enqueue(digestOf(randomBytes(20)), size)
    expect(opened.shared.pending()).toEqual({ uploads: 2, bytes: 3 })
    expect(opened.failures.map(({ operation }) => operation)).toContain('s3.queue_full')
  })

  it('skips a blob that was evicted before its turn, and says so', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    opened.shared.enqueue(digestOf(randomBytes(20)), 20)
    await opened.shared.idle()
    expect(opened.failures.map(({ operation }) => operation)).toEqual(['s3.upload_evicted'])
  })

  it('uploads nothing when the local file is damaged, and removes that file (T-26)', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const bytes = randomBytes(50_000)
    const digest = await publish(opened.stores, bytes)
    const path = join(opened.dataDir, 'blobs', 'sha256', hexOf(digest).slice(0, 2), hexOf(digest))
    writeFileSync(path, bytes.toReversed())
    opened.shared.enqueue(digest, bytes.byteLength)
    await opened.shared.idle()
    expect(bucket.objects.has(keyOf('', digest))).toBe(false)
    expect(await opened.stores.blobs.size(digest)).toBeUndefined()
    expect(opened.failures.map(({ operation }) => operation)).toEqual(['s3.upload_corrupt'])
  })

  it('keeps what waits in the hot tier longest: uploaded blobs are evicted first', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config(), maxBytes: 4 * mebibyte })
    bucket.break('PUT', { kind: 'status', status: 500, code: 'InternalError' })
    const waiting = await publish(opened.stores, randomBytes(mebibyte))
    opened.shared.enqueue(waiting, mebibyte)
    const others = []
    for (let count = 0; count < 6; count++) others.push(await publish(opened.stores, randomBytes(mebibyte)))
    expect(await opened.stores.blobs.size(waiting)).toBe(mebibyte)
    expect(await opened.stores.blobs.size(others[0] ?? waiting)).toBeUndefined()
    bucket.heal()
    await opened.shared.idle()
    expect(bucket.objects.has(keyOf('', waiting))).toBe(true)
  })
})
