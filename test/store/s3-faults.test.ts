import { randomBytes } from 'node:crypto'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { describeError } from '../../src/log/redact.ts'
import { digestOf, hexOf } from '../../src/oci/digest.ts'
import { S3Error } from '../../src/store/s3-error.ts'
import type { Wait } from '../../src/store/hedged.ts'
import { keyOf } from '../../src/store/s3-key.ts'
import type { S3Fault } from '../fakes/s3.ts'
import { secretAccessKey } from '../fakes/s3.ts'
import { publish } from './opened.ts'
import { fakeBucket, openedS3, readShared, useCredentials } from './s3-opened.ts'

const mebibyte = 1024 * 1024

async function reasonOf(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => undefined,
    (error: unknown) => error,
  )
  return error instanceof S3Error ? error.reason : `no S3Error: ${String(error)}`
}

/** An object that is there without an upload. */
async function filled(size: number, changes = {}, wait?: Wait) {
  const bucket = await fakeBucket()
  const opened = await openedS3({ config: bucket.config(changes), ...(wait && { wait }) })
  const bytes = randomBytes(size)
  const digest = digestOf(bytes)
  bucket.objects.set(keyOf('', digest), { bytes, headers: {} })
  return { bucket, opened, bytes, digest }
}

describe('uploads', () => {
  const faults: readonly (readonly [string, string, S3Fault])[] = [
    ['F-47: 503 SlowDown', 'PUT', { kind: 'status', status: 503, code: 'SlowDown' }],
    ['500', 'PUT', { kind: 'status', status: 500, code: 'InternalError' }],
    ['409', 'PUT', { kind: 'status', status: 409, code: 'ConditionalRequestConflict' }],
    ['F-56: 403', 'PUT', { kind: 'status', status: 403, code: 'AccessDenied' }],
    ['a cut connection', 'PUT', { kind: 'cut', after: 0 }],
    ['a HEAD that fails', 'HEAD', { kind: 'status', status: 503, code: 'SlowDown' }],
  ]

  it.each(faults)('arrive after %s', async (_, which, fault) => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    bucket.break(which, fault, 5)
    const blobs = Array.from({ length: 4 }, () => randomBytes(100_000))
    for (const bytes of blobs) opened.shared.enqueue(await publish(opened.stores, bytes), bytes.byteLength)
    await opened.shared.idle()
    expect([...bucket.objects.keys()].sort()).toEqual(blobs.map(bytes => keyOf('', digestOf(bytes))).sort())
    expect(opened.failures.length).toBeGreaterThan(0)
    expect(opened.shared.pending()).toEqual({ uploads: 0, bytes: 0 })
  })

  it('412: somebody was first, which is as good', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config() })
    const warmUp = await publish(opened.stores, randomBytes(10))
    opened.shared.enqueue(warmUp, 10)
    await opened.shared.idle()
    bucket.break('PUT', { kind: 'status', status: 412, code: 'PreconditionFailed' })
    opened.shared.enqueue(await publish(opened.stores, randomBytes(1000)), 1000)
    await opened.shared.idle()
    expect(opened.failures).toEqual([])
  })

  it('arrive after a service that does not answer', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config({ requestTimeoutMs: 200 }) })
    bucket.break('PUT', { kind: 'hang' }, 2)
    const bytes = randomBytes(1000)
    opened.shared.enqueue(await publish(opened.stores, bytes), bytes.byteLength)
    await opened.shared.idle()
    expect(bucket.objects.size).toBe(1)
    expect(opened.requests).toContain('put timeout')
  })

  it('that one blob alone is refused keep no other waiting, and are given up in the end', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config({ uploads: 1 }) })
    const [poor, good] = [randomBytes(1000), randomBytes(1000)]
    bucket.break(`PUT ${hexOf(digestOf(poor))}`, { kind: 'status', status: 400, code: 'EntityTooLarge' })
    for (const bytes of [poor, good]) opened.shared.enqueue(await publish(opened.stores, bytes), 1000)
    await opened.shared.idle()
    expect([...bucket.objects.keys()]).toEqual([keyOf('', digestOf(good))])
    expect(opened.failures.at(-1)?.operation).toBe('s3.upload_given_up')
  })

  it('in parts send a lost part again, and end what they began when they fail', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config({ multipartBytes: mebibyte }) })
    const bytes = randomBytes(4 * mebibyte)
    bucket.break('PUT partNumber=2', { kind: 'cut', after: 0 }, 2)
    bucket.break('PUT partNumber=3', { kind: 'status', status: 503, code: 'SlowDown' }, 1)
    opened.shared.enqueue(await publish(opened.stores, bytes), bytes.byteLength)
    await opened.shared.idle()
    expect(bucket.objects.get(keyOf('', digestOf(bytes)))?.bytes.equals(bytes)).toBe(true)
    expect(bucket.multiparts.size).toBe(0)
    expect(bucket.seen.filter(seen => seen.method === 'POST' && seen.query.has('uploads'))).toHaveLength(2)
  })

  it('F-33: leftover multipart uploads are ended at start: our own, and those of the dead', async () => {
    const bucket = await fakeBucket()
    const digest = digestOf(randomBytes(10))
    const key = keyOf('', digest)
    const aDayAgo = Date.UTC(2026, 0, 1) - 25 * 3_600_000
    const started = (at: number, of = key) => ({
      key: of,
      headers: {},
      parts: new Map<number, Buffer>(),
      initiated: new Date(at),
    })
    bucket.multiparts.set('own', started(Date.UTC(2026, 0, 1)))
    bucket.multiparts.set('dead', started(aDayAgo))
    bucket.multiparts.set('alive', started(Date.UTC(2026, 0, 1)))
    bucket.multiparts.set('stranger', started(aDayAgo, 'blobs/of-somebody-else'))
    const first = await openedS3({ config: bucket.config({ endpoint: 'http://127.0.0.1:1' }) })
    await first.close()
    writeFileSync(join(first.dataDir, 'uploads', `sha256-${hexOf(digest)}.multipart`), 'own')
    const second = await openedS3({ config: bucket.config(), dataDir: first.dataDir })
    await expect.poll(() => [...bucket.multiparts.keys()]).toEqual(['alive', 'stranger'])
    await second.close()
    expect(readdirSync(join(first.dataDir, 'uploads'))).toEqual([])
  })
})

describe('reads', () => {
  it('F-49: error when the connection is cut, at the byte that came last', async () => {
    const { bucket, opened, digest, bytes } = await filled(mebibyte)
    bucket.break(`GET ${hexOf(digest)}`, { kind: 'cut', after: 300_000 }, 1)
    const blob = await opened.shared.open(digest, { offset: 0 })
    let received = 0
    const reading = (async () => {
      for await (const chunk of blob?.body ?? []) received += (chunk as Buffer).byteLength
    })()
    expect(await reasonOf(reading)).toBe('connection')
    expect(received).toBeLessThanOrEqual(300_000)
    const rest = await readShared(opened.shared, digest, { offset: received })
    expect(rest?.equals(bytes.subarray(received))).toBe(true)
  })

  it('F-48: error when no byte comes for the time-out', async () => {
    const { bucket, opened, digest } = await filled(mebibyte, { requestTimeoutMs: 300 })
    bucket.break(`GET ${hexOf(digest)}`, { kind: 'stall', after: 1000 })
    expect(await reasonOf(readShared(opened.shared, digest))).toBe('timeout')
    expect(await reasonOf(opened.shared.open(digest, { offset: 1000 }))).toBe('blocked')
  })

  it('F-48: a connection that is stuck before its head is passed by on another, and the breaker stays closed', async () => {
    const waits: { readonly ms: number; pass(): void }[] = []
    const { bucket, opened, bytes, digest } = await filled(mebibyte, {}, (ms, signal) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      signal.addEventListener('abort', () => reject(new Error('decided')), { once: true })
      waits.push({ ms, pass: resolve })
      return promise
    })
    bucket.break(`GET ${hexOf(digest)}`, { kind: 'hang' }, 1)
    const reading = readShared(opened.shared, digest)
    await expect.poll(() => bucket.struck).toBe(1)
    waits[0]?.pass()
    expect((await reading)?.equals(bytes)).toBe(true)
    expect(waits.map(({ ms }) => ms)).toEqual([2_000, 2_000])
    expect(opened.requests.filter(request => request.startsWith('get'))).toEqual(['get hedged', 'get 200'])
    expect((await readShared(opened.shared, digest))?.equals(bytes)).toBe(true)
  })

  it('F-48: a bucket that answers on no connection is given up, and left alone for a while', async () => {
    const { bucket, opened, digest } = await filled(mebibyte, {}, async () => undefined)
    bucket.break(`GET ${hexOf(digest)}`, { kind: 'hang' })
    expect(await reasonOf(readShared(opened.shared, digest))).toBe('timeout')
    expect(await reasonOf(opened.shared.open(digest, { offset: 0 }))).toBe('blocked')
  })

  it('are repeated once when a connection ends before it answered', async () => {
    const { bucket, opened, digest } = await filled(1000)
    bucket.break(`GET ${hexOf(digest)}`, { kind: 'cut', after: 0 }, 1)
    expect((await readShared(opened.shared, digest))?.byteLength).toBe(1000)
  })

  it('F-55: a dead bucket costs one time-out, then nothing for seconds, then one try', async () => {
    const { bucket, opened, digest } = await filled(1000)
    bucket.break(`HEAD ${hexOf(digest)}`, { kind: 'hang' })
    const asked = (): number => opened.requests.filter(request => request === 'head timeout').length
    expect(await reasonOf(opened.shared.size(digest))).toBe('timeout')
    const before = asked()
    for (let pull = 0; pull < 20; pull++) {
      expect(await reasonOf(opened.shared.size(digest))).toBe('blocked')
      expect(await reasonOf(opened.shared.open(digest, { offset: 0 }))).toBe('blocked')
    }
    expect(asked()).toBe(before)
    bucket.heal()
    opened.clock.advance(3_751)
    expect((await readShared(opened.shared, digest))?.byteLength).toBe(1000)
    expect(await opened.shared.size(digest)).toBe(1000)
  })

  it('leave the breaker alone when a client leaves', async () => {
    const { bucket, opened, digest } = await filled(1000)
    bucket.break(`GET ${hexOf(digest)}`, { kind: 'hang' }, 5)
    for (let client = 0; client < 5; client++) {
      const leaving = new AbortController()
      const reading = opened.shared.open(digest, { offset: 0, signal: leaving.signal })
      setImmediate(() => leaving.abort())
      expect(await reasonOf(reading)).toBe('cancelled')
    }
    bucket.heal()
    expect((await readShared(opened.shared, digest))?.byteLength).toBe(1000)
  })

  it('F-56: a bucket that does not exist is an error, not an absent blob', async () => {
    const bucket = await fakeBucket()
    const opened = await openedS3({ config: bucket.config({ bucket: 'other' }) })
    expect(await reasonOf(opened.shared.open(digestOf(randomBytes(5)), { offset: 0 }))).toBe('no_bucket')
  })

  it('sign anew when a URL is refused: its credentials ran out', async () => {
    const { bucket, opened, digest } = await filled(1000)
    await readShared(opened.shared, digest)
    bucket.break(`GET ${hexOf(digest)}`, { kind: 'status', status: 403, code: 'ExpiredToken' }, 1)
    expect((await readShared(opened.shared, digest))?.byteLength).toBe(1000)
  })

  it('pass wrong bytes on: whoever reads verifies', async () => {
    const { bucket, opened, digest, bytes } = await filled(1000)
    bucket.break(`GET ${hexOf(digest)}`, { kind: 'wrongBytes' }, 1)
    expect((await readShared(opened.shared, digest))?.equals(bytes)).toBe(false)
  })

  it('refuse an answer that begins or ends elsewhere', async () => {
    const { bucket, opened, digest } = await filled(1000)
    expect(await reasonOf(opened.shared.open(digest, { offset: 1000 }))).toBe('invalid')
    bucket.objects.set(keyOf('', digest), { bytes: Buffer.alloc(0), headers: {} })
    expect(await reasonOf(opened.shared.open(digest, { offset: 10 }))).toBe('invalid')
    bucket.objects.delete(keyOf('', digest))
  })
})

it('T-10: no error tells a signed URL, a signature or a key', async () => {
  const { bucket, opened, digest } = await filled(mebibyte)
  const errors: unknown[] = []
  const provoke = async (which: string, fault: S3Fault): Promise<void> => {
    bucket.break(`${which} ${hexOf(digest)}`, fault, 2)
    opened.clock.advance(3_600_000)
    errors.push(await readShared(opened.shared, digest).catch((error: unknown) => error))
    errors.push(await opened.shared.size(digest).catch((error: unknown) => error))
    bucket.heal()
  }
  await provoke('GET', { kind: 'cut', after: 0 })
  await provoke('GET', { kind: 'cut', after: 100 })
  await provoke('GET', { kind: 'status', status: 500, code: 'InternalError' })
  await provoke('HEAD', { kind: 'cut', after: 0 })
  useCredentials('AKIDOTHER', 'another-canary-secret')
  const other = await openedS3({ config: bucket.config() })
  errors.push(await other.shared.open(digest, { offset: 0 }).catch((error: unknown) => error))
  errors.push(...opened.failures.map(({ error }) => error), ...other.failures.map(({ error }) => error))
  const found = errors.filter(error => error instanceof S3Error)
  expect(found.length).toBeGreaterThanOrEqual(5)
  const text = found.map(error => describeError(error) + inspect(error, { depth: 10, showHidden: true })).join('\n')
  expect(text).not.toMatch(/X-Amz|Signature=|AKID|canary/i)
  expect(text).not.toContain(secretAccessKey)
})
