import { describe, expect, it } from 'vitest'
import type { ServedManifest } from '../../src/cache/manifests.ts'
import type { ContentRejected } from '../../src/log/observer.ts'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { ociIndexType, ociManifestType } from '../fakes/image.ts'
import { linkKey } from '../fakes/memory-metadata.ts'
import { ScriptedUpstream } from '../fakes/scripted-upstream.ts'
import { reference, targetOf } from '../fakes/targets.ts'
import { document, image, index, manifestsRoom, maxStaleMs, type Room, ttlMs } from './manifests-room.ts'

const alpine = targetOf('library/alpine')
const copy = targetOf('copies/alpine')

const pull = async (room: Room, text = 'latest', target = alpine): Promise<ServedManifest> =>
  room.manifests.get(target, reference(text))

/** What a client is told instead. */
async function refusal(answer: Promise<unknown>): Promise<RegistryError> {
  const error: unknown = await answer.then(
    () => undefined,
    thrown => thrown,
  )
  if (!(error instanceof RegistryError)) throw new Error('expected a RegistryError', { cause: error })
  return error
}

/** What who watches is told of it; `digest` is what was asked for. */
const rejectedManifest = (reason: string, digest?: Digest): ContentRejected => ({
  upstream: 'docker.io',
  kind: 'manifest',
  digest,
  reason,
})

/** What must be there for the test to mean anything. */
function found<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the test has nothing to work on')
  return value
}

/** A tag that was pulled and has expired, with its blobs in the store. */
async function staleRoom(options: Parameters<typeof manifestsRoom>[0] = {}) {
  const room = manifestsRoom(options)
  const content = image(1)
  const digest = room.upstream.push('library/alpine', 'latest', content)
  await pull(room)
  for (const blob of content.blobs) room.stored.add(blob)
  room.clock.advance(ttlMs + 1000)
  return { room, digest, blobs: content.blobs }
}

async function cachedRoom() {
  const online = manifestsRoom()
  const content = image(1)
  const digest = online.upstream.push('library/alpine', 'latest', content)
  await pull(online)
  for (const blob of content.blobs) online.stored.add(blob)
  return { room: online.restart({ offline: true }), digest, blobs: content.blobs }
}

describe('a manifest by tag', () => {
  it('P-47: is fetched once, then served from memory without a promise while it is fresh', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    expect(await pull(room)).toMatchObject({ digest, outcome: 'fill', byTag: true, ageMs: 0, ttlMs, warnings: [] })
    room.upstream.fail('unavailable')
    room.clock.advance(ttlMs - 1)
    const second = room.manifests.get(alpine, reference('latest'))
    expect(second).not.toBeInstanceOf(Promise)
    expect(second).toMatchObject({ digest, outcome: 'hit', ageMs: ttlMs - 1 })
    expect(room.upstream.count()).toBe(1)
  })

  it('P-29, P-38: keeps the bytes exactly and computes the digest from them', async () => {
    const room = manifestsRoom()
    const odd = document(
      '\uFEFF{\r\n  "schemaVersion":2 ,"layers":[], "config":{"size":9007199254740993}}\n\n',
      ociManifestType,
    )
    room.upstream.push('library/alpine', 'odd', odd)
    const served = await pull(room, 'odd')
    expect(Buffer.from(served.bytes)).toEqual(odd.bytes)
    expect(served.digest).toBe(digestOf(odd.bytes))
    expect(Buffer.from((await pull(room.restart(), 'odd')).bytes)).toEqual(odd.bytes)
  })

  it('P-47: is confirmed by one HEAD when it is stale and has not moved', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    room.clock.advance(ttlMs)
    expect(await pull(room)).toMatchObject({ outcome: 'revalidated', ageMs: 0 })
    expect(room.upstream.calls.map(call => call.kind)).toEqual(['get', 'head'])
    expect(await pull(room)).toMatchObject({ outcome: 'hit' })
  })

  it('P-47: follows the tag by GET of the digest that HEAD named', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    const moved = room.upstream.push('library/alpine', 'latest', image(2))
    room.clock.advance(ttlMs)
    expect(await pull(room)).toMatchObject({ outcome: 'fill', digest: moved })
    expect(room.upstream.calls.at(-1)).toMatchObject({ kind: 'get', reference: moved })
  })

  it('moves to a manifest that is already here without fetching it again', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    const edge = room.upstream.push('library/alpine', 'edge', image(2))
    await pull(room)
    await pull(room, 'edge')
    room.upstream.push('library/alpine', 'latest', image(2))
    room.clock.advance(ttlMs)
    expect(await pull(room)).toMatchObject({ digest: edge, outcome: 'revalidated' })
    expect(room.upstream.count('get')).toBe(2)
  })

  it('F-30: stores what GET gave when the tag moves between HEAD and GET', async () => {
    const room = manifestsRoom()
    const { upstream } = room
    upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    const second = upstream.push('library/alpine', 'latest', image(2))
    room.clock.advance(ttlMs)
    let third = second
    upstream.failing = call => {
      if (call.kind === 'get' && call.reference === second) {
        // Moved on, and the second one is deleted, before its GET arrives.
        upstream.repository('library/alpine').manifests.delete(second)
        third = upstream.push('library/alpine', 'latest', image(3))
        return upstream.error('notFound', 'http_404')
      }
      return undefined
    }
    const served = await pull(room)
    expect(served.digest).toBe(third)
    expect(served.digest).not.toBe(second)
    expect(digestOf(served.bytes)).toBe(third)
    expect(room.metadata.tags.get('docker.io library/alpine latest')?.digest).toBe(third)
  })

  it('P-40: is asked by GET where HEAD does not say the digest, and that is remembered', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    room.upstream.headDigest = false
    await pull(room)
    room.clock.advance(ttlMs)
    expect(await pull(room)).toMatchObject({ outcome: 'revalidated', digest })
    room.clock.advance(ttlMs)
    await pull(room)
    expect(room.upstream.calls.map(call => call.kind)).toEqual(['get', 'head', 'get', 'get'])
    room.clock.advance(600_000)
    await pull(room)
    expect(room.upstream.calls.slice(-2).map(call => call.kind)).toEqual(['head', 'get'])
  })

  it.each(['denied', 'invalid'] as const)('F-32: is asked by GET where HEAD is answered with %s', async failure => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    room.upstream.failing = call => (call.kind === 'head' ? room.upstream.error(failure, 'http_405') : undefined)
    await pull(room)
    const moved = room.upstream.push('library/alpine', 'latest', image(2))
    room.clock.advance(ttlMs)
    expect(await pull(room)).toMatchObject({ digest: moved, outcome: 'fill' })
    room.clock.advance(ttlMs)
    await pull(room)
    expect(room.upstream.count('head')).toBe(1)
  })

  it('P-103: passes on what upstream warned about', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    room.upstream.warnings = ['299 - "this image is old"']
    expect((await pull(room)).warnings).toEqual(['299 - "this image is old"'])
    expect(await pull(room)).toMatchObject({ outcome: 'hit', warnings: ['299 - "this image is old"'] })
  })

  it('F-65: is written after the manifest and its links', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    expect(room.metadata.writes).toEqual(['putManifest', 'putLinks named', 'putLinks confirmed', 'putTag'])
  })

  it('F-62, F-65: is fetched again when its manifest was dropped from the store', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    room.metadata.manifests.clear()
    const again = room.restart()
    expect(await pull(again)).toMatchObject({ digest, outcome: 'fill' })
    expect(room.metadata.manifests.size).toBe(1)
  })

  it('P-48: needs no upstream after a restart while it is fresh', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    room.upstream.fail('unavailable')
    expect(await pull(room.restart())).toMatchObject({ digest, outcome: 'hit' })
  })

  it('takes what another replica found out meanwhile', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    room.clock.advance(ttlMs)
    const moved = room.upstream.push('library/alpine', 'latest', image(2))
    await pull(room.restart())
    const asked = room.upstream.count()
    expect(await pull(room)).toMatchObject({ digest: moved, outcome: 'hit' })
    expect(room.upstream.count()).toBe(asked)
  })

  it('is as old as the question, however long the answer took', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    const gate = Promise.withResolvers<void>()
    room.upstream.gate = gate.promise
    const slow = pull(room)
    await expect.poll(() => room.upstream.count()).toBe(1)
    room.clock.advance(ttlMs - 1)
    gate.resolve()
    await slow
    expect(await pull(room)).toMatchObject({ outcome: 'hit', ageMs: ttlMs - 1 })
    room.clock.advance(1)
    expect(await pull(room)).toMatchObject({ outcome: 'revalidated' })
  })

  it('F-42: does not count as fresh for a day because the wall clock went back', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    room.clock.jump(-86_400_000)
    room.clock.advance(ttlMs - 1)
    expect(await pull(room)).toMatchObject({ outcome: 'hit' })
    expect(await pull(room.restart())).toMatchObject({ outcome: 'revalidated' })
  })

  it('F-20: fails for everybody who waits in the same way, with one question', async () => {
    const room = manifestsRoom()
    room.upstream.fail('unavailable', 'timeout')
    const errors = await Promise.all(Array.from({ length: 20 }, () => refusal(pull(room))))
    expect(new Set(errors).size).toBe(1)
    expect(errors[0]).toMatchObject({ status: 503, code: 'UNAVAILABLE' })
    expect(room.upstream.count()).toBe(1)
  })

  it('F-28: is revalidated once for all who wait', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    const first = await Promise.all(Array.from({ length: 20 }, () => pull(room)))
    expect(first.map(({ outcome }) => outcome).sort()).toEqual(['fill', ...Array.from({ length: 19 }, () => 'joined')])
    room.clock.advance(ttlMs)
    const second = await Promise.all(Array.from({ length: 20 }, () => pull(room)))
    expect(new Set(second.map(({ outcome }) => outcome))).toEqual(new Set(['revalidated']))
    expect(room.upstream.calls.map(call => call.kind)).toEqual(['get', 'head'])
  })

  it('F-17: is fetched to the end although the client that asked first has left', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    const gate = Promise.withResolvers<void>()
    room.upstream.gate = gate.promise
    const leaver = new AbortController()
    const leaving = room.manifests.get(alpine, reference('latest'), { signal: leaver.signal })
    const staying = pull(room)
    leaver.abort(new Error('the client left'))
    await expect(leaving).rejects.toThrow('the client left')
    gate.resolve()
    expect(await staying).toMatchObject({ digest, outcome: 'joined' })
    expect(room.upstream.count()).toBe(1)
  })

  it('does not even look at the signal when there is nothing to wait for', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    const waiting = {
      get signal(): AbortSignal {
        throw new Error('it was looked at')
      },
    }
    expect(room.manifests.get(alpine, reference('latest'), waiting)).toMatchObject({ outcome: 'hit' })
    expect(room.manifests.get(alpine, reference(digest), waiting)).toMatchObject({ outcome: 'hit' })
  })

  it('T-24: shares nothing with a tag of another repository or upstream', async () => {
    const quay = new ScriptedUpstream('quay.io')
    const room = manifestsRoom({ others: [quay] })
    const here = room.upstream.push('library/alpine', 'latest', image(1))
    const there = quay.push('library/alpine', 'latest', image(2))
    expect((await pull(room)).digest).toBe(here)
    expect((await pull(room, 'latest', targetOf('library/alpine', 'quay.io'))).digest).toBe(there)
    expect(await refusal(pull(room, 'latest', copy))).toMatchObject({ status: 404 })
  })

  it('tells whoever prefetches once for each manifest that is new', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    room.upstream.push('library/alpine', 'again', image(1))
    await pull(room)
    await pull(room, 'again')
    await pull(room, digest)
    expect(room.announced).toMatchObject([{ repository: 'library/alpine', digest }])
  })

  it('keeps the same slot for prepared headers while the manifest is in memory', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    const first = await pull(room)
    first.slot.headers = ['prepared']
    expect((await pull(room)).slot.headers).toEqual(['prepared'])
  })

  it('stays within its memory and reads from the store what does not fit', async () => {
    const room = manifestsRoom({ memoryBytes: 16 * 1024 })
    for (const tag of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']) {
      room.upstream.push('library/alpine', tag, image(tag))
      await pull(room, tag)
    }
    expect(room.manifests.get(alpine, reference('a'))).toBeInstanceOf(Promise)
    expect(await pull(room, 'a')).toMatchObject({ outcome: 'hit' })
    expect(room.upstream.count()).toBe(8)
  })
})

describe('a stale tag', () => {
  it.each([
    ['F-27', 'unavailable', 'timeout', 'timeout'],
    ['F-25', 'unavailable', 'dns', 'dns'],
    ['F-26', 'unavailable', 'tls', 'tls'],
    ['P-99', 'rateLimited', 'http_429', 'rate_limited'],
    ['F-29', 'denied', 'http_401', 'http_401'],
    ['F-31', 'invalid', 'html', 'html'],
    ['T-2', 'refused', 'redirect', 'redirect'],
  ] as const)('%s: is served with a warning when upstream is %s (%s)', async (_, failure, reason, word) => {
    const { room, digest } = await staleRoom()
    room.upstream.fail(failure, reason)
    expect(await pull(room)).toMatchObject({
      digest,
      outcome: 'stale',
      ageMs: ttlMs + 1000,
      warnings: [`299 - "stale: docker.io cannot be asked (${word}), last checked 61 s ago"`],
    })
  })

  it('F-28: is not asked for again for some seconds after a failure, then is', async () => {
    const { room } = await staleRoom()
    room.upstream.fail('unavailable')
    const asked = room.upstream.count()
    for (let i = 0; i < 5; i++) expect(await pull(room)).toMatchObject({ outcome: 'stale' })
    expect(room.upstream.count()).toBe(asked + 1)
    room.upstream.fail()
    room.clock.advance(10_000)
    expect(await pull(room)).toMatchObject({ outcome: 'revalidated', warnings: [] })
  })

  it('P-99: rests for as long as Retry-After says, within a minute', async () => {
    const { room } = await staleRoom()
    room.upstream.fail('rateLimited', 'http_429', 30_000)
    await pull(room)
    const asked = room.upstream.count()
    room.clock.advance(29_000)
    await pull(room)
    expect(room.upstream.count()).toBe(asked)
    room.clock.advance(2_000)
    await pull(room)
    expect(room.upstream.count()).toBe(asked + 1)
  })

  it('F-27: is 503 with Retry-After when it is older than maxStale, and fine once upstream is back', async () => {
    const { room } = await staleRoom()
    room.clock.advance(maxStaleMs)
    room.upstream.fail('unavailable', 'timeout')
    const error = await refusal(pull(room))
    expect(error).toMatchObject({ status: 503, code: 'UNAVAILABLE' })
    expect(error.headers['retry-after']).toMatch(/^[1-9]\d*$/)
    room.upstream.fail()
    expect(await pull(room)).toMatchObject({ outcome: 'revalidated' })
  })

  it('P-97: of a repository that upstream denies is 403 when it is too old, never a challenge', async () => {
    const { room } = await staleRoom()
    room.clock.advance(maxStaleMs)
    room.upstream.fail('denied', 'http_401')
    const error = await refusal(pull(room))
    expect(error).toMatchObject({ status: 403, code: 'DENIED' })
    expect(error.headers).toEqual({})
  })

  it('F-29: is forgotten when upstream says 404 to HEAD and to GET', async () => {
    const { room } = await staleRoom()
    room.upstream.repository('library/alpine').tags.delete('latest')
    expect(await refusal(pull(room))).toMatchObject({ status: 404, code: 'MANIFEST_UNKNOWN' })
    expect(room.upstream.calls.slice(-2).map(call => call.kind)).toEqual(['head', 'get'])
    expect(room.metadata.tags.size).toBe(0)
    room.upstream.fail('unavailable')
    room.clock.advance(6_000)
    expect(await refusal(pull(room))).toMatchObject({ status: 503 })
  })

  it('F-29: is kept when only HEAD says 404', async () => {
    const { room, digest } = await staleRoom()
    room.upstream.failing = call => (call.kind === 'head' ? room.upstream.error('notFound', 'http_404') : undefined)
    expect(await pull(room)).toMatchObject({ digest, outcome: 'revalidated' })
  })

  it('F-29: is served on when upstream says 404 and whenGone is serve, also beyond maxStale', async () => {
    const { room, digest } = await staleRoom({ settings: { whenGone: 'serve' } })
    room.upstream.repository('library/alpine').tags.delete('latest')
    room.clock.advance(maxStaleMs)
    const served = await pull(room)
    expect(served).toMatchObject({ digest, outcome: 'stale' })
    expect(served.warnings[0]).toContain('stale: docker.io no longer has this, last checked')
    const asked = room.upstream.count()
    await pull(room)
    expect(room.upstream.count()).toBe(asked)
  })

  it('is not offered when one of its blobs is missing, so that clients go elsewhere at once', async () => {
    const { room, blobs } = await staleRoom()
    room.stored.delete(found(blobs[1]))
    room.upstream.fail('unavailable')
    const error = await refusal(pull(room))
    expect(error).toMatchObject({ status: 503, code: 'UNAVAILABLE' })
    expect(error.message).toContain('blobs')
  })

  it('is offered with blobs missing when a mirror has them', async () => {
    const { room, digest, blobs } = await staleRoom({ sources: 2 })
    const missing = found(blobs[1])
    room.stored.delete(missing)
    room.upstream.failing = call => (call.kind === 'head' ? room.upstream.error('unavailable', 'timeout') : undefined)
    expect(await refusal(pull(room))).toMatchObject({ status: 503 })
    room.upstream.blobs.add(`library/alpine ${missing}`)
    expect(await pull(room)).toMatchObject({ digest, outcome: 'stale' })
  })

  it('F-62: whose manifest was dropped from the store is asked for again at once, and had from a mirror meanwhile', async () => {
    const { room, digest } = await staleRoom({ sources: 2 })
    room.upstream.push('library/alpine', 'latest', image(1), { source: 1 })
    room.metadata.manifests.clear()
    const again = room.restart()
    room.upstream.fail('unavailable', 'timeout')
    expect(await refusal(pull(again))).toMatchObject({ status: 503 })
    room.upstream.failing = call => (call.source === 0 ? room.upstream.error('unavailable', 'timeout') : undefined)
    expect(await pull(again)).toMatchObject({ digest, outcome: 'fill' })
    room.upstream.fail()
    room.clock.advance(10_000)
    expect(await pull(again)).toMatchObject({ digest, outcome: 'revalidated' })
  })

  it('is offered when it is an index: its images are looked at when they are asked for', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'multi', index([{ digest: digestOf(image(1).bytes), size: 1 }]))
    await pull(room, 'multi')
    room.clock.advance(ttlMs)
    room.upstream.fail('unavailable')
    expect(await pull(room, 'multi')).toMatchObject({ outcome: 'stale', mediaType: ociIndexType })
  })

  it('P-34: that moved to something refused is served as it was', async () => {
    const { room, digest } = await staleRoom()
    room.upstream.push('library/alpine', 'latest', document('<html>', 'text/html'))
    expect(await pull(room)).toMatchObject({ digest, outcome: 'stale' })
    expect(room.metadata.manifests.size).toBe(1)
  })

  it('T-13: gives those who wait nothing when there is nothing that they may have', async () => {
    const { room } = await staleRoom()
    room.clock.advance(maxStaleMs)
    const gate = Promise.withResolvers<void>()
    room.upstream.gate = gate.promise
    room.upstream.fail('unavailable', 'timeout')
    const waiting = Array.from({ length: 3 }, () => refusal(pull(room)))
    gate.resolve()
    for (const error of await Promise.all(waiting)) expect(error.status).toBe(503)
  })
})

describe('while the breaker is open', () => {
  it('F-27: serves fresh tags and digests whose blobs are all here, and no others', async () => {
    const room = manifestsRoom()
    const whole = image(1)
    const digest = room.upstream.push('library/alpine', 'latest', whole)
    room.upstream.push('library/alpine', 'partial', image(2))
    const multi = room.upstream.push('library/alpine', 'multi', index([{ digest, size: whole.bytes.length }]))
    for (const tag of ['latest', 'partial', 'multi']) await pull(room, tag)
    for (const blob of whole.blobs) room.stored.add(blob)
    room.upstream.state = 'open'
    const asked = room.upstream.count()
    expect(await pull(room)).toMatchObject({ outcome: 'hit' })
    expect(await pull(room, digest)).toMatchObject({ outcome: 'hit' })
    expect(await pull(room, multi)).toMatchObject({ outcome: 'hit' })
    expect(await refusal(pull(room, 'partial'))).toMatchObject({ status: 503 })
    expect(await refusal(pull(room, digestOf(image(2).bytes)))).toMatchObject({ status: 503 })
    expect(room.upstream.count()).toBe(asked)
  })
})

describe('a manifest by digest', () => {
  it('P-39, P-48: is fetched once, never asked for again, and never expires', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', undefined, image(1))
    expect(await pull(room, digest)).toMatchObject({ digest, outcome: 'fill', byTag: false, ttlMs: undefined })
    room.upstream.fail('denied')
    room.clock.advance(365 * 86_400_000)
    const second = room.manifests.get(alpine, reference(digest))
    expect(second).not.toBeInstanceOf(Promise)
    expect(second).toMatchObject({ outcome: 'hit', warnings: [] })
    expect(await pull(room.restart(), digest)).toMatchObject({ outcome: 'hit' })
    expect(room.upstream.count()).toBe(1)
  })

  it('T-27: is verified with the algorithm that was asked for', async () => {
    const room = manifestsRoom()
    const long = room.upstream.push('library/alpine', undefined, image(1), { algorithm: 'sha512' })
    const short = room.upstream.push('library/alpine', undefined, image(1))
    expect(await pull(room, long)).toMatchObject({ digest: long })
    expect(await pull(room, short)).toMatchObject({ digest: short, outcome: 'fill' })
  })

  it('P-39, T-20: is refused when the bytes are others: 502, seen by who watches, nothing stored', async () => {
    const room = manifestsRoom()
    const digest = digestOf(image(1).bytes)
    room.upstream.repository('library/alpine').manifests.set(digest, image(2))
    expect(await refusal(pull(room, digest))).toMatchObject({ status: 502, code: 'MANIFEST_INVALID' })
    expect(room.observed.rejected).toEqual([rejectedManifest('digest_mismatch', digest)])
    // The exchange itself is told by who made it, with the time it took.
    expect(room.observed.outcomes).toEqual([])
    expect(room.metadata.writes).toEqual([])
    room.upstream.repository('library/alpine').manifests.set(digest, image(1))
    expect(await pull(room, digest)).toMatchObject({ outcome: 'fill' })
  })

  it('T-20: is taken from the next mirror when the first source sends other bytes', async () => {
    const room = manifestsRoom({ sources: 3 })
    const digest = digestOf(image(1).bytes)
    room.upstream.repository('library/alpine', 0).manifests.set(digest, image(2))
    room.upstream.repository('library/alpine', 1).manifests.set(digest, image(3))
    room.upstream.push('library/alpine', undefined, image(1), { source: 2 })
    expect(await pull(room, digest)).toMatchObject({ digest, outcome: 'fill' })
    expect(room.observed.rejected).toEqual([
      rejectedManifest('digest_mismatch', digest),
      rejectedManifest('digest_mismatch', digest),
    ])
  })

  it('is taken from a mirror when upstream cannot be asked, but not when upstream denies it', async () => {
    const room = manifestsRoom({ sources: 2 })
    const digest = room.upstream.push('library/alpine', undefined, image(1), { source: 1 })
    const fromUpstream = (failure: 'denied' | 'unavailable') => {
      room.upstream.failing = call => (call.source === 0 ? room.upstream.error(failure, failure) : undefined)
    }
    fromUpstream('denied')
    expect(await refusal(pull(room, digest))).toMatchObject({ status: 403 })
    fromUpstream('unavailable')
    expect(await pull(room, digest)).toMatchObject({ digest, outcome: 'fill' })
  })

  it('T-11: that came through another repository is opened by upstream alone', async () => {
    const room = manifestsRoom()
    const content = image(1)
    const digest = room.upstream.push('library/alpine', 'latest', content)
    await pull(room)
    expect(await refusal(pull(room, digest, copy))).toMatchObject({ status: 404, code: 'MANIFEST_UNKNOWN' })
    room.upstream.push('copies/alpine', undefined, content)
    room.clock.advance(6_000)
    expect(await pull(room, digest, copy)).toMatchObject({ digest, outcome: 'revalidated' })
    expect(room.upstream.calls.map(call => call.kind)).toEqual(['get', 'head', 'head'])
    expect(room.metadata.links.get(linkKey('docker.io', 'copies/alpine', digest))).toBe('confirmed')
    for (const blob of content.blobs)
      expect(room.metadata.links.get(linkKey('docker.io', 'copies/alpine', blob))).toBe('named')
    expect(room.announced).toHaveLength(1)
  })

  it('T-11: that came through another upstream is opened by upstream alone', async () => {
    const quay = new ScriptedUpstream('quay.io')
    const room = manifestsRoom({ others: [quay] })
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    const there = targetOf('library/alpine', 'quay.io')
    expect(await refusal(pull(room, digest, there))).toMatchObject({ status: 404 })
    expect(quay.count()).toBe(1)
  })

  it('T-11: stays closed when upstream cannot be asked, or denies it', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    room.upstream.fail('unavailable')
    expect(await refusal(pull(room, digest, copy))).toMatchObject({ status: 503 })
    room.upstream.fail('denied')
    expect(await refusal(pull(room, digest, copy))).toMatchObject({ status: 403 })
    expect(await refusal(pull(room.restart({ offline: true }), digest, copy))).toMatchObject({ status: 404 })
  })

  it('T-11: is not opened by a manifest that names it', async () => {
    const room = manifestsRoom()
    const content = image(1)
    const digest = room.upstream.push('library/alpine', 'latest', content)
    await pull(room)
    room.upstream.push('copies/alpine', 'index', index([{ digest, size: content.bytes.length }]))
    await pull(room, 'index', copy)
    expect(await refusal(pull(room, digest, copy))).toMatchObject({ status: 404 })
  })

  it('T-12: does not let another repository join a download that upstream denies it', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', undefined, image(1))
    room.upstream.failing = call =>
      call.repository === 'copies/alpine' ? room.upstream.error('denied', 'http_403') : undefined
    const gate = Promise.withResolvers<void>()
    room.upstream.gate = gate.promise
    const allowed = pull(room, digest)
    const other = refusal(pull(room, digest, copy))
    gate.resolve()
    expect(await allowed).toMatchObject({ outcome: 'fill' })
    expect(await other).toMatchObject({ status: 403, code: 'DENIED' })
  })

  it('shares one GET with a tag that is just moving to it', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    const moved = room.upstream.push('library/alpine', 'latest', image(2))
    room.clock.advance(ttlMs)
    const gate = Promise.withResolvers<void>()
    room.upstream.failing = call => {
      if (call.kind === 'head') room.upstream.gate = gate.promise
      return undefined
    }
    const byTag = pull(room)
    const asked = async () => room.upstream.calls.some(call => call.reference === moved)
    await expect.poll(asked).toBe(true)
    const byDigest = pull(room, moved)
    gate.resolve()
    await Promise.all([byTag, byDigest])
    expect(room.upstream.calls.filter(call => call.reference === moved)).toHaveLength(1)
  })

  it.each([0, 20, -1])(
    'T-26: is not believed when the store has other bytes (at %i): it is fetched again',
    async at => {
      const room = manifestsRoom()
      const digest = room.upstream.push('library/alpine', undefined, image(1))
      await pull(room, digest)
      const record = found(room.metadata.manifests.get(digest))
      const broken = Buffer.from(record.bytes)
      broken.writeUInt8(
        broken.readUInt8((at + broken.length) % broken.length) ^ 1,
        (at + broken.length) % broken.length,
      )
      room.metadata.manifests.set(digest, { ...record, bytes: broken })
      const again = room.restart()
      expect(await pull(again, digest)).toMatchObject({ digest, outcome: 'fill' })
      expect(again.observed.failures).toEqual(['getManifest'])
      expect(digestOf(room.metadata.manifests.get(digest)?.bytes ?? Buffer.of())).toBe(digest)
    },
  )

  it('T-26: is not believed when the store has it under another media type', async () => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', undefined, image(1))
    await pull(room, digest)
    const record = found(room.metadata.manifests.get(digest))
    room.metadata.manifests.set(digest, { ...record, mediaType: ociIndexType })
    expect(await pull(room.restart(), digest)).toMatchObject({ mediaType: ociManifestType, outcome: 'fill' })
  })

  it('F-59: is served although the store fails at everything', async () => {
    const room = manifestsRoom()
    room.metadata.failure = new Error('the store is down')
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    expect(await pull(room)).toMatchObject({ digest, outcome: 'fill' })
    expect(await pull(room, digest)).toMatchObject({ outcome: 'hit' })
    expect(room.observed.failures).toContain('putTag')
  })
})

describe('what upstream should not have sent', () => {
  const both = { schemaVersion: 2, config: {}, layers: [], manifests: [] }
  it.each([
    [
      'P-34: a media type that is not the Content-Type',
      'media_type_mismatch',
      document({ ...JSON.parse(image(1).bytes.toString()) }, ociIndexType),
    ],
    ['T-17: an index and an image at once', 'ambiguous', document(both, ociManifestType)],
    ['P-115: a web page', 'syntax', document('<!doctype html>', 'text/html')],
    ['F-31: nothing', 'syntax', document('', ociManifestType)],
    ['F-31: an error document', 'error_body', document({ errors: [{ code: 'X' }] }, 'application/json')],
    ['P-115: something else in JSON', 'structure', document({ hello: 'world' }, 'application/json')],
  ])('%s is 502, told as %s and not kept, by tag and by digest', async (_, reason, content) => {
    const room = manifestsRoom()
    const digest = room.upstream.push('library/alpine', 'latest', content)
    const error = await refusal(pull(room))
    expect(error).toMatchObject({ status: 502, code: 'MANIFEST_INVALID' })
    expect(error.message).toContain('latest')
    expect(await refusal(pull(room, digest))).toMatchObject({ status: 502, code: 'MANIFEST_INVALID' })
    expect(room.observed.rejected).toEqual([rejectedManifest(reason), rejectedManifest(reason, digest)])
    expect(room.metadata.writes).toEqual([])
  })

  it('P-36: schema 1 is 404 with the reason, and not kept', async () => {
    const room = manifestsRoom()
    const type = 'application/vnd.docker.distribution.manifest.v1+prettyjws'
    room.upstream.push('library/alpine', 'old', document({ schemaVersion: 1, fsLayers: [] }, type))
    const error = await refusal(pull(room, 'old'))
    expect(error).toMatchObject({ status: 404, code: 'MANIFEST_UNKNOWN' })
    expect(error.message).toContain('schema 1')
    expect(room.observed.rejected).toEqual([rejectedManifest('schema_1')])
    expect(room.metadata.writes).toEqual([])
  })

  it('P-35: a missing or general Content-Type is replaced by what the body says', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', { bytes: image(1).bytes, mediaType: 'text/plain' })
    expect(await pull(room)).toMatchObject({ mediaType: ociManifestType })
  })

  it('P-42: a manifest over the limit is 502', async () => {
    const room = manifestsRoom()
    room.upstream.fail('invalid', 'too_large')
    expect(await refusal(pull(room))).toMatchObject({ status: 502, code: 'MANIFEST_INVALID' })
  })

  it('P-38: a digest that is not that of the bytes is 502', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    room.upstream.claimedDigest = digestOf(image(2).bytes)
    expect(await refusal(pull(room))).toMatchObject({ status: 502 })
    expect(room.observed.rejected).toEqual([rejectedManifest('digest_mismatch')])
    room.upstream.claimedDigest = 'nonsense'
    expect(await pull(room)).toMatchObject({ digest: digestOf(image(1).bytes) })
  })
})

describe('what upstream does not have', () => {
  it('P-100: is not asked for again for seconds, per repository and reference', async () => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    for (let i = 0; i < 5; i++)
      expect(await refusal(pull(room, 'missing'))).toMatchObject({ status: 404, code: 'MANIFEST_UNKNOWN' })
    expect(room.upstream.count()).toBe(1)
    expect(await refusal(pull(room, 'missing', copy))).toMatchObject({ status: 404 })
    expect(room.upstream.count()).toBe(2)
    room.clock.advance(5_001)
    room.upstream.push('library/alpine', 'missing', image(1))
    expect(await pull(room, 'missing')).toMatchObject({ outcome: 'fill' })
  })

  it('P-100: is forgotten as absent when a tag brings it', async () => {
    const room = manifestsRoom()
    const digest = digestOf(image(1).bytes)
    expect(await refusal(pull(room, digest))).toMatchObject({ status: 404 })
    room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    expect(await pull(room, digest)).toMatchObject({ outcome: 'hit' })
  })

  it('P-100: is forgotten as absent also where nothing can be kept', async () => {
    const room = manifestsRoom({ memoryBytes: 1 })
    room.metadata.failure = new Error('no room')
    const digest = digestOf(image(1).bytes)
    expect(await refusal(pull(room, digest))).toMatchObject({ status: 404 })
    room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    expect(await pull(room, digest)).toMatchObject({ digest, outcome: 'fill' })
  })

  it.each([
    ['denied', 403],
    ['rateLimited', 503],
    ['unavailable', 503],
    ['invalid', 502],
    ['refused', 502],
  ] as const)('P-100, T-23: is not concluded from %s, which is %i', async (failure, status) => {
    const room = manifestsRoom()
    room.upstream.push('library/alpine', 'latest', image(1))
    room.upstream.fail(failure, failure)
    expect(await refusal(pull(room))).toMatchObject({ status })
    room.upstream.fail()
    expect(await pull(room)).toMatchObject({ outcome: 'fill' })
  })

  it('P-102: is not told as 429; Retry-After is passed on in whole seconds', async () => {
    const room = manifestsRoom()
    room.upstream.fail('rateLimited', 'http_429', 41_200)
    const error = await refusal(pull(room))
    expect(error).toMatchObject({ status: 503, code: 'UNAVAILABLE', headers: { 'retry-after': '42' } })
  })
})

describe('mirrors of an upstream that cannot be asked', () => {
  it('T-21: answer for a tag, which is not kept as the tag', async () => {
    const room = manifestsRoom({ sources: 2 })
    const theirs = room.upstream.push('library/alpine', 'latest', image(2), { source: 1 })
    const ours = room.upstream.push('library/alpine', 'latest', image(1))
    room.upstream.failing = call => (call.source === 0 ? room.upstream.error('unavailable', 'timeout') : undefined)
    const served = await pull(room)
    expect(served).toMatchObject({ digest: theirs, outcome: 'fill' })
    expect(served.warnings).toHaveLength(1)
    expect(room.metadata.tags.size).toBe(0)
    expect(await pull(room, theirs)).toMatchObject({ outcome: 'hit' })
    room.upstream.fail()
    expect(await pull(room)).toMatchObject({ digest: ours, outcome: 'fill' })
  })

  it('T-21: are not asked when upstream says that there is no such tag', async () => {
    const room = manifestsRoom({ sources: 2 })
    room.upstream.push('library/alpine', 'latest', image(2), { source: 1 })
    expect(await refusal(pull(room))).toMatchObject({ status: 404 })
    expect(room.upstream.count()).toBe(1)
  })

  it('give the error of upstream when they do not answer either', async () => {
    const room = manifestsRoom({ sources: 3 })
    room.upstream.fail('unavailable', 'timeout')
    expect((await refusal(pull(room))).message).toContain('timeout')
    expect(room.upstream.calls.map(call => call.source)).toEqual([0, 1, 2])
  })

  it('stand in for a tag that is older than maxStale', async () => {
    const room = manifestsRoom({ sources: 2 })
    room.upstream.push('library/alpine', 'latest', image(1))
    const theirs = room.upstream.push('library/alpine', 'latest', image(2), { source: 1 })
    await pull(room)
    room.clock.advance(maxStaleMs + 1)
    room.upstream.failing = call => (call.source === 0 ? room.upstream.error('unavailable', 'timeout') : undefined)
    expect(await pull(room)).toMatchObject({ digest: theirs, outcome: 'fill' })
    expect(room.metadata.tags.get('docker.io library/alpine latest')?.digest).toBe(digestOf(image(1).bytes))
  })
})

describe('offline', () => {
  it('serves tags of any age and digests, and never dials', async () => {
    const { room, digest } = await cachedRoom()
    const asked = room.upstream.count()
    expect(await pull(room)).toMatchObject({ digest, outcome: 'hit', warnings: [] })
    room.clock.advance(100 * maxStaleMs)
    expect(await pull(room)).toMatchObject({ digest, outcome: 'stale' })
    expect((await pull(room)).warnings[0]).toContain('(offline)')
    expect(await pull(room, digest)).toMatchObject({ outcome: 'hit' })
    expect(room.upstream.count()).toBe(asked)
  })

  it('says 404 and why for what is not cached', async () => {
    const { room } = await cachedRoom()
    for (const missing of ['other', digestOf(image(2).bytes)]) {
      const error = await refusal(pull(room, missing))
      expect(error).toMatchObject({ status: 404, code: 'MANIFEST_UNKNOWN' })
      expect(error.message).toContain('offline')
    }
  })

  it('says 404 for an image whose blobs are not all here', async () => {
    const { room, digest, blobs } = await cachedRoom()
    room.stored.delete(found(blobs[0]))
    for (const text of ['latest', digest]) {
      const error = await refusal(pull(room, text))
      expect(error).toMatchObject({ status: 404 })
      expect(error.message).toContain('offline')
    }
  })

  it('says 404 for a tag whose manifest was dropped from the store', async () => {
    const { room } = await cachedRoom()
    room.metadata.manifests.clear()
    expect(await refusal(pull(room))).toMatchObject({ status: 404 })
  })
})

it('names no URL and no cause in what a client is told', async () => {
  const room = manifestsRoom()
  for (const failure of ['notFound', 'denied', 'rateLimited', 'unavailable', 'invalid', 'refused'] as const) {
    room.upstream.failing = () => room.upstream.error(failure, 'reason', undefined, 'the cause: https://x/?a=b')
    const error = await refusal(pull(room, `tag-${failure}`))
    expect(error.message).not.toMatch(/https?:|\?|the cause/)
    expect(error.cause).toBeDefined()
  }
})

it('refuses an upstream that is not configured', () => {
  const room = manifestsRoom()
  expect(() => room.manifests.get(targetOf('a/b', 'unknown.example'), reference('latest'))).toThrow(RegistryError)
})
