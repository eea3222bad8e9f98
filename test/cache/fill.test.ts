import { describe, expect, it, vi } from 'vitest'
import type { Digest } from '../../src/oci/digest.ts'
import type { SpoolFile } from '../../src/store/stores.ts'
import { UpstreamError } from '../../src/upstream/upstream.ts'
import { blobOf, bytesOf, readAll, readUntilBroken, setUp, target, targetOf } from './blobs-setup.ts'

const kib = 1024

/** Starts a download that has answered and sent its first `sent` bytes. */
async function begun({
  length = 512 * kib,
  sent = 64 * kib,
  ...options
}: { length?: number; sent?: number } & Parameters<typeof setUp>[0] = {}) {
  const setup = await setUp(options)
  const { bytes, digest } = blobOf(length)
  const opening = setup.blobs.open(target, digest)
  const request = await setup.upstream.next()
  const body = request.answer({ size: length })
  body.send(bytes.subarray(0, sent))
  return { ...setup, bytes, digest, request, body, first: await opening }
}

describe('a fill', () => {
  it('P-59: withholds the last byte until size and digest are right, then completes', async () => {
    const { blobs, bytes, digest, body, first, ends } = await begun({ length: 1000, sent: 1000 })
    const reader = first.reader()
    const own = Buffer.alloc(2000)
    const before = await reader.read(0, 2000, () => own)
    expect(before.length).toBe(999)
    let completed = false
    const last = Promise.resolve(reader.read(999, 1, () => own)).then(chunk => {
      completed = true
      return chunk
    })
    // The body is complete, its end is not known yet: a longer body would be refused.
    expect(completed).toBe(false)
    body.end()
    expect(Buffer.from(await last)).toEqual(bytes.subarray(999))
    expect((await reader.read(1000, 1, () => own)).length).toBe(0)
    reader.close()
    first.close()
    const again = await readAll(await blobs.open(target, digest))
    expect(again.equals(bytes)).toBe(true)
    await blobs.close()
    expect(ends).toEqual(['published'])
  })

  it.each([0, 250 * kib, 512 * kib - 1])(
    'F-7, T-20: a flipped byte at %i reaches nobody as a whole blob, and nothing is published',
    async at => {
      const { bytes, digest, body, first, stores, ends, upstream, rejected } = await begun({ sent: 0 })
      const wrong = Buffer.from(bytes)
      wrong[at] = (wrong[at] ?? 0) ^ 1
      const reading = readUntilBroken(first)
      body.send(wrong)
      body.end()
      const { bytes: got, error } = await reading
      expect(got).toBeLessThan(bytes.length)
      expect(error).toMatchObject({ reason: 'digest_mismatch' })
      expect(await stores.blobs.size(digest)).toBeUndefined()
      expect(ends).toEqual(['failed:digest_mismatch'])
      expect(rejected).toEqual([{ upstream: upstream.name, kind: 'blob', digest, reason: 'digest_mismatch' }])
    },
  )

  it('F-7: a source that sent wrong bytes is not asked again for this blob for some seconds', async () => {
    const { blobs, bytes, digest, body, first, upstream } = await begun({ sent: 0 })
    const reading = readUntilBroken(first)
    body.send(bytesOf(bytes.length, 99))
    body.end()
    await reading
    await expect(blobs.open(target, digest)).rejects.toMatchObject({ reason: 'quarantined' })
    expect(upstream.requests).toHaveLength(1)
  })

  it('F-7: the next attempt goes to the next mirror when the first source sent wrong bytes', async () => {
    const { blobs, bytes, digest, body, first, upstream } = await begun({ sent: 0, sources: 2 })
    const reading = readUntilBroken(first)
    body.send(bytesOf(bytes.length, 99))
    body.end()
    await reading
    const opening = blobs.open(target, digest)
    const second = await upstream.next()
    expect(second.source).toBe(1)
    const good = second.answer({ size: bytes.length })
    good.send(bytes)
    good.end()
    expect((await readAll(await opening)).equals(bytes)).toBe(true)
  })

  it('F-17: goes on when the client that started it leaves, and the followers get every byte from one request', async () => {
    const { blobs, bytes, digest, body, first, upstream } = await begun()
    const followers = await Promise.all(Array.from({ length: 50 }, () => blobs.open(target, digest)))
    expect(followers.every(blob => blob.outcome === 'joined')).toBe(true)
    const reading = followers.map(blob => readAll(blob))
    const leader = first.reader()
    leader.close()
    first.close()
    body.send(bytes.subarray(64 * kib))
    body.end()
    for (const got of await Promise.all(reading)) expect(got.equals(bytes)).toBe(true)
    expect(upstream.requests).toHaveLength(1)
  })

  it('F-18: is cancelled when everybody left and much is missing; the connection and the spool are given back', async () => {
    const { blobs, body, first, stores, ends } = await begun()
    await vi.waitFor(() => expect(stores.usage().reservedBytes).toBeGreaterThan(0))
    first.close()
    await body.closed
    await blobs.close()
    expect(ends).toEqual(['cancelled:cancelled'])
    expect(stores.usage().reservedBytes).toBe(0)
  })

  it('F-18: is finished when everybody left and little is missing', async () => {
    const { blobs, bytes, digest, body, first, upstream, stores } = await begun({
      fills: { finishWithinBytes: 448 * kib, abandonMs: 0 },
    })
    first.close()
    body.send(bytes.subarray(64 * kib))
    body.end()
    const got = await readAll(await blobs.open(target, digest))
    expect(got.equals(bytes)).toBe(true)
    expect(upstream.requests).toHaveLength(1)
    await blobs.close()
    expect(stores.usage().blobs).toBe(1)
  })

  it('F-18: is finished when everybody left and most of it has arrived', async () => {
    const { blobs, bytes, digest, body, first } = await begun({ sent: 300 * kib, fills: { finishFromShare: 0.5 } })
    // A byte past the share was seen by a reader, so it has been received.
    const reader = first.reader()
    await reader.read(299 * kib, 1, () => Buffer.alloc(1))
    reader.close()
    first.close()
    body.send(bytes.subarray(300 * kib))
    body.end()
    expect((await readAll(await blobs.open(target, digest))).equals(bytes)).toBe(true)
  })

  it.each(['reset', 'truncated', 'timeout'])(
    'F-1, F-2, F-10: resumes at the missing byte after %s, and no reader notices',
    async reason => {
      const { bytes, body, first, upstream } = await begun({ sent: 200_000 })
      const reading = readAll(first)
      body.break(reason)
      const resumed = await upstream.next()
      expect(resumed.offset).toBe(200_000)
      const rest = resumed.answer({ size: bytes.length })
      rest.send(bytes.subarray(200_000))
      rest.end()
      expect((await reading).equals(bytes)).toBe(true)
    },
  )

  it('F-2: resumes when upstream ends the body before the announced size', async () => {
    const { bytes, body, first, upstream } = await begun({ sent: 100_000 })
    const reading = readAll(first)
    body.end()
    const resumed = await upstream.next()
    expect(resumed.offset).toBe(100_000)
    const rest = resumed.answer({ size: bytes.length })
    rest.send(bytes.subarray(100_000))
    rest.end()
    expect((await reading).equals(bytes)).toBe(true)
  })

  it('F-1: resumes on the mirror when the first source breaks', async () => {
    const { bytes, body, first, upstream } = await begun({ sent: 100_000, sources: 2 })
    const reading = readAll(first)
    body.break()
    const resumed = await upstream.next()
    expect([resumed.source, resumed.offset]).toEqual([1, 100_000])
    const rest = resumed.answer({ size: bytes.length })
    rest.send(bytes.subarray(100_000))
    rest.end()
    expect((await reading).equals(bytes)).toBe(true)
  })

  it('P-114: skips what it has when upstream ignores the range of a resume', async () => {
    const { bytes, body, first, upstream } = await begun({ sent: 100_000 })
    const reading = readAll(first)
    body.break()
    const resumed = await upstream.next()
    const whole = resumed.answer({ size: bytes.length, offset: 0 })
    for (let position = 0; position < bytes.length; position += 30_000)
      whole.send(bytes.subarray(position, position + 30_000))
    whole.end()
    expect((await reading).equals(bytes)).toBe(true)
  })

  it('F-4: a body of unknown length that was cut is resumed, not believed', async () => {
    const setup = await setUp()
    const { bytes, digest } = blobOf(300_000)
    const opening = setup.blobs.open(target, digest)
    const body = (await setup.upstream.next()).answer()
    body.send(bytes.subarray(0, 120_000))
    body.end()
    const blob = await opening
    expect(blob.size).toBeUndefined()
    const reading = readAll(blob)
    const resumed = await setup.upstream.next()
    expect(resumed.offset).toBe(120_000)
    const rest = resumed.answer({ size: bytes.length })
    rest.send(bytes.subarray(120_000))
    rest.end()
    expect((await reading).equals(bytes)).toBe(true)
    await setup.blobs.close()
    expect(setup.ends).toEqual(['published'])
  })

  it('F-8, P-60: refuses before the first byte when upstream offers another size than the manifest', async () => {
    const { blobs, upstream, rejected } = await setUp()
    const { digest } = blobOf(1000)
    blobs.expect(target, [{ digest, size: 1000 }])
    const opening = blobs.open(target, digest)
    ;(await upstream.next()).answer({ size: 1001 })
    await expect(opening).rejects.toMatchObject({ reason: 'size_mismatch' })
    expect(rejected).toEqual([{ upstream: upstream.name, kind: 'blob', digest, reason: 'size_mismatch' }])
  })

  it('F-8, T-20: tells of a source that offers another size also when a mirror has the right one', async () => {
    const { blobs, upstream, rejected, ends } = await setUp({ sources: 2 })
    const { bytes, digest } = blobOf(1000)
    blobs.expect(target, [{ digest, size: 1000 }])
    const opening = blobs.open(target, digest)
    ;(await upstream.next()).answer({ size: 1001 })
    const right = (await upstream.next()).answer({ size: 1000 })
    right.send(bytes)
    right.end()
    expect((await readAll(await opening)).equals(bytes)).toBe(true)
    await blobs.close()
    expect(ends).toEqual(['published'])
    expect(rejected).toEqual([{ upstream: upstream.name, kind: 'blob', digest, reason: 'size_mismatch' }])
  })

  it('F-1: a connection that breaks is no refused content', async () => {
    const { body, first, rejected } = await begun({ fills: { maxAttempts: 1 } })
    const reading = readUntilBroken(first)
    body.break('reset')
    await reading
    expect(rejected).toEqual([])
  })

  it('F-6: refuses a body that is longer than announced', async () => {
    const { bytes, body, first } = await begun({ length: 100_000, sent: 1000 })
    const reading = readUntilBroken(first)
    body.send(bytes.subarray(1000), Buffer.alloc(1))
    const { bytes: got, error } = await reading
    expect(got).toBeLessThan(bytes.length)
    expect(error).toMatchObject({ reason: 'size_mismatch' })
  })

  it('F-20: gives its error to every reader alike, and is asked once', async () => {
    const { blobs, digest, body, first, upstream } = await begun({ fills: { maxAttempts: 1 } })
    const followers = await Promise.all(Array.from({ length: 20 }, () => blobs.open(target, digest)))
    const reading = [first, ...followers].map(blob => readUntilBroken(blob))
    body.break('reset')
    const results = await Promise.all(reading)
    expect(new Set(results.map(result => result.error)).size).toBe(1)
    expect(results[0]?.error).toMatchObject({ reason: 'reset' })
    expect(upstream.requests).toHaveLength(1)
  })

  it('F-20: an upstream that never answered fails all who wait, and the next who asks starts afresh', async () => {
    const { blobs, upstream } = await setUp({ fills: { maxAttempts: 1 } })
    const { bytes, digest } = blobOf(1000)
    const openings = Array.from({ length: 10 }, () => blobs.open(target, digest))
    ;(await upstream.next()).fail(new UpstreamError('unavailable', 'puppet.test', 'http_503', 'no'))
    const errors = await Promise.all(openings.map(opening => opening.catch((error: unknown) => error)))
    expect(new Set(errors).size).toBe(1)
    const again = blobs.open(target, digest)
    const body = (await upstream.next()).answer({ size: 1000 })
    body.send(bytes)
    body.end()
    expect((await readAll(await again)).equals(bytes)).toBe(true)
  })

  it('F-20: a refusal goes to every follower of the same repository at once, without one request for each of them', async () => {
    const { blobs, upstream } = await setUp()
    const { digest } = blobOf(1000)
    const openings = Array.from({ length: 10 }, () => blobs.open(target, digest))
    ;(await upstream.next()).fail(new UpstreamError('denied', 'puppet.test', 'http_403', 'no', { status: 403 }))
    const errors = await Promise.all(openings.map(opening => opening.catch((error: unknown) => error)))
    expect(new Set(errors).size).toBe(1)
    expect(upstream.requests).toHaveLength(1)
  })

  it('F-12: an upstream that wants a pause before the first byte is no reason to keep clients waiting', async () => {
    const { blobs, upstream } = await setUp()
    const { digest } = blobOf(1000)
    const opening = blobs.open(target, digest)
    const unavailable = new UpstreamError('unavailable', 'puppet.test', 'http_503', 'no', { retryAfterMs: 7_000 })
    ;(await upstream.next()).fail(unavailable)
    await expect(opening).rejects.toBe(unavailable)
    expect(upstream.requests).toHaveLength(1)
  })

  it('F-15: a 404 is told to everyone, is not retried, and is remembered for seconds', async () => {
    const { blobs, upstream } = await setUp()
    const { digest } = blobOf(1000)
    const opening = blobs.open(target, digest)
    ;(await upstream.next()).fail(new UpstreamError('notFound', 'puppet.test', 'http_404', 'no', { status: 404 }))
    await expect(opening).rejects.toMatchObject({ failure: 'notFound' })
    await expect(blobs.open(target, digest)).rejects.toMatchObject({ code: 'BLOB_UNKNOWN' })
    expect(upstream.requests).toHaveLength(1)
  })

  it('F-19: a reader that stands still does not slow one that reads, and gets its bytes from disk later', async () => {
    const length = 24 * 1024 * kib
    const { blobs, bytes, digest, body, first } = await begun({ length, sent: 0 })
    const slow = await blobs.open(target, digest)
    const still = slow.reader()
    const reading = readAll(first)
    for (let position = 0; position < length; position += 256 * kib)
      body.send(bytes.subarray(position, position + 256 * kib))
    body.end()
    expect((await reading).equals(bytes)).toBe(true)
    const own = Buffer.alloc(64 * kib)
    const late = await still.read(0, 64 * kib, () => own)
    expect(Buffer.from(late).equals(bytes.subarray(0, late.length))).toBe(true)
    still.close()
    slow.close()
  })
})

describe('a source that says less than was received', () => {
  it('F-23: is not asked for the rest again and again', async () => {
    const { blobs, upstream } = await setUp()
    const { bytes, digest } = blobOf(1000)
    const opening = blobs.open(target, digest)
    const unsized = (await upstream.next()).answer()
    const reading = readUntilBroken(await opening)
    unsized.send(bytes, bytes)
    unsized.end()
    const second = await upstream.next()
    expect(second.offset).toBe(2000)
    second.answer({ size: 1000 }).end()
    expect(await reading).toMatchObject({ error: { reason: 'size_mismatch' } })
    expect(upstream.requests).toHaveLength(2)
  })
})

describe('joining a fill', () => {
  /** Publishing waits for the test. */
  function gated() {
    const reached = Promise.withResolvers<void>()
    const release = Promise.withResolvers<void>()
    const options: Parameters<typeof setUp>[0] = {
      wrap: ({ store }) => ({
        store: {
          open: digest => store.open(digest),
          size: digest => store.size(digest),
          delete: digest => store.delete(digest),
          publish: async (digest: Digest, size: number, spool: SpoolFile) => {
            reached.resolve()
            await release.promise
            await store.publish(digest, size, spool)
          },
        },
      }),
    }
    return { options, reached: reached.promise, release: release.resolve }
  }

  it('F-21: verified and not yet published, it serves who joins, and the first readers do not wait for the disk', async () => {
    const gate = gated()
    const { blobs, bytes, digest, body, first, upstream } = await begun(gate.options)
    const reading = readAll(first)
    body.send(bytes.subarray(64 * kib))
    body.end()
    await gate.reached
    expect((await reading).equals(bytes)).toBe(true)
    const joined = await blobs.open(target, digest)
    expect(joined.outcome).toBe('joined')
    expect((await readAll(joined)).equals(bytes)).toBe(true)
    gate.release()
    await blobs.close()
    const hit = await blobs.open(target, digest)
    expect(hit.outcome).toBe('hit')
    expect((await readAll(hit)).equals(bytes)).toBe(true)
    expect(upstream.requests).toHaveLength(1)
  })

  it('F-21: published and just being closed, it is opened from the store, not from the file that goes away', async () => {
    const closing = Promise.withResolvers<void>()
    const close = Promise.withResolvers<void>()
    // Longer than what stays in memory.
    const length = 4 * 1024 * kib
    const { blobs, bytes, digest, body, first, upstream } = await begun({
      length,
      wrap: ({ store, spool }) => {
        const inner = new WeakMap<SpoolFile, SpoolFile>()
        return {
          store: {
            open: wanted => store.open(wanted),
            size: wanted => store.size(wanted),
            delete: wanted => store.delete(wanted),
            publish: (wanted, size, file) => store.publish(wanted, size, inner.get(file) ?? file),
          },
          spool: {
            create: async expected => {
              const file = await spool.create(expected)
              if (!file) return undefined
              const outer: SpoolFile = {
                path: file.path,
                write: file.write.bind(file),
                read: file.read.bind(file),
                discard: () => file.discard(),
                close: async () => {
                  closing.resolve()
                  await close.promise
                  await file.close()
                },
              }
              inner.set(outer, file)
              return outer
            },
          },
        }
      },
    })
    const reading = readAll(first)
    body.send(bytes.subarray(64 * kib))
    body.end()
    expect((await reading).equals(bytes)).toBe(true)
    await closing.promise
    const late = await blobs.open(target, digest)
    expect(late.outcome).toBe('hit')
    expect((await readAll(late)).equals(bytes)).toBe(true)
    close.resolve()
    expect(upstream.requests).toHaveLength(1)
  })

  it('F-27: a blob that is verified and not yet published counts as one that is here', async () => {
    const gate = gated()
    const { blobs, bytes, digest, body, first } = await begun(gate.options)
    expect(await blobs.size(digest)).toBeUndefined()
    const reading = readAll(first)
    body.send(bytes.subarray(64 * kib))
    body.end()
    await gate.reached
    await reading
    expect(await blobs.size(digest)).toBe(bytes.length)
    gate.release()
  })

  it('P-54: the second of two parts is there also when the download ended during the first', async () => {
    // Longer than what stays in memory.
    const length = 4 * 1024 * kib
    const { blobs, bytes, body, first } = await begun({ length })
    const own = Buffer.alloc(10)
    const read = async (start: number): Promise<Buffer> => {
      const reader = first.reader({ start, end: start + 9 })
      try {
        return Buffer.from(await reader.read(start, 10, () => own))
      } finally {
        reader.close()
      }
    }
    body.send(bytes.subarray(64 * kib))
    body.end()
    await expect.poll(() => blobs.running).toBe(0)
    expect(await read(10)).toEqual(bytes.subarray(10, 20))
    expect(await read(100)).toEqual(bytes.subarray(100, 110))
    first.close()
  })

  it('F-21: published between the look into the store and the look at the downloads, it is still found', async () => {
    const storeAsked = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    let hold = false
    const { blobs, bytes, digest, body, first, upstream } = await begun({
      wrap: ({ store }) => ({
        store: {
          size: digest => store.size(digest),
          delete: digest => store.delete(digest),
          publish: (digest, size, spool) => store.publish(digest, size, spool),
          open: async digest => {
            const found = await store.open(digest)
            if (hold) {
              hold = false
              storeAsked.resolve()
              await goOn.promise
            }
            return found
          },
        },
      }),
    })
    const reading = readAll(first)
    body.send(bytes.subarray(64 * kib))
    body.end()
    await reading
    await vi.waitFor(() => expect(blobs.running).toBe(0))
    // Gone from the store and not downloading: the next open misses, and a whole fill happens before it goes on.
    const other = blobOf(1000, 7)
    hold = true
    const late = blobs.open(target, other.digest)
    await storeAsked.promise
    const early = blobs.open(target, other.digest)
    const second = (await upstream.next()).answer({ size: 1000 })
    second.send(other.bytes)
    second.end()
    expect((await readAll(await early)).equals(other.bytes)).toBe(true)
    expect(digest).not.toBe(other.digest)
    await vi.waitFor(() => expect(blobs.running).toBe(0))
    goOn.resolve()
    expect((await readAll(await late)).equals(other.bytes)).toBe(true)
    expect(upstream.requests).toHaveLength(2)
  })

  it('T-12: who has no right of his own does not join, and waits for upstream to confirm it', async () => {
    const { blobs, digest, upstream, first } = await begun()
    await expect(blobs.open(targetOf('other/app'), digest)).rejects.toMatchObject({ code: 'BLOB_UNKNOWN' })
    expect(upstream.heads).toEqual([`other/app@${digest}`])
    upstream.head = () => ({ size: undefined })
    const joined = await blobs.open(targetOf('third/app'), digest)
    expect(joined.outcome).toBe('joined')
    joined.close()
    first.close()
    expect(upstream.requests).toHaveLength(1)
  })

  it('T-11: what is stored is not opened for another repository, by GET or HEAD, unless upstream confirms', async () => {
    const { blobs, bytes, digest, body, first, upstream } = await begun()
    const reading = readAll(first)
    body.send(bytes.subarray(64 * kib))
    body.end()
    await reading
    await expect(blobs.open(targetOf('other/app'), digest)).rejects.toMatchObject({ code: 'BLOB_UNKNOWN' })
    await expect(blobs.stat(targetOf('other/app'), digest)).rejects.toBeInstanceOf(Error)
    upstream.head = () => ({ size: bytes.length })
    expect((await readAll(await blobs.open(targetOf('third/app'), digest))).equals(bytes)).toBe(true)
  })

  it('T-12: a follower whose repository has the blob is served although the first one was refused', async () => {
    const { blobs, upstream } = await setUp()
    const { bytes, digest } = blobOf(1000)
    upstream.head = () => ({ size: 1000 })
    const refused = blobs.open(targetOf('private/app'), digest)
    const request = await upstream.next()
    const follower = blobs.open(target, digest)
    // The follower was confirmed by HEAD and waits for the same download.
    while (upstream.heads.length === 0) await new Promise(setImmediate)
    await new Promise(setImmediate)
    request.fail(new UpstreamError('denied', 'puppet.test', 'http_403', 'no', { status: 403 }))
    await expect(refused).rejects.toMatchObject({ failure: 'denied' })
    const second = await upstream.next()
    expect(second.repository).toBe('library/app')
    const body = second.answer({ size: 1000 })
    body.send(bytes)
    body.end()
    expect((await readAll(await follower)).equals(bytes)).toBe(true)
  })
})

describe('starting a fill', () => {
  /** The store answers when the test says so. */
  function slowStore() {
    const asked = Promise.withResolvers<void>()
    const answer = Promise.withResolvers<void>()
    const options: Parameters<typeof setUp>[0] = {
      wrap: ({ store }) => ({
        store: {
          size: one => store.size(one),
          delete: one => store.delete(one),
          publish: (one, size, spool) => store.publish(one, size, spool),
          open: async one => {
            asked.resolve()
            await answer.promise
            return await store.open(one)
          },
        },
      }),
    }
    return { options, asked: asked.promise, answer: answer.resolve }
  }

  it('T-35: is not done for a client that left while the store was asked', async () => {
    const { options, asked, answer } = slowStore()
    const { blobs, upstream } = await setUp(options)
    const client = new AbortController()
    const opening = blobs.open(target, blobOf(1000).digest, client.signal)
    await asked
    client.abort(new Error('the client left'))
    answer()
    await expect(opening).rejects.toThrow('the client left')
    expect(upstream.requests).toEqual([])
    expect(blobs.running).toBe(0)
  })

  it('F-41: is not done any more once it was closed', async () => {
    const { options, asked, answer } = slowStore()
    const { blobs, upstream } = await setUp(options)
    const opening = blobs.open(target, blobOf(1000).digest)
    await asked
    await blobs.close()
    answer()
    await expect(opening).rejects.toMatchObject({ status: 503 })
    expect(upstream.requests).toEqual([])
    expect(blobs.running).toBe(0)
  })
})

describe('ranges during a fill', () => {
  it('P-119: a near range waits for its bytes and takes them from the fill', async () => {
    const { bytes, body, first, upstream } = await begun()
    const range = { start: 100 * kib, end: 200 * kib }
    const reading = readAll(first, range)
    body.send(bytes.subarray(64 * kib))
    body.end()
    expect((await reading).equals(bytes.subarray(range.start, range.end + 1))).toBe(true)
    expect(upstream.requests).toHaveLength(1)
  })

  it('P-59: the last byte of a near range waits for the verification of the whole blob', async () => {
    const { bytes, body, first } = await begun()
    const reader = first.reader({ start: 1000, end: 1999 })
    const own = Buffer.alloc(64 * kib)
    expect((await reader.read(1000, 1000, () => own)).length).toBe(999)
    let completed = false
    const last = Promise.resolve(reader.read(1999, 1, () => own)).then(chunk => {
      completed = true
      return Buffer.from(chunk)
    })
    body.send(bytes.subarray(64 * kib))
    await new Promise(setImmediate)
    expect(completed).toBe(false)
    body.end()
    expect(await last).toEqual(bytes.subarray(1999, 2000))
    reader.close()
    first.close()
  })

  it('T-20: a near range is not completed when a byte elsewhere in the blob was wrong', async () => {
    const { bytes, body, first } = await begun()
    const reading = readUntilBroken(first, { start: 1000, end: 1999 })
    body.send(bytesOf(bytes.length - 64 * kib, 5))
    body.end()
    expect(await reading).toMatchObject({ bytes: 999, error: { reason: 'digest_mismatch' } })
  })

  it('P-119: a far range is fetched beside it, its last byte waits for the verification', async () => {
    const { bytes, body, first, upstream } = await begun({ fills: { nearBytes: 0 } })
    const range = { start: 400 * kib, end: 450 * kib - 1 }
    const reader = first.reader(range)
    const own = Buffer.alloc(64 * kib)
    const pending = reader.read(range.start, 50 * kib, () => own)
    const side = await upstream.next()
    expect([side.offset, side.end]).toEqual([range.start, range.end])
    const sideBody = side.answer({ size: bytes.length })
    sideBody.send(bytes.subarray(range.start, range.end + 1))
    sideBody.end()
    const head = Buffer.from(await pending)
    expect(head.equals(bytes.subarray(range.start, range.end))).toBe(true)
    const last = reader.read(range.end, 1, () => own)
    body.send(bytes.subarray(64 * kib))
    body.end()
    expect(Buffer.from(await last)).toEqual(bytes.subarray(range.end, range.end + 1))
    reader.close()
    first.close()
  })

  it('P-119, T-20: a far range whose bytes differ from the verified blob is never completed', async () => {
    const { bytes, body, first, upstream } = await begun({ fills: { nearBytes: 0 } })
    const range = { start: 400 * kib, end: 450 * kib - 1 }
    const reading = readUntilBroken(first, range)
    const side = (await upstream.next()).answer({ size: bytes.length })
    side.send(bytesOf(50 * kib, 77))
    side.end()
    body.send(bytes.subarray(64 * kib))
    body.end()
    const { bytes: got, error } = await reading
    expect(got).toBeLessThan(50 * kib)
    expect(error).toMatchObject({ reason: 'digest_mismatch' })
  })

  it('P-119: a far range whose own request fails is answered by the fill', async () => {
    const { bytes, body, first, upstream } = await begun({ fills: { nearBytes: 0 } })
    const range = { start: 400 * kib, end: 450 * kib - 1 }
    const reading = readAll(first, range)
    const side = (await upstream.next()).answer({ size: bytes.length })
    side.send(bytes.subarray(range.start, range.start + 1000))
    side.break()
    body.send(bytes.subarray(64 * kib))
    body.end()
    expect((await reading).equals(bytes.subarray(range.start, range.end + 1))).toBe(true)
  })

  it('P-119: with earlyRanges a far range is complete when its bytes are here', async () => {
    const { bytes, first, upstream } = await begun({ fills: { nearBytes: 0, earlyRanges: true } })
    const range = { start: 400 * kib, end: 450 * kib - 1 }
    const reading = readAll(first, range)
    const side = (await upstream.next()).answer({ size: bytes.length })
    side.send(bytes.subarray(range.start, range.end + 1))
    expect((await reading).equals(bytes.subarray(range.start, range.end + 1))).toBe(true)
  })

  it('P-51: an open-ended range that the client leaves behind does not disturb the fill', async () => {
    const { blobs, bytes, digest, body, first, upstream } = await begun()
    const chunk = await blobs.open(target, digest)
    const reader = chunk.reader({ start: 0, end: bytes.length - 1 })
    await reader.read(0, 1000, () => Buffer.alloc(1000))
    reader.close()
    chunk.close()
    const reading = readAll(first)
    body.send(bytes.subarray(64 * kib))
    body.end()
    expect((await reading).equals(bytes)).toBe(true)
    expect(upstream.requests).toHaveLength(1)
  })
})

describe('a fill without room on disk', () => {
  const failing = (at: number): Parameters<typeof setUp>[0] => ({
    wrap: ({ spool }) => ({
      spool: {
        create: async expected => {
          const file = await spool.create(expected)
          if (!file) return undefined
          const write: SpoolFile['write'] = async (chunks, position) => {
            const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
            if (position + length > at) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
            await file.write(chunks, position)
          }
          return {
            path: file.path,
            write,
            read: file.read.bind(file),
            close: file.close.bind(file),
            discard: file.discard.bind(file),
          }
        },
      },
    }),
  })

  it('F-34: streams to everybody when the disk is full from the start, and keeps nothing', async () => {
    const length = 12 * 1024 * kib
    const { blobs, bytes, digest, body, first, stores, ends } = await begun({ length, sent: 0, ...failing(0) })
    const second = await blobs.open(target, digest)
    const reading = [readAll(first), readAll(second)]
    for (let position = 0; position < length; position += 256 * kib)
      body.send(bytes.subarray(position, position + 256 * kib))
    body.end()
    for (const got of await Promise.all(reading)) expect(got.equals(bytes)).toBe(true)
    await blobs.close()
    expect(ends).toEqual(['uncached'])
    expect(await stores.blobs.size(digest)).toBeUndefined()
    expect(stores.usage().reservedBytes).toBe(0)
  })

  it('F-34: streams to everybody when the disk fills up on the way', async () => {
    const length = 12 * 1024 * kib
    const { bytes, body, first, storeFailures, ends, blobs } = await begun({
      length,
      sent: 0,
      ...failing(3 * 1024 * kib),
    })
    const reading = readAll(first)
    for (let position = 0; position < length; position += 256 * kib)
      body.send(bytes.subarray(position, position + 256 * kib))
    body.end()
    expect((await reading).equals(bytes)).toBe(true)
    await blobs.close()
    expect(ends).toEqual(['uncached'])
    expect(storeFailures).toContain('spool')
  })

  it('F-34, P-119: a far range whose client is alone does not hold up the download that it waits for', async () => {
    const length = 14 * 1024 * kib
    const { bytes, body, first, upstream } = await begun({ length, sent: 0, fills: { nearBytes: 0 }, ...failing(0) })
    const range = { start: 2 * 1024 * kib, end: 8 * 1024 * kib }
    const reading = readAll(first, range)
    const side = (await upstream.next()).answer({ size: length })
    side.send(bytes.subarray(range.start, range.end + 1))
    side.end()
    for (let position = 0; position < length; position += 256 * kib)
      body.send(bytes.subarray(position, position + 256 * kib))
    body.end()
    expect((await reading).equals(bytes.subarray(range.start, range.end + 1))).toBe(true)
  })

  it('F-34: a spool that comes into being after the download failed is closed and gives its room back', async () => {
    const create = Promise.withResolvers<void>()
    const closed = Promise.withResolvers<void>()
    const { bytes, body, first, stores } = await begun({
      sent: 0,
      wrap: ({ spool }) => ({
        spool: {
          create: async expected => {
            await create.promise
            const file = await spool.create(expected)
            if (!file) return undefined
            const close = async (): Promise<void> => {
              await file.close()
              closed.resolve()
            }
            const { path } = file
            return {
              path,
              write: file.write.bind(file),
              read: file.read.bind(file),
              close,
              discard: () => file.discard(),
            }
          },
        },
      }),
    })
    const reading = readUntilBroken(first)
    body.send(bytesOf(bytes.length, 9))
    body.end()
    expect(await reading).toMatchObject({ error: { reason: 'digest_mismatch' } })
    create.resolve()
    await closed.promise
    expect(stores.usage().reservedBytes).toBe(0)
  })

  it('F-34: still refuses wrong bytes', async () => {
    const { bytes, body, first } = await begun({ sent: 0, ...failing(0) })
    const reading = readUntilBroken(first)
    body.send(bytesOf(bytes.length, 9))
    body.end()
    expect(await reading).toMatchObject({ error: { reason: 'digest_mismatch' } })
  })

  it('F-34: a blob larger than the whole budget is streamed and not kept', async () => {
    const { bytes, body, first, ends, blobs } = await begun({ length: 2 * 1024 * kib, sent: 0, maxBytes: 1024 * kib })
    const reading = readAll(first)
    body.send(bytes)
    body.end()
    expect((await reading).equals(bytes)).toBe(true)
    await blobs.close()
    expect(ends).toEqual(['uncached'])
  })
})

describe('fetching ahead', () => {
  it('prefetches in the background, once, and a client joins what runs', async () => {
    const { blobs, upstream } = await setUp()
    const { bytes, digest } = blobOf(1000)
    const opening = blobs.open(target, digest)
    const request = await upstream.next()
    expect(request.background).toBe(false)
    const other = blobOf(2000, 5)
    blobs.prefetch(target, [other.digest, other.digest])
    const ahead = await upstream.next()
    expect([ahead.digest, ahead.background]).toEqual([other.digest, true])
    const body = ahead.answer({ size: 2000 })
    body.send(other.bytes)
    body.end()
    request.answer({ size: 1000 }).send(bytes)
    ;(await opening).close()
    expect((await readAll(await blobs.open(target, other.digest))).equals(other.bytes)).toBe(true)
    expect(upstream.requests).toHaveLength(2)
  })
})
