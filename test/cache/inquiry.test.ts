import { describe, expect, it, vi } from 'vitest'
import type { ServedManifest } from '../../src/cache/manifests.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { SharedQuestions } from '../fakes/shared-questions.ts'
import { reference, targetOf } from '../fakes/targets.ts'
import { image, manifestsRoom, type Room, type RoomOptions, ttlMs } from './manifests-room.ts'

const alpine = targetOf('library/alpine')

type Site = {
  readonly replicas: readonly [Room, Room, Room]
  readonly questions: SharedQuestions
  /** Upstream answers nothing until it is called. */
  readonly hold: () => () => void
}

/** Three replicas on the same records, before one upstream. */
function site(options: RoomOptions = {}): Site {
  const questions = new SharedQuestions()
  const first = manifestsRoom({ ...options, questions })
  const replicas = [first, first.restart(), first.restart()] as const
  return {
    replicas,
    questions,
    hold() {
      const { promise, resolve } = Promise.withResolvers<void>()
      first.upstream.gate = promise
      return resolve
    },
  }
}

/** A client's view: the digest and how it came about, or the status of the refusal. */
async function pull(
  room: Room,
  text = 'latest',
  target = alpine,
): Promise<Pick<ServedManifest, 'digest' | 'outcome'> | number> {
  try {
    const { digest, outcome } = await room.manifests.get(target, reference(text))
    return { digest, outcome }
  } catch (error) {
    if (error instanceof RegistryError) return error.status
    throw error
  }
}

/** All three ask for it while upstream is silent, one after the other; then it answers. */
async function pullAtOnce({ replicas, questions, hold }: Site, text = 'latest') {
  const release = hold()
  const before = questions.log.length
  const answers: ReturnType<typeof pull>[] = []
  for (const room of replicas) {
    answers.push(pull(room, text))
    await vi.waitFor(() => expect(questions.log.length).toBe(before + answers.length))
  }
  release()
  return Promise.all(answers)
}

/** A tag that every replica knows and that has expired everywhere. */
async function staleSite(options: RoomOptions = {}) {
  const at = site(options)
  const [{ upstream, clock, stored }] = at.replicas
  const content = image(1)
  const digest = upstream.push('library/alpine', 'latest', content)
  for (const blob of content.blobs) stored.add(blob)
  for (const room of at.replicas) await pull(room)
  clock.advance(ttlMs + 1_000)
  upstream.calls.length = 0
  at.questions.log.length = 0
  return { at, upstream, clock, digest }
}

describe('upstream is asked once for all replicas', () => {
  it('P-47: whether a tag is still the same', async () => {
    const { at, upstream, digest } = await staleSite()
    const answers = await pullAtOnce(at)
    expect(answers).toEqual([
      { digest, outcome: 'revalidated' },
      { digest, outcome: 'hit' },
      { digest, outcome: 'hit' },
    ])
    expect(upstream.calls.map(({ kind }) => kind)).toEqual(['head'])
    expect(at.questions.log).toEqual(['latest', 'latest waits', 'latest waits'])
    // What the others were told is fresh for them as well.
    for (const room of at.replicas) expect(await pull(room)).toMatchObject({ outcome: 'hit' })
    expect(upstream.count()).toBe(1)
  })

  it('P-47: what a tag has become: one HEAD and one GET', async () => {
    const { at, upstream } = await staleSite()
    const digest = upstream.push('library/alpine', 'latest', image(2))
    const answers = await pullAtOnce(at)
    expect(answers.map(answer => typeof answer === 'object' && answer.digest)).toEqual([digest, digest, digest])
    expect(upstream.calls.map(({ kind }) => kind)).toEqual(['head', 'get'])
  })

  it('for a tag that nobody has', async () => {
    const at = site()
    const [{ upstream }] = at.replicas
    const digest = upstream.push('library/alpine', 'latest', image(1))
    expect(await pullAtOnce(at)).toEqual([
      { digest, outcome: 'fill' },
      { digest, outcome: 'hit' },
      { digest, outcome: 'hit' },
    ])
    expect(upstream.calls.map(({ kind }) => kind)).toEqual(['get'])
  })

  it('for a manifest that nobody has, by its digest', async () => {
    const at = site()
    const [{ upstream }] = at.replicas
    const digest = upstream.push('library/alpine', undefined, image(1))
    expect(await pullAtOnce(at, digest)).toEqual([
      { digest, outcome: 'fill' },
      { digest, outcome: 'hit' },
      { digest, outcome: 'hit' },
    ])
    expect(upstream.calls.map(({ kind }) => kind)).toEqual(['get'])
  })

  it('P-100: that it has none is told to those who wait, and to nobody later', async () => {
    const at = site()
    const [first] = at.replicas
    expect(await pullAtOnce(at, 'none')).toEqual([404, 404, 404])
    expect(first.upstream.count()).toBe(1)
    // A new process asks.
    first.upstream.push('library/alpine', 'none', image(1))
    expect(await pull(first.restart(), 'none')).toMatchObject({ outcome: 'fill' })
  })

  it('T-16: a right that upstream took back is not read from a record that could not be removed', async () => {
    const maxAgeMs = 3_600_000
    const [room] = site({ maxAgeMs }).replicas
    const digest = room.upstream.push('library/alpine', undefined, image(1))
    expect(await pull(room, digest)).toEqual({ digest, outcome: 'fill' })
    room.metadata.deleteLink = () => Promise.reject(new Error('READONLY'))
    room.clock.advance(maxAgeMs)
    room.upstream.fail('denied', 'http_403')
    expect(await pull(room, digest)).toBe(403)
    expect(await pull(room, digest)).toBe(403)
  })

  it('a replica whose look at the records was too early finds what another one was told since, and does not ask', async () => {
    const at = site()
    const [a, b] = at.replicas
    const digest = a.upstream.push('library/alpine', 'latest', image(1))
    const [late, reached] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const take = at.questions.take.bind(at.questions)
    at.questions.take = async question => {
      reached.resolve()
      await late.promise
      return take(question)
    }
    const answer = pull(b)
    await reached.promise
    at.questions.take = take
    expect(await pull(a)).toMatchObject({ outcome: 'fill' })
    late.resolve()
    expect(await answer).toEqual({ digest, outcome: 'hit' })
    expect(a.upstream.count()).toBe(1)
  })
})

describe('nobody is asked', () => {
  it('F-59: for a warm manifest, by tag or digest: neither the records nor the others, and there is nothing to wait for', async () => {
    const at = site()
    const [room] = at.replicas
    const digest = room.upstream.push('library/alpine', 'latest', image(1))
    await pull(room)
    room.metadata.failure = new Error('the store is away')
    at.questions.log.length = 0
    for (const text of ['latest', digest]) {
      const answer = room.manifests.get(alpine, reference(text))
      expect(answer).not.toBeInstanceOf(Promise)
      expect(answer).toMatchObject({ digest, outcome: 'hit' })
    }
    expect([at.questions.log, room.observed.failures, room.upstream.count()]).toEqual([[], [], 1])
  })
})

describe('each replica asks for itself', () => {
  it('T-11: for another repository, whatever it is about', async () => {
    const at = site()
    const [a, b] = at.replicas
    const digest = a.upstream.push('library/alpine', undefined, image(1))
    const release = at.hold()
    const first = pull(a, digest)
    await vi.waitFor(() => expect(at.questions.log).toEqual([digest]))
    const second = pull(b, digest, targetOf('other/alpine'))
    await vi.waitFor(() => expect(at.questions.log).toEqual([digest, digest]))
    release()
    expect(await first).toEqual({ digest, outcome: 'fill' })
    expect(await second).toBe(404)
  })

  it('when the one that asked had no answer', async () => {
    const { at, upstream } = await staleSite()
    upstream.fail('unavailable', 'timeout')
    const answers = await pullAtOnce(at)
    expect(answers.map(answer => typeof answer === 'object' && answer.outcome)).toEqual(['stale', 'stale', 'stale'])
    expect(upstream.count('head')).toBe(3)
  })

  it('F-53: when the one that asked says nothing for a while', async () => {
    const { at, upstream, clock, digest } = await staleSite()
    const [a, b] = at.replicas
    const release = at.hold()
    const first = pull(a)
    await vi.waitFor(() => expect(upstream.count('head')).toBe(1))
    const second = pull(b)
    await vi.waitFor(() => expect(at.questions.log).toEqual(['latest', 'latest waits']))
    clock.advance(1_500)
    await vi.waitFor(() => expect(upstream.count('head')).toBe(2))
    release()
    expect([await first, await second]).toEqual([
      { digest, outcome: 'revalidated' },
      { digest, outcome: 'revalidated' },
    ])
  })

  it('F-62: when the answer got lost on its way into the records', async () => {
    const at = site()
    const [{ upstream, metadata }] = at.replicas
    const digest = upstream.push('library/alpine', 'latest', image(1))
    metadata.putTag = async () => {}
    metadata.putManifest = async () => {}
    const answers = await pullAtOnce(at)
    expect(answers).toEqual(answers.map(() => ({ digest, outcome: 'fill' })))
    expect(upstream.count('get')).toBe(3)
  })

  it('F-59: when nobody can tell who asks', async () => {
    const { at, upstream } = await staleSite()
    at.questions.isAway = true
    await Promise.all(at.replicas.map(room => pull(room)))
    expect(upstream.count('head')).toBe(3)
  })

  it('P-47: where a tag is to be asked for every time', async () => {
    const at = site({ settings: { tagTtlMs: 0 } })
    const [{ upstream }] = at.replicas
    upstream.push('library/alpine', 'latest', image(1))
    for (const room of at.replicas) await pull(room)
    expect(at.questions.log).toEqual([])
    expect(upstream.count()).toBe(3)
  })
})

describe('the clocks of two replicas', () => {
  it('may differ by a second: what one was told just now is fresh for the other', async () => {
    const at = site()
    const [a, b] = at.replicas
    a.upstream.push('library/alpine', 'latest', image(1))
    await pull(a)
    a.clock.jump(-1_000)
    expect(await pull(b)).toMatchObject({ outcome: 'hit' })
    expect(a.upstream.count()).toBe(1)
  })

  it('F-42: differ by a day: a record from the future is asked for once', async () => {
    const at = site()
    const [a, b] = at.replicas
    a.upstream.push('library/alpine', 'latest', image(1))
    await pull(a)
    a.clock.jump(-24 * 60 * 60_000)
    expect(await pull(b)).toMatchObject({ outcome: 'revalidated' })
    expect(await pull(b)).toMatchObject({ outcome: 'hit' })
    expect(a.upstream.count()).toBe(2)
  })
})
