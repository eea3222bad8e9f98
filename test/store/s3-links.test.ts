import { createHash, randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import type { RedirectConfig } from '../../src/config/config.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { createS3Client } from '../../src/store/s3-client.ts'
import { S3Links } from '../../src/store/s3-links.ts'
import { FakeClock } from '../fakes/clock.ts'
import { accessKeyId, type FakeS3, secretAccessKey } from '../fakes/s3.ts'
import { publish } from './opened.ts'
import { fakeBucket, openedS3 } from './s3-opened.ts'

const redirect: RedirectConfig = { networks: [], minBytes: 0, ttlMs: 900_000, endpoint: undefined }
const bytes = randomBytes(10_000)
const digest = digestOf(bytes)

/** A bucket that holds one blob, uploaded from a hot tier that is still there. */
async function openedWithBlob(bucket: FakeS3) {
  const opened = await openedS3({ config: bucket.config({ redirect }) })
  await publish(opened.stores, bytes)
  opened.shared.enqueue(digest, bytes.length)
  return opened
}

describe('links into the bucket', () => {
  it('P-63: lead to the bytes, once they are there and not while they are on their way', async () => {
    const bucket = await fakeBucket()
    bucket.break('PUT', { kind: 'status', status: 503, code: 'SlowDown' })
    const { shared } = await openedWithBlob(bucket)
    expect(await shared.link(digest)).toBeUndefined()
    bucket.heal()
    await shared.idle()
    const link = await shared.link(digest)
    expect(link?.size).toBe(bytes.length)
    expect(Buffer.from(await (await fetch(link?.url ?? '')).arrayBuffer()).equals(bytes)).toBe(true)
  })

  it('P-63: nobody is sent to what is not there, or is not to be believed', async () => {
    const bucket = await fakeBucket()
    const { shared } = await openedWithBlob(bucket)
    await shared.idle()
    expect(await shared.link(digestOf(randomBytes(10)))).toBeUndefined()
    bucket.break('DELETE', { kind: 'status', status: 403, code: 'AccessDenied' })
    await expect(shared.delete(digest)).rejects.toMatchObject({ reason: 'denied' })
    expect(await shared.link(digest)).toBeUndefined()
  })

  it('P-63: what was seen a while ago is looked at again: another replica may have deleted it', async () => {
    const bucket = await fakeBucket()
    const { shared, clock } = await openedWithBlob(bucket)
    await shared.idle()
    expect(await shared.link(digest)).toBeDefined()
    bucket.objects.clear()
    clock.advance(30_001)
    expect(await shared.link(digest)).toBeUndefined()
  })

  it('F-54, P-63: nobody is sent to an object of which the service says that it holds other bytes', async () => {
    const bucket = await fakeBucket()
    const { shared, clock, stores } = await openedWithBlob(bucket)
    await shared.idle()
    const [[key, object] = ['', { bytes: Buffer.alloc(0), headers: {} }]] = bucket.objects
    const other = randomBytes(bytes.length)
    const checksum = createHash('sha256').update(other).digest('base64')
    bucket.objects.set(key, { bytes: other, headers: { ...object.headers, 'x-amz-checksum-sha256': checksum } })
    clock.advance(30_001)
    expect(await shared.link(digest)).toBeUndefined()
    // It is overwritten by whoever has the right bytes.
    expect(await stores.blobs.size(digest)).toBe(bytes.length)
    clock.advance(300_001)
    shared.enqueue(digest, bytes.length)
    await shared.idle()
    expect(bucket.objects.get(key)?.bytes.equals(bytes)).toBe(true)
    expect(await shared.link(digest)).toBeDefined()
  })

  it('P-65: one URL serves for half of its life, so that each client has the other half', async () => {
    const bucket = await fakeBucket()
    const { shared, clock } = await openedWithBlob(bucket)
    await shared.idle()
    const [first, together] = await Promise.all([shared.link(digest), shared.link(digest)])
    expect(together?.url).toBe(first?.url)
    clock.advance(redirect.ttlMs / 2 - 1)
    expect((await shared.link(digest))?.url).toBe(first?.url)
    // A signature made in the same second is the same: the date in it moves with the wall clock.
    const signedAt = dateOf(first?.url)
    await expect.poll(() => Math.floor(Date.now() / 1000)).toBeGreaterThan(signedAt)
    clock.advance(2)
    expect(dateOf((await shared.link(digest))?.url)).toBeGreaterThan(signedAt)
  })

  it('are signed for the address by which clients reach the bucket', async () => {
    const bucket = await fakeBucket()
    const endpoint = bucket.endpoint.replace('127.0.0.1', 'localhost')
    const { shared, stores } = await openedS3({ config: bucket.config({ redirect: { ...redirect, endpoint } }) })
    await publish(stores, bytes)
    shared.enqueue(digest, bytes.length)
    await shared.idle()
    const { url = '' } = (await shared.link(digest)) ?? {}
    expect(new URL(url).origin).toBe(endpoint)
    expect((await fetch(url)).status).toBe(200)
  })

  it('P-65: are not given when the credentials end before half of their life has passed', async () => {
    const expiresInMs = { now: redirect.ttlMs }
    const bucket = await fakeBucket()
    const config = bucket.config()
    const client = createS3Client(config, {
      credentials: async () => ({ accessKeyId, secretAccessKey, expiration: new Date(Date.now() + expiresInMs.now) }),
    })
    const links = new S3Links({ config, redirect, clock: new FakeClock(), client })
    expect(await links.urlOf(digest)).toMatch(/^http/)
    expiresInMs.now = redirect.ttlMs / 2 - 1_000
    const late = new S3Links({
      config,
      redirect,
      clock: new FakeClock(),
      client: createS3Client(config, {
        credentials: async () => ({ accessKeyId, secretAccessKey, expiration: new Date(Date.now() + expiresInMs.now) }),
      }),
    })
    expect(await late.urlOf(digest)).toBeUndefined()
    for (const each of [links, late]) each.close()
    client.destroy()
  })
})

/** When it was signed, in seconds of the epoch. */
function dateOf(url: string | undefined): number {
  const text = new URL(url ?? '').searchParams.get('X-Amz-Date') ?? ''
  return Date.parse(text.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z')) / 1000
}
