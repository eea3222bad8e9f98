import { deepEqual, equal, ok } from 'node:assert/strict'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { existsSync, readdirSync, readlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as tick } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, it, onTestFinished, vi } from 'vitest'
import { Blobs } from '../../src/cache/blobs.ts'
import { createRights } from '../../src/cache/rights.ts'
import { systemClock } from '../../src/clock.ts'
import { type Observer, silentObserver } from '../../src/log/observer.ts'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import type { ByteRange } from '../../src/oci/range.ts'
import { type EmbeddedStores, openEmbeddedStores } from '../../src/store/embedded.ts'
import type { BlobStore, Spool, SpoolFile } from '../../src/store/stores.ts'
import { UpstreamError } from '../../src/upstream/upstream.ts'
import { pseudoRandomBytes } from '../fakes/image.ts'
import { type PuppetRequest, PuppetUpstream } from '../fakes/puppet-upstream.ts'
import { defaultFills, target, wrongFiles } from './blobs-setup.ts'

const kib = 1024
const mib = 1024 * kib
const material = pseudoRandomBytes(3 * mib, 'properties')

/** One upstream connection. What follows the last of a plan is without fault. */
type Connection = {
  /** Answers 503 and no body. */
  readonly refused: boolean
  /** Answers from byte 0 whatever was asked. */
  readonly ignoresRange: boolean
  /** What it says of the whole blob's size: the truth, nothing, or one byte too many or too few. */
  readonly says: 'size' | 'nothing' | 'more' | 'less'
  /** Share of the rest that it sends before it ends. */
  readonly share: number
  readonly ending: 'break' | 'fin' | 'longer'
  readonly chunkBytes: number
  /** This byte (share of the blob) is wrong. */
  readonly wrongAt: number | undefined
}

type Client = {
  readonly joinsAfter: number
  /** Shares of the blob: first byte and length. */
  readonly range: readonly [number, number] | undefined
  readonly readBytes: number
  /** Waits for its turn before every so manieth read. */
  readonly pace: number
  readonly leavesAt: number | undefined
}

type Disk = {
  /** Share of the blob after which nothing can be written any more. */
  readonly fullAt: number | undefined
  readonly noRoom: boolean
  readonly publish: 'at once' | 'late' | 'never'
}

type Plan = {
  readonly size: number
  readonly connections: readonly Connection[]
  readonly sideWrong: boolean
  readonly clients: readonly Client[]
  readonly disk: Disk
  readonly nearBytes: number
  readonly finishesAlone: boolean
  /** The blob is removed from the store after so many turns. */
  readonly evictAfter: number | undefined
}

const share = fc.double({ min: 0, max: 1, noNaN: true })
const seldom = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary })
const borders = [1, 2, 64 * kib, 256 * kib, mib, 2 * mib, 3 * mib].flatMap(at => [at - 1, at, at + 1])
const anySize = fc.oneof(
  fc.constantFrom(...borders.filter(one => one > 0 && one <= 3 * mib)),
  fc.integer({ min: 1, max: 3 * mib }),
)
const anyConnection: fc.Arbitrary<Connection> = fc.record({
  refused: seldom(fc.constant(true)).map(Boolean),
  ignoresRange: seldom(fc.constant(true)).map(Boolean),
  says: fc.oneof(
    { weight: 6, arbitrary: fc.constant('size' as const) },
    { weight: 3, arbitrary: fc.constant('nothing' as const) },
    { weight: 1, arbitrary: fc.constantFrom('more' as const, 'less' as const) },
  ),
  share,
  ending: fc.oneof(
    { weight: 4, arbitrary: fc.constant('break' as const) },
    { weight: 4, arbitrary: fc.constant('fin' as const) },
    { weight: 1, arbitrary: fc.constant('longer' as const) },
  ),
  chunkBytes: fc.constantFrom(1, 1000, 16 * kib, 64 * kib, 64 * kib + 1, 300_000, 3 * mib),
  wrongAt: seldom(share),
})
const anyClient: fc.Arbitrary<Client> = fc.record({
  joinsAfter: fc.nat(40),
  range: fc.option(fc.tuple(share, share), { nil: undefined, freq: 2 }),
  readBytes: fc.constantFrom(1000, 64 * kib, 100_001, 3 * mib),
  pace: fc.constantFrom(1, 4, 50),
  leavesAt: seldom(share),
})
const anyPlan: fc.Arbitrary<Plan> = fc.record({
  size: anySize,
  connections: fc.array(anyConnection, { maxLength: 4 }),
  sideWrong: seldom(fc.constant(true)).map(Boolean),
  clients: fc.array(anyClient, { minLength: 1, maxLength: 6 }),
  disk: fc.record({
    fullAt: seldom(share),
    noRoom: seldom(fc.constant(true)).map(Boolean),
    publish: fc.constantFrom('at once' as const, 'late' as const, 'never' as const),
  }),
  nearBytes: fc.constantFrom(0, 64 * kib, mib),
  finishesAlone: fc.boolean(),
  evictAfter: seldom(fc.nat(60)),
})

/** Gives way to the others as often as told. */
type Turns = (times?: number) => Promise<void>

it('F-1, F-4, F-7, F-17 to F-22, F-34: whatever upstream, clients and disk do, in whatever order', async () => {
  const rejections: unknown[] = []
  const onRejection = (error: unknown): void => void rejections.push(error)
  process.on('unhandledRejection', onRejection)
  onTestFinished(() => void process.off('unhandledRejection', onRejection))
  const dataDir = await mkdtemp(join(ramDirectory(), 'layover-properties-'))
  const stores = await openEmbeddedStores({
    dataDir,
    maxBytes: 64 * mib,
    clock: systemClock,
    observer: silentObserver,
  })
  onTestFinished(async () => {
    await stores.close()
    await rm(dataDir, { recursive: true, force: true })
  })
  let runs = 0
  await fc.assert(
    fc.asyncProperty(anyPlan, fc.scheduler(), async (one, scheduler) => {
      const before = openFiles(dataDir)
      const turns: Turns = async (times = 1) => {
        for (let turn = 0; turn < times; turn++) await scheduler.schedule(Promise.resolve())
      }
      const run = new Run({ plan: one, stores, turns, seed: ++runs })
      await scheduler.waitFor(inTime(run.play()))
      await run.check()
      await vi.waitFor(() => expect(openFiles(dataDir)).toBeLessThanOrEqual(before), { interval: 2 })
      expect(await readdir(join(dataDir, 'spool'))).toEqual([])
      expect(stores.usage().reservedBytes).toBe(0)
      expect(await wrongFiles(dataDir)).toEqual([])
      await stores.blobs.delete(run.digest)
      expect(rejections).toEqual([])
    }),
    { numRuns: 250, interruptAfterTimeLimit: 10_000, endOnFailure: true },
  )
  expect(runs).toBeGreaterThan(20)
})

class Run {
  readonly digest: Digest
  readonly #plan: Plan
  readonly #bytes: Buffer
  readonly #stores: EmbeddedStores
  readonly #turns: Turns
  readonly #upstream = new PuppetUpstream(8)
  readonly #blobs: Blobs
  readonly #main: Served[] = []
  readonly #ends: string[] = []
  #started = 0
  /** A connection has sent everything to the end, so that there may be something to verify. */
  #sentAll = false
  #outcomes: Outcome[] = []

  constructor({ plan, stores, turns, seed }: { plan: Plan; stores: EmbeddedStores; turns: Turns; seed: number }) {
    this.#plan = plan
    this.#stores = stores
    this.#turns = turns
    this.#bytes = Buffer.from(material.subarray(0, plan.size))
    this.#bytes.writeUInt8(seed & 0xff, plan.size >>> 1)
    this.digest = digestOf(this.#bytes)
    this.#upstream.head = () => ({ size: plan.size })
    this.#blobs = this.#createBlobs()
  }

  async play(): Promise<void> {
    void this.#serveUpstream()
    const { evictAfter, clients } = this.#plan
    const evicted = evictAfter === undefined ? undefined : this.#evict(evictAfter)
    this.#outcomes = await Promise.all(clients.map(each => this.#follow(each)))
    await evicted
    // A download that goes on alone is let to its end.
    if (this.#plan.finishesAlone) await vi.waitFor(() => equal(this.#blobs.running, 0), { interval: 1 })
    await this.#blobs.close()
  }

  async check(): Promise<void> {
    equal(this.#blobs.running, 0)
    const completed = this.#outcomes.filter(outcome => outcome === 'complete')
    if (this.#started === 1 && this.#isTainted()) deepEqual(completed, [])
    if (this.#isBenign())
      deepEqual(
        this.#outcomes.filter(outcome => typeof outcome === 'object'),
        [],
      )
    if (this.#started === 1) this.#checkResumes()
    const { disk, evictAfter } = this.#plan
    const stored = await this.#stores.blobs.size(this.digest)
    if (disk.publish === 'never' || disk.noRoom) equal(stored, undefined)
    else if (evictAfter === undefined) equal(stored, this.#ends.includes('published') ? this.#plan.size : undefined)
    if (completed.length > 0 && evictAfter === undefined && disk.publish !== 'never' && isWritable(disk))
      equal(stored, this.#plan.size)
  }

  #createBlobs(): Blobs {
    const { metadata } = this.#stores
    const observer: Observer = {
      ...silentObserver,
      fillStarted: () => this.#started++,
      fillEnded: event => this.#ends.push(event.outcome),
    }
    const upstreams = new Map([[this.#upstream.name, this.#upstream]])
    const rights = createRights({
      upstreams,
      metadata,
      observer,
      offline: false,
    })
    const { nearBytes, finishesAlone } = this.#plan
    const blobs: Blobs = new Blobs({
      upstreams,
      store: this.#brittleStore(),
      spool: this.#brittleSpool(),
      rights,
      fills: { ...defaultFills, nearBytes, maxAttempts: 6, finishWithinBytes: finishesAlone ? 8 * mib : 0 },
      clock: systemClock,
      observer,
      offline: false,
    })
    return blobs
  }

  #brittleStore(): BlobStore {
    const { blobs } = this.#stores
    const { publish } = this.#plan.disk
    return {
      open: digest => blobs.open(digest),
      size: digest => blobs.size(digest),
      delete: digest => blobs.delete(digest),
      publish: async (digest, size, file) => {
        if (publish === 'never') throw new Error('the disk does not take the rename')
        if (publish === 'late') await this.#turns(20)
        await blobs.publish(digest, size, file)
      },
    }
  }

  #brittleSpool(): Spool {
    const { spool } = this.#stores
    const { noRoom, fullAt } = this.#plan.disk
    return {
      create: async expected => {
        const file = noRoom ? undefined : await spool.create(expected)
        if (!file) return undefined
        const limit = fullAt === undefined ? Number.POSITIVE_INFINITY : Math.floor(fullAt * this.#plan.size)
        const write: SpoolFile['write'] = async (chunks, position) => {
          const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
          if (position + length > limit) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
          await file.write(chunks, position)
        }
        const { path } = file
        return { path, write, read: file.read.bind(file), close: () => file.close(), discard: () => file.discard() }
      },
    }
  }

  async #evict(after: number): Promise<void> {
    await this.#turns(after)
    await this.#stores.blobs.delete(this.digest)
  }

  /** One client, from its arrival to its end. */
  async #follow({ joinsAfter, range: shares, readBytes, pace, leavesAt }: Client): Promise<Outcome> {
    await this.#turns(joinsAfter)
    const own = Buffer.alloc(64 * kib)
    try {
      const blob = await this.#blobs.open(target, this.digest)
      const range = blob.size === undefined ? undefined : rangeOf(shares, blob.size)
      const reader = blob.reader(range)
      const end = range?.end ?? Number.MAX_SAFE_INTEGER
      const from = range?.start ?? 0
      const leaveAt = leavesAt === undefined ? Number.POSITIVE_INFINITY : from + leavesAt * (this.#plan.size - from)
      try {
        let position = from
        for (let reads = 0; position <= end; reads++) {
          if (reads % pace === 0) await this.#turns()
          if (position >= leaveAt) return 'left'
          const bytes = await reader.read(position, Math.min(readBytes, end - position + 1), () => own)
          if (bytes.length === 0) break
          // A Buffer comparison, because a wrong byte that was shown is only wrong when the response is completed.
          if (!this.#bytes.subarray(position, position + bytes.length).equals(bytes)) this.#spoiled.add(reader)
          position += bytes.length
        }
        if (!this.#sentAll) throw new Broken('the last byte was given before the blob could be verified')
        if (range ? position <= end : position !== this.#plan.size) throw new Broken(`the blob ended at ${position}`)
        if (this.#spoiled.has(reader)) throw new Broken('a client completed with wrong bytes')
        return 'complete'
      } finally {
        reader.close()
        blob.close()
      }
    } catch (error) {
      if (error instanceof Broken) throw error
      return error instanceof Error ? error : new Error(String(error))
    }
  }
  readonly #spoiled = new Set<object>()

  async #serveUpstream(): Promise<void> {
    const plans = [...this.#plan.connections]
    for (;;) {
      const request = await this.#upstream.next()
      if (request.end === undefined) void this.#serve(request, plans.shift())
      else void this.#serveSide(request, request.end)
    }
  }

  async #serve(request: PuppetRequest, plan: Connection | undefined): Promise<void> {
    const served: Served = { offset: request.offset, plan, from: request.offset, sent: 0, over: false, exact: false }
    const before = [...this.#main]
    this.#main.push(served)
    await tick()
    // The observer counts a download as ended only after its connection was closed.
    if (this.#started === 1 && !this.#ends.includes('cancelled'))
      ok(
        before.every(each => each.over),
        'two connections of one download at once',
      )
    await this.#turns()
    if (plan?.refused) {
      served.over = true
      served.exact = true
      request.fail(new UpstreamError('unavailable', this.#upstream.name, 'http_503', 'not now'))
      return
    }
    served.from = plan?.ignoresRange ? 0 : request.offset
    const size = { size: this.#plan.size, more: this.#plan.size + 1, less: this.#plan.size - 1, nothing: undefined }[
      plan?.says ?? 'size'
    ]
    const body = request.answer({ offset: served.from, ...(size === undefined ? {} : { size }) })
    void body.closed.then(() => {
      served.over = true
    })
    const bytes = this.#bytesOf(plan)
    const rest = bytes.length - served.from
    const until = served.from + (plan && plan.ending !== 'longer' ? Math.floor(plan.share * rest) : rest)
    const step = Math.max(plan?.chunkBytes ?? 64 * kib, Math.ceil(rest / 40), 1)
    for (let at = served.from; at < until; at += step) {
      await this.#turns()
      body.send(bytes.subarray(at, Math.min(until, at + step)))
      served.sent = Math.min(until, at + step) - served.from
    }
    await this.#turns()
    if (plan?.ending === 'longer') body.send(Buffer.from('x'))
    // Also before a break: a later connection may say the size, and nothing is missing then.
    if (until === bytes.length) this.#sentAll = true
    if (plan?.ending === 'break') return body.break()
    served.exact = plan === undefined || plan.ending === 'fin'
    body.end()
  }

  async #serveSide(request: PuppetRequest, end: number): Promise<void> {
    await this.#turns()
    const body = request.answer({ size: this.#plan.size })
    const bytes = Buffer.from(this.#bytes.subarray(request.offset, end + 1))
    if (this.#plan.sideWrong) bytes[0] = (bytes[0] ?? 0) ^ 1
    for (let at = 0; at < bytes.length; at += 200_000) {
      await this.#turns()
      body.send(bytes.subarray(at, at + 200_000))
    }
    body.end()
  }

  #bytesOf(plan: Connection | undefined): Buffer {
    if (plan?.wrongAt === undefined) return this.#bytes
    const wrong = Buffer.from(this.#bytes)
    const at = this.#wrongPosition(plan.wrongAt)
    wrong[at] = (wrong[at] ?? 0) ^ 1
    return wrong
  }

  #wrongPosition(wrongAt: number): number {
    return Math.min(this.#plan.size - 1, Math.floor(wrongAt * this.#plan.size))
  }

  /** A wrong byte became part of the download: the next connection began behind it, or there was none. */
  #isTainted(): boolean {
    return this.#main.some(({ plan, offset, from, sent }, index) => {
      if (plan?.wrongAt === undefined) return false
      const at = this.#wrongPosition(plan.wrongAt)
      const end = this.#main[index + 1]?.offset ?? from + sent
      return at >= offset && at < end
    })
  }

  /** Nothing that upstream did can be the reason for an error. */
  #isBenign(): boolean {
    if (this.#plan.sideWrong) return false
    return this.#main.every(
      ({ plan }) =>
        plan === undefined ||
        (plan.wrongAt === undefined && plan.ending !== 'longer' && (plan.says === 'size' || plan.says === 'nothing')),
    )
  }

  /** Every connection asks for the byte after those that arrived. */
  #checkResumes(): void {
    for (const [index, { offset, from, sent, exact }] of this.#main.entries()) {
      const next = this.#main[index + 1]
      if (next === undefined) return
      ok(next.offset >= offset)
      ok(next.offset <= Math.max(offset, from + sent + 1))
      if (exact && this.#isBenign()) equal(next.offset, Math.max(offset, from + sent))
    }
  }
}

type Outcome = 'complete' | 'left' | Error
type Served = {
  readonly offset: number
  readonly plan: Connection | undefined
  from: number
  sent: number
  over: boolean
  /** It ended in order, so that all it sent has arrived. */
  exact: boolean
}

/** What must never happen to a client. */
class Broken extends Error {}

function rangeOf(shares: readonly [number, number] | undefined, size: number): ByteRange | undefined {
  if (size === 0) return undefined
  if (shares === undefined) return { start: 0, end: size - 1 }
  const start = Math.min(size - 1, Math.floor(shares[0] * size))
  return { start, end: Math.min(size - 1, start + Math.floor(shares[1] * size)) }
}

function isWritable({ fullAt, noRoom }: Disk): boolean {
  return fullAt === undefined && !noRoom
}

/** What hangs shows the plan that made it hang. */
async function inTime(work: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new Error('hangs')), 4_000)
  try {
    await Promise.race([work, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

/** Files of the spool and of published blobs that are open, removed ones too. The index has a thread of its own now and then, with descriptors. */
function openFiles(dataDir: string): number {
  return readdirSync('/proc/self/fd').filter(descriptor => {
    try {
      return /^\/(?:spool|blobs)\//.test(readlinkSync(join('/proc/self/fd', descriptor)).replace(dataDir, ''))
    } catch {
      // Closed between the list and the look.
      return false
    }
  }).length
}

/** In memory where the system has that: a sync of every run's file would be most of the time. */
function ramDirectory(): string {
  return existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
}
