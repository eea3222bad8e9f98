import { randomBytes } from 'node:crypto'
import {
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
} from '@aws-sdk/client-s3'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import type { S3Config } from '../../src/config/config.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { createS3Client } from '../../src/store/s3-client.ts'
import { keyOf } from '../../src/store/s3-key.ts'
import { type Radosgw, startRadosgw } from '../fakes/radosgw.ts'
import { publish } from './opened.ts'
import { expectHonestKeys, openedS3, readShared, useCredentials } from './s3-opened.ts'

const mebibyte = 1024 * 1024
let service: Radosgw
let buckets = 0

beforeAll(async () => {
  service = await startRadosgw()
}, 120_000)
afterAll(() => service?.stop())
beforeEach(() => useCredentials('testkey', 'testsecret'))

/** A new bucket; when the test ends everything in it hashes to its key. */
async function newBucket(changes: Partial<S3Config> = {}): Promise<S3Config> {
  buckets += 1
  const config: S3Config = {
    bucket: `layover-${buckets}`,
    prefix: 'some/prefix/',
    endpoint: service.endpoint,
    region: 'us-east-1',
    pathStyle: true,
    sse: undefined,
    storageClass: undefined,
    tags: {},
    multipartBytes: 5 * mebibyte,
    uploads: 4,
    requestTimeoutMs: 10_000,
    ...changes,
  }
  await withClient(config, client => client.send(new CreateBucketCommand({ Bucket: config.bucket })))
  onTestFinished(async () => expectHonestKeys(await contentsOf(config), config.prefix))
  return config
}

async function withClient<Result>(
  config: S3Config,
  use: (client: ReturnType<typeof createS3Client>) => Promise<Result>,
): Promise<Result> {
  const client = createS3Client(config)
  try {
    return await use(client)
  } finally {
    client.destroy()
  }
}

function contentsOf(config: S3Config): Promise<{ readonly key: string; readonly bytes: Uint8Array }[]> {
  return withClient(config, async client => {
    const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket: config.bucket }))
    return Promise.all(
      Contents.map(async ({ Key = '' }) => {
        const { Body } = await client.send(new GetObjectCommand({ Bucket: config.bucket, Key }))
        return { key: Key, bytes: (await Body?.transformToByteArray()) ?? new Uint8Array() }
      }),
    )
  })
}

describe('a real S3 service', () => {
  it('takes blobs of every size and gives them back from any offset', async () => {
    const config = await newBucket({ tags: { app: 'layover' } })
    const opened = await openedS3({ config })
    const blobs = [0, 1, 100_000, 5 * mebibyte, 12 * mebibyte + 3].map(size => randomBytes(size))
    for (const bytes of blobs) opened.shared.enqueue(await publish(opened.stores, bytes), bytes.byteLength)
    await opened.shared.idle()
    expect(opened.failures).toEqual([])
    expect((await contentsOf(config)).map(({ key }) => key).sort()).toEqual(
      blobs.map(bytes => keyOf(config.prefix, digestOf(bytes))).sort(),
    )
    const reader = await openedS3({ config })
    for (const bytes of blobs) {
      const digest = digestOf(bytes)
      expect(await reader.shared.size(digest)).toBe(bytes.byteLength)
      expect((await readShared(reader.shared, digest))?.equals(bytes)).toBe(true)
    }
    for (const bytes of blobs.filter(({ byteLength }) => byteLength > 1)) {
      const offset = bytes.byteLength >> 1
      const rest = await readShared(reader.shared, digestOf(bytes), { offset })
      expect(rest?.equals(bytes.subarray(offset))).toBe(true)
    }
  })

  it('is probed for what it can do: this one honours conditional puts and takes no notice of checksums', async () => {
    const config = await newBucket()
    const opened = await openedS3({ config })
    opened.shared.enqueue(await publish(opened.stores, randomBytes(10)), 10)
    await opened.shared.idle()
    expect(opened.shared.abilities()).toEqual({
      conditionalPuts: 'honoured',
      checksums: 'ignored',
      deletes: true,
      absentIs403: false,
    })
    expect(await contentsOf(config)).toHaveLength(1)
  })

  it('stores a blob once when many replicas upload it at the same moment', async () => {
    const config = await newBucket()
    const bytes = randomBytes(2 * mebibyte)
    const replicas = await Promise.all(Array.from({ length: 4 }, () => openedS3({ config })))
    for (const { stores, shared } of replicas) shared.enqueue(await publish(stores, bytes), bytes.byteLength)
    await Promise.all(replicas.map(({ shared }) => shared.idle()))
    expect(replicas.flatMap(({ failures }) => failures)).toEqual([])
    expect(await contentsOf(config)).toHaveLength(1)
  })

  it('says that an object is absent, and forgets what is deleted', async () => {
    const config = await newBucket()
    const opened = await openedS3({ config })
    const bytes = randomBytes(1000)
    const digest = digestOf(bytes)
    expect(await opened.shared.open(digest, { offset: 0 })).toBeUndefined()
    opened.clock.advance(2_001)
    expect(await opened.shared.size(digest)).toBeUndefined()
    opened.shared.enqueue(await publish(opened.stores, bytes), bytes.byteLength)
    await opened.shared.idle()
    expect(await opened.shared.size(digest)).toBe(1000)
    await opened.shared.delete(digest)
    await opened.shared.delete(digest)
    expect(await opened.shared.size(digest)).toBeUndefined()
    expect(await contentsOf(config)).toEqual([])
  })

  it('F-33: loses the multipart uploads of the dead at the start of a replica', async () => {
    const config = await newBucket()
    const key = keyOf(config.prefix, digestOf(randomBytes(10)))
    await withClient(config, client =>
      client.send(new CreateMultipartUploadCommand({ Bucket: config.bucket, Key: key })),
    )
    const opened = await openedS3({ config, aheadMs: 400 * 24 * 3_600_000 })
    const left = (): Promise<number> =>
      withClient(config, async client => {
        const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: config.bucket }))
        return Uploads.length
      })
    await expect.poll(left, { timeout: 10_000 }).toBe(0)
    expect(opened.failures).toEqual([])
  })

  it('F-56: refuses wrong keys, which is an outage and not an absent blob', async () => {
    const config = await newBucket()
    useCredentials('testkey', 'wrong')
    const opened = await openedS3({ config })
    await expect(opened.shared.open(digestOf(randomBytes(10)), { offset: 0 })).rejects.toMatchObject({
      reason: 'denied',
    })
    useCredentials('testkey', 'testsecret')
  })
})
