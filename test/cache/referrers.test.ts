import { describe, expect, it } from 'vitest'
import { createReferrers } from '../../src/cache/referrers.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { FakeClock } from '../fakes/clock.ts'
import { ociIndexType } from '../fakes/image.ts'
import { MemoryMetadata } from '../fakes/memory-metadata.ts'
import { page, ScriptedUpstream } from '../fakes/scripted-upstream.ts'
import { targetOf } from '../fakes/targets.ts'
import { document, image } from './manifests-room.ts'

const alpine = targetOf('library/alpine')
const subject = digestOf(Buffer.from('an image'))
const fallbackTag = subject.replace(':', '-')
const maxStaleMs = 3_600_000

const signature = { ...descriptor('a signature'), artifactType: 'application/vnd.example.signature' }
const sbom = { ...descriptor('an sbom'), artifactType: 'application/spdx+json', annotations: { constructor: 'x' } }

function descriptor(content: string) {
  const bytes = Buffer.from(content)
  return { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: digestOf(bytes), size: bytes.length }
}

const indexOf = (...manifests: object[]) => ({ schemaVersion: 2, mediaType: ociIndexType, manifests })

const stores = () => ({ clock: new FakeClock(), upstream: new ScriptedUpstream(), metadata: new MemoryMetadata() })

function referrersRoom({
  offline = false,
  kept = stores(),
}: {
  offline?: boolean
  kept?: ReturnType<typeof stores>
} = {}) {
  const { clock, upstream, metadata } = kept
  const queries: string[] = []
  const answers = (content: unknown, next?: string): void => {
    upstream.page = (_, query) => {
      queries.push(query.toString())
      return page(content, next)
    }
  }
  const referrers = createReferrers({
    upstreams: new Map([[upstream.name, upstream]]),
    settings: () => ({ maxStaleMs }),
    metadata,
    clock,
    observer: silentObserver,
    random: () => 0.5,
    offline,
  })
  const list = async (artifactType?: string, query?: string, target = alpine) => {
    const { body, nextQuery, ...rest } = await referrers.list(target, subject, {
      ...(artifactType !== undefined && { artifactType }),
      ...(query !== undefined && { query: new URLSearchParams(query) }),
    })
    return { ...rest, body: JSON.parse(body.toString()), next: nextQuery?.toString() }
  }
  return { clock, upstream, metadata, queries, answers, list }
}

describe('referrers', () => {
  it('P-80: are upstream’s, as an OCI index', async () => {
    const { answers, list } = referrersRoom()
    answers(indexOf(signature, sbom))
    expect(await list()).toMatchObject({
      body: indexOf(signature, sbom),
      mediaType: ociIndexType,
      filtersApplied: undefined,
      outcome: 'fill',
      warnings: [],
    })
  })

  it('P-80: of an unknown digest are an empty index, never 404', async () => {
    const { list } = referrersRoom()
    expect(await list()).toMatchObject({ body: indexOf(), mediaType: ociIndexType, outcome: 'fill' })
  })

  it('P-82: are filtered here when upstream did not, and it is said', async () => {
    const { answers, list, queries } = referrersRoom()
    answers(indexOf(signature, sbom))
    expect(await list(sbom.artifactType)).toMatchObject({ body: indexOf(sbom), filtersApplied: 'artifactType' })
    expect(queries).toEqual(['artifactType=application%2Fspdx%2Bjson'])
    expect(await list('none/such')).toMatchObject({ body: indexOf(), filtersApplied: 'artifactType' })
  })

  it('P-82: are not filtered again when upstream says that it did', async () => {
    const { upstream, list } = referrersRoom()
    const untyped = descriptor('typed by its config, which its descriptor does not say')
    upstream.page = () => ({ ...page(indexOf(untyped)), filtersApplied: 'annotations, artifactType' })
    expect(await list('a/type')).toMatchObject({ body: indexOf(untyped), filtersApplied: 'artifactType' })
  })

  it('P-83: come with what the next page is asked by, which is passed on', async () => {
    const { answers, list, queries } = referrersRoom()
    answers(indexOf(signature), 'artifactType=a%2Fb&nextToken=x%3D&ns=docker.io')
    expect((await list('a/b')).next).toBe('artifactType=a%2Fb&nextToken=x%3D')
    await list('a/b', 'artifactType=other&nextToken=x%3D&ns=docker.io')
    expect(queries[1]).toBe('artifactType=a%2Fb&nextToken=x%3D')
  })

  it('P-84: are kept for 30 seconds, an empty answer for 10', async () => {
    const { clock, upstream, answers, list } = referrersRoom()
    answers(indexOf())
    await list()
    clock.advance(9_999)
    expect(await list()).toMatchObject({ outcome: 'hit' })
    clock.advance(1)
    answers(indexOf(signature))
    expect(await list()).toMatchObject({ outcome: 'fill', body: indexOf(signature) })
    clock.advance(29_999)
    expect(await list()).toMatchObject({ outcome: 'hit' })
    clock.advance(1)
    expect(await list()).toMatchObject({ outcome: 'fill' })
    expect(upstream.count()).toBe(3)
  })

  it('P-84, F-27: are served stale with a warning while upstream cannot be asked, also after a restart', async () => {
    const room = referrersRoom()
    room.answers(indexOf(signature))
    await room.list()
    room.upstream.fail('unavailable', 'timeout')
    room.clock.advance(60_000)
    for (const { list } of [room, referrersRoom({ kept: room })])
      expect(await list()).toMatchObject({
        body: indexOf(signature),
        outcome: 'stale',
        warnings: ['299 - "stale: docker.io cannot be asked (timeout), last checked 60 s ago"'],
      })
    room.clock.advance(maxStaleMs)
    await expect(room.list()).rejects.toMatchObject({ status: 503 })
  })

  it.each([
    ['denied', 403],
    ['unavailable', 503],
    ['rateLimited', 503],
    ['refused', 502],
  ] as const)('are an error, not an empty index, when upstream is %s: %i', async (failure, status) => {
    const { upstream, list } = referrersRoom()
    upstream.fail(failure)
    await expect(list()).rejects.toMatchObject({ status })
  })

  it('are 502 when the API answers with something else', async () => {
    const { answers, list } = referrersRoom()
    answers('<!doctype html>')
    await expect(list()).rejects.toMatchObject({ status: 502 })
  })

  it('T-11: are asked for each repository by itself', async () => {
    const { upstream, answers, list } = referrersRoom()
    answers(indexOf(signature))
    await list()
    upstream.failing = call => (call.repository === 'other/repo' ? upstream.error('denied', 'http_401') : undefined)
    await expect(list(undefined, undefined, targetOf('other/repo'))).rejects.toMatchObject({ status: 403 })
  })

  it('T-53: keep keys that are special in JavaScript as they are', async () => {
    const { answers, list } = referrersRoom()
    const json = `{"schemaVersion":2,"manifests":[{"mediaType":"a/b","digest":"${subject}","size":1,"annotations":{"__proto__":"x"}}]}`
    answers(json)
    const { body } = await list()
    expect(Object.getOwnPropertyNames(body.manifests[0].annotations)).toEqual(['__proto__'])
  })

  it('offline: are what is cached, else an empty index with a warning; nobody is dialled', async () => {
    const online = referrersRoom()
    online.answers(indexOf(signature))
    await online.list()
    const asked = online.upstream.count()
    online.clock.advance(10 * maxStaleMs)
    const { list } = referrersRoom({ offline: true, kept: online })
    expect(await list()).toMatchObject({ body: indexOf(signature), outcome: 'stale' })
    const unknown = await list('another/type')
    expect(unknown).toMatchObject({ body: indexOf(), filtersApplied: 'artifactType' })
    expect(unknown.warnings[0]).toContain('offline')
    expect(online.upstream.count()).toBe(asked)
  })

  it('T-47: that are empty are not put into the store', async () => {
    const { list, answers, metadata } = referrersRoom()
    answers(indexOf(signature))
    await list('invented/type')
    expect(metadata.documents.size).toBe(0)
    await list()
    expect(metadata.documents.size).toBe(1)
  })
})

describe('where upstream has no referrers API', () => {
  it('P-81, P-82: the index under the tag is used, and filtered here', async () => {
    const { upstream, list } = referrersRoom()
    upstream.push('library/alpine', fallbackTag, document(indexOf(signature, sbom), ociIndexType))
    expect(await list()).toMatchObject({ body: indexOf(signature, sbom), filtersApplied: undefined })
    expect(await list(signature.artifactType)).toMatchObject({
      body: indexOf(signature),
      filtersApplied: 'artifactType',
    })
  })

  it('P-81: that is remembered for ten minutes, for this repository alone', async () => {
    const { clock, upstream, list, answers } = referrersRoom()
    await list()
    clock.advance(10_000)
    await list()
    expect(upstream.calls.map(call => call.kind)).toEqual(['referrers', 'get', 'get'])
    // One repository without it does not hide what the API says about others.
    answers(indexOf(signature))
    expect(await list(undefined, undefined, targetOf('library/debian'))).toMatchObject({ body: indexOf(signature) })
    clock.advance(600_000)
    expect(await list()).toMatchObject({ body: indexOf(signature) })
  })

  it('P-85: something else under the tag counts as nothing', async () => {
    const { upstream, list } = referrersRoom()
    upstream.push('library/alpine', fallbackTag, image(1))
    expect(await list()).toMatchObject({ body: indexOf() })
  })

  it('trouble with the tag is not an empty index', async () => {
    const { upstream, list } = referrersRoom()
    upstream.failing = call => (call.kind === 'get' ? upstream.error('unavailable', 'timeout') : undefined)
    await expect(list()).rejects.toMatchObject({ status: 503 })
  })
})
