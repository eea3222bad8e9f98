import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { ServedManifest } from '../../src/cache/manifests.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import type { UpstreamFailure } from '../../src/upstream/upstream.ts'
import { reference, targetOf } from '../fakes/targets.ts'
import { image, manifestsRoom, maxStaleMs, type Room, ttlMs } from './manifests-room.ts'

const repositories = ['library/alpine', 'company/secret'] as const
const tagNames = ['latest', 'edge'] as const
const images = [1, 2, 3].map(seed => image(seed, { layers: 1 }))
const digests = images.map(({ bytes }) => digestOf(bytes))
const failures = ['unavailable', 'rateLimited', 'denied', 'invalid'] as const

type Repository = (typeof repositories)[number]
type Step =
  | { readonly kind: 'move'; readonly repository: Repository; readonly tag: string; readonly image: number }
  | { readonly kind: 'remove'; readonly repository: Repository; readonly tag: string }
  | { readonly kind: 'outage'; readonly failure: UpstreamFailure | undefined }
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'jump'; readonly ms: number }
  | { readonly kind: 'pull'; readonly repository: Repository; readonly text: string }
  | { readonly kind: 'answer' | 'hesitate' | 'hurry' }
  | { readonly kind: 'restart' }
  | { readonly kind: 'loseManifest'; readonly image: number }
  | { readonly kind: 'corruptManifest'; readonly image: number }

// Mostly one tag of one repository, so that things happen to the same tag.
const repository = fc.constantFrom<Repository>('library/alpine', 'library/alpine', 'library/alpine', 'company/secret')
const tag = fc.constantFrom('latest', 'latest', 'latest', 'edge')
const imageNumber = fc.nat({ max: images.length - 1 })
const pull = fc.record({
  kind: fc.constant<'pull'>('pull'),
  repository,
  text: fc.oneof({ weight: 3, arbitrary: tag }, { weight: 1, arbitrary: fc.constantFrom(...digests) }),
})
const kind = <K extends Step['kind']>(name: K) => fc.constant(name)
const moves = [
  { weight: 4, arbitrary: fc.record({ kind: kind('move'), repository, tag, image: imageNumber }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('remove'), repository, tag }) },
]
const times = [
  {
    weight: 4,
    arbitrary: fc.record({ kind: kind('wait'), ms: fc.constantFrom(1000, 6000, ttlMs - 1, ttlMs, maxStaleMs + 1) }),
  },
]
const failure = fc.oneof(fc.constant(undefined), fc.constantFrom(...failures))
const troubles = [
  { weight: 3, arbitrary: fc.record({ kind: kind('outage'), failure }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('restart') }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('loseManifest'), image: imageNumber }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('corruptManifest'), image: imageNumber }) },
]
/** Upstream answers at once until it is told to hesitate; then one call at a time. */
const answers = [
  { weight: 1, arbitrary: fc.record({ kind: kind('hesitate') }) },
  { weight: 4, arbitrary: fc.record({ kind: kind('answer') }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('hurry') }) },
]
const jump = {
  weight: 1,
  arbitrary: fc.record({ kind: kind('jump'), ms: fc.constantFrom(-86_400_000, 5000) }),
}
const usual = [...moves, ...times, ...troubles, ...answers, { weight: 9, arbitrary: pull }] as const
const script = (step: fc.Arbitrary<Step>) => fc.array(step, { minLength: 5, maxLength: 40, size: 'max' })
const scripts = fc.oneof({ weight: 4, arbitrary: script(fc.oneof(...usual)) }, script(fc.oneof(...usual, jump)))

/** What a value was, and until when. Times are monotonic milliseconds. */
class History<T> {
  readonly #periods: { value: T; from: number }[]

  constructor(first: T) {
    this.#periods = [{ value: first, from: Number.NEGATIVE_INFINITY }]
  }

  change(value: T, now: number): void {
    this.#periods.push({ value, from: now })
  }

  /** Every value that was there at some time from `since` on. */
  since(since: number): T[] {
    return this.#periods
      .filter((_, at) => (this.#periods[at + 1]?.from ?? Number.POSITIVE_INFINITY) >= since)
      .map(({ value }) => value)
  }
}

/** The world as the operator of the upstream sees it, beside the cache under test. */
class World {
  room: Room = manifestsRoom()
  readonly tags = new Map<string, History<string | undefined>>()
  readonly outage = new History<UpstreamFailure | undefined>(undefined)
  /** `repository digest` that upstream ever had. */
  readonly had = new Set<string>()
  readonly waiting: (() => void)[] = []
  readonly pulls: Promise<void>[] = []
  /** Since when somebody waits for a tag: who joins is given what was asked then. */
  readonly pending = new Map<string, { since: number; waiters: number }>()
  hesitates = false
  jumped = false

  constructor() {
    for (const { blobs } of images) for (const blob of blobs) this.room.stored.add(blob)
    this.room.upstream.pause = () =>
      this.hesitates ? new Promise(resolve => this.waiting.push(resolve)) : Promise.resolve()
  }

  get now(): number {
    return this.room.clock.monotonic()
  }

  history(name: string): History<string | undefined> {
    const known = this.tags.get(name) ?? new History<string | undefined>(undefined)
    this.tags.set(name, known)
    return known
  }

  async take(each: Step): Promise<void> {
    const { upstream, clock, metadata } = this.room
    switch (each.kind) {
      case 'move': {
        const digest = upstream.push(each.repository, each.tag, images[each.image] ?? image(0))
        this.history(`${each.repository} ${each.tag}`).change(digest, this.now)
        this.had.add(`${each.repository} ${digest}`)
        break
      }
      case 'remove':
        upstream.repository(each.repository).tags.delete(each.tag)
        this.history(`${each.repository} ${each.tag}`).change(undefined, this.now)
        break
      case 'outage':
        upstream.fail(each.failure)
        this.outage.change(each.failure, this.now)
        break
      case 'wait':
        clock.advance(each.ms)
        break
      case 'jump':
        clock.jump(each.ms)
        this.jumped = true
        break
      case 'pull':
        this.pulls.push(this.pull(each.repository, each.text))
        break
      case 'hesitate':
        this.hesitates = true
        break
      case 'answer':
        this.waiting.shift()?.()
        break
      case 'hurry':
        this.hesitates = false
        for (const answer of this.waiting.splice(0)) answer()
        break
      case 'restart':
        this.room = this.room.restart()
        this.pending.clear()
        break
      default: {
        const digest = digests[each.image]
        const record = digest && metadata.manifests.get(digest)
        if (!digest || !record) break
        if (each.kind === 'loseManifest') metadata.manifests.delete(digest)
        else metadata.manifests.set(digest, { ...record, bytes: Buffer.concat([record.bytes, Buffer.from(' ')]) })
      }
    }
    await settle()
  }

  async pull(name: Repository, text: string): Promise<void> {
    const key = `${name} ${text}`
    const pending = this.pending.get(key) ?? { since: this.now, waiters: 0 }
    this.pending.set(key, pending)
    pending.waiters++
    const { since } = pending
    try {
      const served = await this.room.manifests.get(targetOf(name), reference(text))
      this.check(name, text, since, served)
    } catch (error) {
      this.checkRefusal(key, since, error)
    } finally {
      if (--pending.waiters === 0 && this.pending.get(key) === pending) this.pending.delete(key)
    }
  }

  check(name: Repository, text: string, since: number, served: ServedManifest): void {
    const { digest, outcome, warnings, ageMs } = served
    must(digestOf(served.bytes) === digest, 'bytes that do not hash to their digest')
    must(this.had.has(`${name} ${digest}`), 'a manifest that this repository never had')
    if (!served.byTag) return must(digest === text, 'another digest than was asked for')
    // After a jump of the wall clock the age of a stored tag is not known: it may be any.
    const within = (ms: number) => (this.jumped ? Number.NEGATIVE_INFINITY : since - ms)
    const wasTagged = (from: number) => this.history(`${name} ${text}`).since(from).includes(digest)
    must(ageMs <= (outcome === 'stale' ? maxStaleMs : ttlMs), `an age of ${ageMs} ms as ${outcome}`)
    if (outcome === 'stale') {
      must(warnings.length === 1, 'stale without a warning')
      must(wasTagged(within(maxStaleMs)), 'a tag older than maxStale')
      must(this.hadOutage(since - 12_000), 'stale without an outage')
    } else {
      must(warnings.length === 0, `a warning on ${outcome}`)
      must(wasTagged(within(ttlMs)), `a tag older than its time to live as ${outcome}`)
    }
  }

  checkRefusal(key: string, since: number, error: unknown): void {
    if (!(error instanceof RegistryError)) throw error
    const [name = '', text = ''] = key.split(' ')
    if (error.status !== 404) {
      must([403, 502, 503].includes(error.status), `status ${error.status}`)
      must(this.hadOutage(since), `status ${error.status} without an outage`)
    } else if (!text.includes(':'))
      must(
        this.history(`${name} ${text}`)
          .since(since - 5000)
          .includes(undefined),
        '404 for a tag that was always there',
      )
  }

  async digestOf(name: Repository, text: string): Promise<string | undefined> {
    try {
      return (await this.room.manifests.get(targetOf(name), reference(text))).digest
    } catch (error) {
      if (error instanceof RegistryError && error.status === 404) return undefined
      throw error
    }
  }

  hadOutage(since: number): boolean {
    return this.outage.since(since).some(trouble => trouble !== undefined)
  }
}

function must(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(`served ${otherwise}`)
}

/** All that can go on without an answer of upstream has gone on. Everything in memory: a turn of the event loop is enough. */
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

it('F-27, F-29, F-30, T-11: serves what upstream had within the window, whatever the order of moves, outages, answers and time', async () => {
  await fc.assert(
    fc.asyncProperty(scripts, async steps => {
      const world = new World()
      for (const each of steps) await world.take(each)
      await world.take({ kind: 'hurry' })
      await Promise.all(world.pulls)
      // Once upstream is back, the next pull after the time to live is right (F-28).
      await world.take({ kind: 'outage', failure: undefined })
      await world.take({ kind: 'wait', ms: maxStaleMs })
      for (const name of repositories)
        for (const each of tagNames)
          expect(await world.digestOf(name, each)).toBe(world.room.upstream.repository(name).tags.get(each))
    }),
    { numRuns: 150 },
  )
})
