import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { consume } from '../../src/cache/consume.ts'
import { peerOrigin } from '../../src/cache/origins.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { UpstreamError } from '../../src/upstream/upstream.ts'
import { MemoryShared } from '../fakes/memory-shared.ts'
import { blobOf, bytesOf, readAll, readUntilBroken, setUp, target, targetOf } from './blobs-setup.ts'

const kib = 1024

/** Blobs above a shared store. `right`: the repository is known to hold the blob. */
async function setUpShared({
  length = 256 * kib,
  right = true,
  stored = true,
  ...options
}: { length?: number; right?: boolean; stored?: boolean } & Parameters<typeof setUp>[0] = {}) {
  const shared = new MemoryShared()
  const setup = await setUp({ ...options, wrap: deps => ({ shared, ...options.wrap?.(deps) }) })
  const { bytes, digest } = blobOf(length)
  if (stored) shared.objects.set(digest, bytes)
  if (right) await link(setup, digest)
  return { ...setup, shared, bytes, digest }
}

const link = (setup: Pick<Awaited<ReturnType<typeof setUp>>, 'stores'>, digest: Digest): Promise<void> =>
  setup.stores.metadata.putLinks(target.upstream, target.repository, [digest], 'confirmed')

const unreachable = new UpstreamError('unavailable', 'puppet.test', 'connect', 'nobody is there')

describe('the shared store as an origin', () => {
  it('one GET to it however many clients ask, none upstream, and every one is a hit', async () => {
    const { blobs, shared, upstream, bytes, digest, ends } = await setUpShared()
    const opened = await Promise.all(Array.from({ length: 50 }, () => blobs.open(target, digest)))
    expect(opened.map(({ outcome }) => outcome)).toEqual(Array.from({ length: 50 }, () => 'hit'))
    for (const got of await Promise.all(opened.map(blob => readAll(blob)))) expect(got.equals(bytes)).toBe(true)
    expect(shared.opens).toEqual([{ digest, offset: 0, end: undefined }])
    expect(shared.sizes).toEqual([])
    expect([...upstream.requests, ...upstream.heads]).toEqual([])
    await blobs.close()
    expect(ends).toEqual(['published'])
  })

  it('what came from it is in the hot tier afterwards, and is not uploaded again', async () => {
    const { blobs, shared, stores, bytes, digest } = await setUpShared()
    await readAll(await blobs.open(target, digest))
    await expect.poll(() => stores.blobs.size(digest)).toBe(bytes.length)
    const again = await blobs.open(target, digest)
    expect((await readAll(again)).equals(bytes)).toBe(true)
    expect(shared.opens).toHaveLength(1)
    expect(shared.enqueued).toEqual([])
  })

  it('a blob that vanished from the hot tier is read from it again', async () => {
    const { blobs, shared, upstream, stores, bytes, digest } = await setUpShared()
    await readAll(await blobs.open(target, digest))
    await expect.poll(() => stores.blobs.size(digest)).toBe(bytes.length)
    await stores.blobs.delete(digest)
    expect((await readAll(await blobs.open(target, digest))).equals(bytes)).toBe(true)
    expect(shared.opens).toHaveLength(2)
    expect(upstream.requests).toEqual([])
  })

  it('what upstream gave is uploaded once, after it was published', async () => {
    const { blobs, shared, upstream, stores, bytes, digest } = await setUpShared({ stored: false })
    const opening = Promise.all([blobs.open(target, digest), blobs.open(target, digest)])
    const request = await upstream.next()
    const body = request.answer({ size: bytes.length })
    body.send(bytes)
    const opened = await opening
    expect(opened.map(({ outcome }) => outcome).sort()).toEqual(['fill', 'joined'])
    const reading = opened.map(blob => readAll(blob))
    expect(shared.enqueued).toEqual([])
    body.end()
    await Promise.all(reading)
    await expect.poll(() => shared.enqueued).toEqual([{ digest, size: bytes.length }])
    expect(await stores.blobs.size(digest)).toBe(bytes.length)
  })

  it('F-49: a connection that breaks is resumed there, then upstream, at the byte that is missing', async () => {
    const { blobs, shared, upstream, bytes, digest } = await setUpShared()
    shared.cuts = [100 * kib, 10]
    const opened = await blobs.open(target, digest)
    const reading = readAll(opened)
    const request = await upstream.next()
    expect(shared.opens.map(({ offset }) => offset)).toEqual([0, 100 * kib])
    expect(request.offset).toBe(100 * kib + 10)
    const body = request.answer({ size: bytes.length })
    body.send(bytes.subarray(100 * kib + 10))
    body.end()
    expect((await reading).equals(bytes)).toBe(true)
    expect(opened.outcome).toBe('hit')
    // Upstream had a part in it, so the object is suspect or gone: the upload finds out.
    await expect.poll(() => shared.enqueued).toEqual([{ digest, size: bytes.length }])
  })

  it('F-49: upstream breaks too, and the shared store gives the rest', async () => {
    const { blobs, shared, upstream, bytes, digest } = await setUpShared({ fills: { maxAttempts: 5 } })
    shared.cuts = [10]
    const opened = await blobs.open(target, digest)
    const request = await upstream.next()
    const body = request.answer({ size: bytes.length })
    body.send(bytes.subarray(10, 20))
    const reader = opened.reader()
    // The byte before the last that arrived: what is sent is in.
    await reader.read(18, 1, () => Buffer.alloc(1))
    body.break()
    expect((await readAll(opened)).equals(bytes)).toBe(true)
    reader.close()
    expect(shared.opens.map(({ offset }) => offset)).toEqual([0, 20])
  })

  it('F-49: it breaks again and again and upstream denies the rest: the download ends with what upstream said', async () => {
    const { blobs, shared, upstream, digest } = await setUpShared()
    shared.cuts = [1000, ...Array.from({ length: 20 }, () => 0)]
    const reading = readUntilBroken(await blobs.open(target, digest))
    const denied = new UpstreamError('denied', upstream.name, 'http_403', 'not for you', { status: 403 })
    const request = await upstream.next()
    request.fail(denied)
    expect((await reading).error).toBe(denied)
    expect(shared.opens.length).toBeLessThan(6)
  })

  it('F-51: an object that is lost is had from upstream, and no client notices', async () => {
    const { blobs, shared, upstream, bytes, digest } = await setUpShared({ stored: false })
    const reading = blobs.open(target, digest).then(blob => readAll(blob))
    const body = (await upstream.next()).answer({ size: bytes.length })
    body.send(bytes)
    body.end()
    expect((await reading).equals(bytes)).toBe(true)
    expect(shared.opens).toHaveLength(1)
  })

  it('F-51: that it is not there says nothing about upstream: what upstream says is what the client hears', async () => {
    const { blobs, upstream, digest } = await setUpShared({ stored: false, fills: { maxAttempts: 1 } })
    const opening = blobs.open(target, digest)
    const request = await upstream.next()
    request.fail(unreachable)
    await expect(opening).rejects.toBe(unreachable)
  })

  it('F-7, F-51: upstream sent wrong bytes a moment ago and it is not there either: no 404 for what nobody was asked about', async () => {
    const { blobs, upstream, bytes, digest } = await setUpShared({ stored: false })
    const opening = blobs.open(target, digest)
    const body = (await upstream.next()).answer({ size: bytes.length })
    body.send(bytesOf(bytes.length, 99))
    body.end()
    await readUntilBroken(await opening)
    await expect(blobs.open(target, digest)).rejects.toMatchObject({ failure: 'invalid', reason: 'quarantined' })
    expect(upstream.requests).toHaveLength(1)
  })

  it('F-55: while it is down pulls go on from upstream, with a single attempt too', async () => {
    const { blobs, shared, upstream, bytes, digest } = await setUpShared({ fills: { maxAttempts: 1 } })
    shared.down = true
    const reading = blobs.open(target, digest).then(async blob => ({ outcome: blob.outcome, got: await readAll(blob) }))
    const body = (await upstream.next()).answer({ size: bytes.length })
    body.send(bytes)
    body.end()
    const { outcome, got } = await reading
    expect(got.equals(bytes)).toBe(true)
    expect(outcome).toBe('fill')
    await expect.poll(() => shared.enqueued).toHaveLength(1)
  })

  it('F-54: wrong bytes reach nobody as a whole blob; the object is removed and upstream is asked next', async () => {
    const { blobs, shared, upstream, bytes, digest, rejected } = await setUpShared()
    shared.objects.set(digest, bytesOf(bytes.length, 99))
    const { bytes: got, error } = await readUntilBroken(await blobs.open(target, digest))
    expect(got).toBeLessThan(bytes.length)
    expect(error).toMatchObject({ reason: 'digest_mismatch' })
    expect(rejected).toEqual([{ upstream: upstream.name, kind: 'blob', digest, reason: 'digest_mismatch' }])
    expect(shared.deleted).toEqual([digest])
    const opening = blobs.open(target, digest)
    const body = (await upstream.next()).answer({ size: bytes.length })
    body.send(bytes)
    body.end()
    expect((await readAll(await opening)).equals(bytes)).toBe(true)
    expect(shared.opens).toHaveLength(1)
    await expect.poll(() => shared.enqueued).toHaveLength(1)
  })

  it('F-54: who is cut meets the wrong object nowhere again: it is gone before the cut, for every replica', async () => {
    const first = await setUpShared()
    const { shared, bytes, digest } = first
    shared.objects.set(digest, bytesOf(bytes.length, 99))
    const second = await setUp({ wrap: () => ({ shared }) })
    await link(second, digest)
    const removal = Promise.withResolvers<void>()
    shared.deleting = removal.promise
    let cut = false
    const broken = readUntilBroken(await first.blobs.open(target, digest)).finally(() => (cut = true))
    await expect.poll(() => first.rejected).toHaveLength(1)
    // Who comes now does not join what will be cut, and does not ask the shared store, although the object is still there.
    const newcomer = first.blobs.open(target, digest)
    const body = (await first.upstream.next()).answer({ size: bytes.length })
    expect(cut).toBe(false)
    removal.resolve()
    expect((await broken).error).toMatchObject({ reason: 'digest_mismatch' })
    const retried = second.blobs.open(target, digest)
    const other = (await second.upstream.next()).answer({ size: bytes.length })
    for (const each of [body, other]) {
      each.send(bytes)
      each.end()
    }
    for (const opened of [await newcomer, await retried]) expect((await readAll(opened)).equals(bytes)).toBe(true)
    expect(second.rejected).toEqual([])
  })

  it('F-54: an object that cannot be removed in time does not hold up the cut', async () => {
    const { blobs, shared, bytes, digest } = await setUpShared()
    shared.objects.set(digest, bytesOf(bytes.length, 99))
    const never = Promise.withResolvers<void>()
    shared.deleting = never.promise
    const { error } = await readUntilBroken(await blobs.open(target, digest))
    expect(error).toMatchObject({ reason: 'digest_mismatch' })
    never.resolve()
  })

  it('F-54: where its wrong bytes are mixed with those of upstream, upstream is not the one to be left alone', async () => {
    const { blobs, shared, upstream, bytes, digest } = await setUpShared()
    shared.objects.set(digest, bytesOf(bytes.length, 99))
    shared.cuts = [1000]
    const broken = readUntilBroken(await blobs.open(target, digest))
    const rest = (await upstream.next()).answer({ size: bytes.length })
    rest.send(bytes.subarray(1000))
    rest.end()
    expect((await broken).error).toMatchObject({ reason: 'digest_mismatch' })
    const opening = blobs.open(target, digest)
    const body = (await upstream.next()).answer({ size: bytes.length })
    body.send(bytes)
    body.end()
    expect((await readAll(await opening)).equals(bytes)).toBe(true)
  })

  it('F-54, T-23: an object of another size than the manifest says is passed over, and replaced when upstream agrees', async () => {
    const { blobs, shared, upstream, bytes, digest } = await setUpShared()
    shared.objects.set(digest, bytes.subarray(0, 100))
    blobs.expect(target, [{ digest, size: bytes.length }])
    const reading = blobs.open(target, digest).then(blob => readAll(blob))
    const request = await upstream.next()
    // Not for a manifest's word alone: another repository's manifest may be the one that is right.
    expect(shared.deleted).toEqual([])
    const body = request.answer({ size: bytes.length })
    body.send(bytes)
    body.end()
    expect((await reading).equals(bytes)).toBe(true)
    await expect.poll(() => shared.enqueued).toHaveLength(1)
    expect(shared.deleted).toEqual([digest])
  })

  it('F-54: the blob that replaces an object waits for its upload from the moment it is on the disk, which it may only pass through', async () => {
    const deletedBefore: number[] = []
    const { blobs, shared, upstream, bytes, digest } = await setUpShared({
      wrap: ({ store }) => ({
        store: {
          open: wanted => store.open(wanted),
          size: wanted => store.size(wanted),
          delete: wanted => store.delete(wanted),
          publish: (wanted, size, spool) => {
            deletedBefore.push(shared.deleted.length)
            return store.publish(wanted, size, spool)
          },
        },
      }),
    })
    shared.objects.set(digest, bytes.subarray(0, 100))
    blobs.expect(target, [{ digest, size: bytes.length }])
    const reading = blobs.open(target, digest).then(blob => readAll(blob))
    const body = (await upstream.next()).answer({ size: bytes.length })
    body.send(bytes)
    body.end()
    await reading
    await expect.poll(() => shared.enqueued).toHaveLength(1)
    // Nothing is left to wait for between its publication and its place in the queue.
    expect(deletedBefore).toEqual([1])
  })

  it('an offline cache serves what it holds, and 404 for what it does not', async () => {
    const { blobs, shared, bytes, digest } = await setUpShared({ offline: true })
    expect((await readAll(await blobs.open(target, digest))).equals(bytes)).toBe(true)
    const other = blobOf(1000, 7)
    await expect(blobs.open(target, other.digest)).rejects.toMatchObject({ code: 'BLOB_UNKNOWN' })
    expect(shared.enqueued).toEqual([])
  })

  it('T-12: offline, who has the right is not told what was said to who has not', async () => {
    const { blobs, bytes, digest } = await setUpShared({ offline: true })
    const refused = blobs.open(targetOf('somebody/else'), digest).catch((error: unknown) => error)
    const opened = await blobs.open(target, digest)
    expect((await readAll(opened)).equals(bytes)).toBe(true)
    expect(await refused).toMatchObject({ code: 'BLOB_UNKNOWN' })
  })

  it('P-119: a range far ahead is fetched from it beside the download', async () => {
    const { blobs, shared, upstream, bytes, digest } = await setUpShared({ fills: { nearBytes: 0 } })
    const release = Promise.withResolvers<void>()
    shared.held = release.promise
    shared.cuts = [10]
    const whole = await blobs.open(target, digest)
    const far = await blobs.open(target, digest)
    const range = { start: 200 * kib, end: 201 * kib }
    const reading = readAll(far, range)
    await expect.poll(() => shared.opens.length).toBe(2)
    expect(shared.opens[1]).toEqual({ digest, offset: range.start, end: range.end })
    release.resolve()
    // The download itself broke after ten bytes; upstream has the rest of it.
    const request = await upstream.next()
    const body = request.answer({ size: bytes.length })
    body.send(bytes.subarray(request.offset))
    body.end()
    expect((await readAll(whole)).equals(bytes)).toBe(true)
    expect((await reading).equals(bytes.subarray(range.start, range.end + 1))).toBe(true)
  })
})

describe('the rights before the shared store', () => {
  it('T-11: without a right upstream confirms first, by HEAD, and the bytes come from the shared store', async () => {
    const { blobs, shared, upstream, bytes, digest } = await setUpShared({ right: false })
    upstream.head = () => ({ size: bytes.length })
    expect((await readAll(await blobs.open(target, digest))).equals(bytes)).toBe(true)
    expect(upstream.heads).toEqual([`${target.repository}@${digest}`])
    expect(upstream.requests).toEqual([])
    expect(shared.opens).toHaveLength(1)
  })

  it('T-11: what upstream does not confirm is not read from the shared store, and looks as if it were not there', async () => {
    const { blobs, shared, upstream, digest } = await setUpShared({ right: false })
    const opening = blobs.open(targetOf('somebody/else'), digest)
    const missing = new UpstreamError('notFound', upstream.name, 'http_404', 'no such blob', { status: 404 })
    const request = await upstream.next()
    request.fail(missing)
    await expect(opening).rejects.toBe(missing)
    expect(shared.opens).toEqual([])
  })

  it('T-12: who joins a download from the shared store needs a right of its own', async () => {
    const { blobs, shared, digest } = await setUpShared()
    const release = Promise.withResolvers<void>()
    shared.held = release.promise
    const first = await blobs.open(target, digest)
    await expect(blobs.open(targetOf('somebody/else'), digest)).rejects.toMatchObject({ code: 'BLOB_UNKNOWN' })
    release.resolve()
    await readAll(first)
  })

  it('asks the shared store once, by HEAD, for a blob that needs confirming and is not there', async () => {
    const { blobs, shared, upstream, bytes, digest } = await setUpShared({ right: false, stored: false })
    const opening = Promise.all(Array.from({ length: 20 }, () => blobs.open(target, digest)))
    const body = (await upstream.next()).answer({ size: bytes.length })
    body.send(bytes)
    body.end()
    await Promise.all((await opening).map(blob => readAll(blob)))
    expect(shared.sizes).toEqual([digest])
    expect(shared.opens).toEqual([])
    expect(upstream.heads).toEqual([])
  })

  it('HEAD is answered from its size when the right is there, and by upstream when it is not', async () => {
    const { blobs, shared, upstream, bytes, digest } = await setUpShared()
    expect(await blobs.stat(target, digest)).toEqual({ size: bytes.length, outcome: 'hit' })
    expect(upstream.heads).toEqual([])
    await expect(blobs.stat(targetOf('somebody/else'), digest)).rejects.toMatchObject({ failure: 'notFound' })
    expect(shared.sizes).toEqual([digest])
    shared.down = true
    upstream.head = () => ({ size: 7 })
    expect(await blobs.stat(target, digest)).toEqual({ size: 7, outcome: 'fill' })
  })
})

describe('another replica as an origin', () => {
  it('F-53: one that breaks while the right is looked at fails this connection, and nothing else', async () => {
    const body = new Readable({ read() {} })
    const asked = Promise.withResolvers<void>()
    const held = Promise.withResolvers<boolean>()
    const origin = peerOrigin(
      { kind: 'peer', name: 'peer', open: async () => ({ offset: 0, size: 10, etag: undefined, body }) },
      {
        isHeld: () => {
          asked.resolve()
          return held.promise
        },
        confirm: async () => undefined,
      },
    )
    const opening = origin.open(0, new AbortController().signal)
    await asked.promise
    // Not by `once`, which would listen for the error as well.
    const closed = new Promise<void>(resolve => body.on('close', () => resolve()))
    body.destroy(new Error('the other replica died'))
    await closed
    held.resolve(true)
    const opened = await opening
    await expect(consume(opened.body, () => undefined)).rejects.toThrow('the other replica died')
  })
})
