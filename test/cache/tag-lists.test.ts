import { describe, expect, it } from 'vitest'
import { createTagLists, type TagListQuery } from '../../src/cache/tag-lists.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { FakeClock } from '../fakes/clock.ts'
import { MemoryMetadata } from '../fakes/memory-metadata.ts'
import { page, ScriptedUpstream } from '../fakes/scripted-upstream.ts'
import { targetOf } from '../fakes/targets.ts'

const alpine = targetOf('library/alpine', 'docker.io', 'alpine')
const maxStaleMs = 3_600_000

function tagsRoom({ offline = false, kept = stores() }: { offline?: boolean; kept?: ReturnType<typeof stores> } = {}) {
  const { clock, upstream, metadata } = kept
  const queries: string[] = []
  const answers = (document: unknown, next?: string): void => {
    upstream.page = (_, query) => {
      queries.push(query.toString())
      return page(document, next)
    }
  }
  const lists = createTagLists({
    upstreams: new Map([[upstream.name, upstream]]),
    settings: () => ({ maxStaleMs }),
    metadata,
    clock,
    observer: silentObserver,
    random: () => 0.5,
    offline,
  })
  const list = async (query: Partial<TagListQuery> = {}, target = alpine, signal?: AbortSignal) => {
    const { body, nextQuery, ...rest } = await lists.list(
      target,
      { n: undefined, last: undefined, extra: new URLSearchParams(), ...query },
      signal ? { signal } : {},
    )
    return { ...rest, text: body.toString(), body: JSON.parse(body.toString()), next: nextQuery?.toString() }
  }
  /** A tag that was pulled through this cache. */
  const know = (...tags: string[]) =>
    Promise.all(
      tags.map(tag =>
        metadata.putTag(
          { upstream: 'docker.io', repository: 'library/alpine', tag },
          { digest: digestOf(Buffer.of()), mediaType: 'x', size: 1, checkedAt: 0 },
        ),
      ),
    )
  return { clock, upstream, metadata, queries, answers, list, know }
}

const stores = () => ({ clock: new FakeClock(), upstream: new ScriptedUpstream(), metadata: new MemoryMetadata() })

describe('a tag list', () => {
  it('P-74: is upstream’s page in upstream’s order, under the name that the client used', async () => {
    const { answers, list } = tagsRoom()
    answers({ name: 'library/alpine', tags: ['b', 'a', '10', '9'] })
    expect(await list()).toMatchObject({
      text: '{"name":"alpine","tags":["b","a","10","9"]}',
      outcome: 'fill',
      warnings: [],
      next: undefined,
    })
    const prefixed = targetOf('library/alpine', 'docker.io', 'docker.io/library/alpine')
    expect(await list({}, prefixed)).toMatchObject({ body: { name: 'docker.io/library/alpine' }, outcome: 'hit' })
  })

  it('P-74: that is null or missing nothing is an empty list, never null', async () => {
    const { answers, list } = tagsRoom()
    answers({ name: 'library/alpine', tags: null })
    expect((await list()).text).toBe('{"name":"alpine","tags":[]}')
  })

  it('P-75: passes n and last on, n within bounds', async () => {
    const { answers, list, queries } = tagsRoom()
    answers({ tags: ['a'] })
    await list({ n: '2', last: 'a b&c' })
    await list({ n: '999999999999' })
    await list({ last: 'x' })
    expect(queries).toEqual(['last=a+b%26c&n=2', 'n=10000', 'last=x'])
  })

  it('P-75: of n=0 is empty, without a link and without asking upstream', async () => {
    const { upstream, list } = tagsRoom()
    expect(await list({ n: '0' })).toMatchObject({ body: { name: 'alpine', tags: [] }, next: undefined })
    expect(upstream.count()).toBe(0)
  })

  it.each(['-1', '1.5', 'many', ''])('P-75: of n=%s is 400', async n => {
    await expect(tagsRoom().list({ n })).rejects.toMatchObject({ status: 400, code: 'PAGINATION_NUMBER_INVALID' })
  })

  it('P-76, P-77: gives what the next page is asked by, opaque parameters included, without ns', async () => {
    const { answers, list } = tagsRoom()
    answers({ tags: ['a'] }, 'n=1&next_page=gAAA%3D%3D&ns=docker.io')
    expect((await list({ n: '1' })).next).toBe('n=1&next_page=gAAA%3D%3D')
  })

  it('P-28, P-77: asks upstream with the opaque parameters that came back, and not with ns', async () => {
    const { answers, list, queries } = tagsRoom()
    answers({ tags: ['b'] })
    await list({ n: '1', extra: new URLSearchParams('ns=docker.io&next_page=gAAA%3D%3D&n=7&last=z') })
    expect(queries).toEqual(['n=1&next_page=gAAA%3D%3D'])
  })

  it('P-78: is kept for 30 seconds per exact query', async () => {
    const { clock, upstream, answers, list } = tagsRoom()
    answers({ tags: ['a'] })
    await list()
    await list({ n: '5' })
    clock.advance(29_999)
    expect(await list()).toMatchObject({ outcome: 'hit', ageMs: 29_999 })
    expect(upstream.count()).toBe(2)
    clock.advance(1)
    answers({ tags: ['a', 'b'] })
    expect(await list()).toMatchObject({ outcome: 'fill', body: { tags: ['a', 'b'] } })
  })

  it('F-20: is asked for once by all who wait, and fails for all alike', async () => {
    const { upstream, answers, list } = tagsRoom()
    answers({ tags: ['a'] })
    const outcomes = await Promise.all([list(), list(), list()])
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(['fill', 'joined', 'joined'])
    upstream.fail('unavailable')
    const failures = await Promise.allSettled([list({ n: '3' }), list({ n: '3' })])
    expect(failures.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    expect(upstream.count()).toBe(2)
  })

  it('ends the waiting of a client that leaves, with its own reason', async () => {
    const { upstream, answers, list } = tagsRoom()
    answers({ tags: ['a'] })
    const gate = Promise.withResolvers<void>()
    upstream.gate = gate.promise
    const leaver = new AbortController()
    const leaving = list({}, alpine, leaver.signal)
    const staying = list()
    leaver.abort(new Error('the client left'))
    await expect(leaving).rejects.toThrow('the client left')
    gate.resolve()
    expect(await staying).toMatchObject({ body: { tags: ['a'] } })
  })

  it.each([
    ['a web page', '<!doctype html>'],
    ['another document', { hello: 'world' }],
    ['tags that are no list', { tags: { a: 1 } }],
    ['a bare list', ['a']],
    ['null', 'null'],
  ])('that is %s is 502', async (_, document) => {
    const { answers, list } = tagsRoom()
    answers(document)
    await expect(list()).rejects.toMatchObject({ status: 502, code: 'UNAVAILABLE' })
  })

  it('P-74: of a repository that upstream does not have is 404 NAME_UNKNOWN, also when tags are known here', async () => {
    const { list, know } = tagsRoom()
    await know('a')
    await expect(list()).rejects.toMatchObject({ status: 404, code: 'NAME_UNKNOWN' })
  })
})

describe('a tag list while upstream cannot be asked', () => {
  it('P-78, F-27: is the last page with a warning, also after a restart, up to maxStale', async () => {
    const room = tagsRoom()
    const { clock, upstream, answers, list } = room
    answers({ tags: ['a'] }, 'last=a&n=1')
    await list({ n: '1' })
    upstream.fail('unavailable', 'timeout')
    clock.advance(40_000)
    for (const again of [list, tagsRoom({ kept: room }).list])
      expect(await again({ n: '1' })).toMatchObject({
        body: { tags: ['a'] },
        next: 'last=a&n=1',
        outcome: 'stale',
        ageMs: 40_000,
        warnings: ['299 - "stale: docker.io cannot be asked (timeout), last checked 40 s ago"'],
      })
    clock.advance(maxStaleMs)
    await expect(list({ n: '1' })).rejects.toMatchObject({ status: 503 })
  })

  it('F-28: does not ask again for some seconds', async () => {
    const { clock, upstream, answers, list } = tagsRoom()
    answers({ tags: ['a'] })
    await list()
    upstream.fail('rateLimited')
    clock.advance(30_000)
    await list()
    await list()
    expect(upstream.count()).toBe(2)
    upstream.fail()
    clock.advance(10_000)
    expect(await list()).toMatchObject({ outcome: 'fill' })
  })

  it('P-78: is made of the tags known here when there is no page, sorted and paged, with a warning', async () => {
    const { upstream, list, know } = tagsRoom()
    await know('b', 'a', 'c')
    upstream.fail('denied', 'http_401')
    expect(await list()).toMatchObject({
      body: { name: 'alpine', tags: ['a', 'b', 'c'] },
      outcome: 'stale',
      next: undefined,
      warnings: ['299 - "incomplete: docker.io cannot be asked (http_401), these are the tags known here"'],
    })
    expect(await list({ n: '2' })).toMatchObject({ body: { tags: ['a', 'b'] }, next: 'n=2&last=b' })
    expect(await list({ n: '2', last: 'b' })).toMatchObject({ body: { tags: ['c'] }, next: undefined })
  })

  it.each([
    ['unavailable', 503],
    ['rateLimited', 503],
    ['denied', 403],
    ['invalid', 502],
  ] as const)('is an error when nothing is known: %s is %i', async (failure, status) => {
    const { upstream, list } = tagsRoom()
    upstream.fail(failure)
    await expect(list()).rejects.toMatchObject({ status })
  })

  it('offline: is what is known here, and nobody is dialled', async () => {
    const { upstream, list, know } = tagsRoom({ offline: true })
    await expect(list()).rejects.toMatchObject({ status: 404, code: 'NAME_UNKNOWN' })
    await know('a')
    expect(await list()).toMatchObject({ body: { tags: ['a'] }, outcome: 'stale' })
    expect(upstream.count()).toBe(0)
  })

  it('T-47: does not put into the store what any client can invent', async () => {
    const { answers, list, metadata } = tagsRoom()
    answers({ tags: ['a'] })
    await list({ last: 'invented' })
    await list({ extra: new URLSearchParams('invented=1') })
    expect(metadata.documents.size).toBe(0)
    await list({ n: '1', extra: new URLSearchParams('n=1&ns=docker.io') })
    expect(metadata.documents.size).toBe(1)
  })
})
