import { setTimeout as sleep } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { FillConfig } from '../config/config.ts'
import type { Observer } from '../log/observer.ts'
import type { Outcome, ServedSource } from '../log/outcome.ts'
import { type Digest, wellKnownBlobs } from '../oci/digest.ts'
import { blobUnknown, RegistryError, unavailable } from '../oci/errors.ts'
import type { ByteRange } from '../oci/range.ts'
import type { Target } from '../routing/target.ts'
import type { BlobLink, BlobLinks, BlobStore, OpenBlob, SharedBlobs, Spool, SpoolFile } from '../store/stores.ts'
import { within } from '../store/within.ts'
import { noTracer, type Span, type Tracer } from '../tracing/tracer.ts'
import { type Upstream, UpstreamError } from '../upstream/upstream.ts'
import type { BlobReader } from './blob-reader.ts'
import { BlobSource } from './blob-source.ts'
import { Fill, type FillEnd } from './fill.ts'
import type { Fleet, FleetFill } from './fleet.ts'
import { FillError } from './fill-error.ts'
import type { FillReader } from './fill-reader.ts'
import { untilAborted } from './flights.ts'
import type { Origin, OriginKind } from './origin.ts'
import { peerOrigin, type RepositoryRight, sharedOrigin, upstreamOrigins } from './origins.ts'
import { Prefetcher } from './prefetcher.ts'
import { Quarantine } from './quarantine.ts'
import type { Rights } from './rights.ts'
import type { RunningFill } from './running-fill.ts'
import { SideRead } from './side-read.ts'
import { StoredReader } from './stored-reader.ts'

export type BlobsDeps = {
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly store: BlobStore
  readonly spool: Spool
  /** Asked when the store has nothing, and given what downloads brought; undefined: there is none. */
  readonly shared?: SharedBlobs | undefined
  /** Where clients can read by themselves what the shared store has; undefined: nowhere. */
  readonly links?: BlobLinks | undefined
  /** The other replicas, of which one downloads for all; undefined: there are none. */
  readonly fleet?: Fleet | undefined
  readonly rights: Rights
  readonly fills: FillConfig
  readonly clock: Clock
  readonly observer: Observer
  readonly offline: boolean
  /** Default: nothing is traced. */
  readonly tracer?: Tracer
}

/** A blob that can be read now: from the store, or from the download that brings it. It must be closed; so must each reader. */
export type OpenedBlob = {
  /** Bytes; undefined while upstream has not said it. */
  readonly size: number | undefined
  readonly outcome: Extract<Outcome, 'hit' | 'joined' | 'fill'>
  readonly source: ServedSource
  /** A reader of `range`, or of everything. */
  reader(range?: ByteRange): BlobReader
  close(): void
}

export type BlobStat = {
  readonly size: number | undefined
  readonly outcome: Extract<Outcome, 'hit' | 'joined' | 'fill'>
}

export type ExpectedBlob = { readonly digest: Digest; readonly size: number }

type Wanted = { readonly target: Target; readonly digest: Digest; readonly signal: AbortSignal | undefined }

/** "Not there" is remembered for seconds, so that a client that insists does not become upstream's problem (P-100). */
const negativeMs = 5_000
/** A client that is to be cut waits this long for the wrong object to be gone, so that it does not meet it again. */
const removalMs = 2_000

/**
 * Blobs by digest, on behalf of a repository: from the store, from the download that is running, or from one that is started.
 * Where bytes are here already, the rights of that repository decide before a byte or a size leaves (T-11, T-12); a download of its own
 * asks upstream anyway.
 */
export class Blobs {
  readonly #deps: BlobsDeps
  readonly #fills = new Map<Digest, Fill>()
  /** Every download that has not ended, with the repository on whose behalf it runs. */
  readonly #running = new Map<Fill, string>()
  readonly #started = new WeakMap<Fill, Pick<RunningFill, 'upstream' | 'repository' | 'startedAt'>>()
  readonly #spans = new Map<Fill, Span>()
  readonly #tracer: Tracer
  readonly #quarantine: Quarantine
  readonly #expected = new LRUCache<string, number>({ max: 100_000 })
  readonly #missing = new LRUCache<string, number>({ max: 10_000 })
  readonly #sideReads = new Map<Fill, number>()
  readonly #prefetcher: Prefetcher
  /** How often each digest was published, of late. */
  readonly #publications = new LRUCache<Digest, number>({ max: 10_000 })
  #closed = false

  constructor(deps: BlobsDeps) {
    this.#deps = deps
    this.#tracer = deps.tracer ?? noTracer
    this.#quarantine = new Quarantine(deps.clock)
    this.#prefetcher = new Prefetcher((target, digest) => this.#fetchAhead(target, digest))
  }

  /** Downloads that run now. */
  get running(): number {
    return this.#running.size
  }

  /** The downloads that run now, oldest first, for whoever looks on. */
  view(): RunningFill[] {
    return [...this.#running.keys()].flatMap(fill => {
      const started = this.#started.get(fill)
      const { digest, size, received, readers, began } = fill
      return started ? [{ ...started, digest, size, received, readers, began }] : []
    })
  }

  /** A manifest of this repository said how large these blobs are (P-60). */
  expect(target: Target, blobs: readonly ExpectedBlob[]): void {
    for (const { digest, size } of blobs) this.#expected.set(keyOf(target, digest), size)
  }

  /** Fetches blobs that are not here yet, behind everything that clients wait for. */
  prefetch(target: Target, digests: readonly Digest[]): void {
    if (this.#deps.offline || this.#closed) return
    for (const digest of digests) this.#prefetcher.add(target, digest)
  }

  /** Size of a blob without its bytes. Throws blobUnknown or the upstream's failure. */
  async stat(target: Target, digest: Digest, signal?: AbortSignal): Promise<BlobStat> {
    const known = wellKnownBlobs.get(digest)
    if (known) return { size: known.length, outcome: 'hit' }
    const { rights } = this.#deps
    const here = await this.#sizeHere(digest)
    const { shared } = this.#deps
    if ((here || shared) && (await rights.mayReadBlob(target, digest)) === 'yes') {
      if (here) return here
      const size = shared && (await this.#tolerate('shared.size', shared.size(digest, signal)))
      if (size !== undefined) return { size, outcome: 'hit' }
    }
    const upstream = this.#ask(target, digest)
    try {
      const head = await upstream.headBlob(target.repository, digest, signal ? { signal } : {})
      await rights.confirmed(target, digest)
      return { size: head.size ?? this.#expected.get(keyOf(target, digest)), outcome: 'fill' }
    } catch (error) {
      this.#rememberMissing(target, digest, error)
      throw error
    }
  }

  /** Size of a blob that can be had without upstream: stored here or in the shared store, or verified and about to be. Rejects when a store cannot tell. */
  async size(digest: Digest): Promise<number | undefined> {
    const fill = this.#joinable(digest)
    if (fill?.verified === true) return fill.size
    return (await this.#deps.store.size(digest)) ?? (await this.#deps.shared?.size(digest))
  }

  /**
   * Opens what this replica holds or downloads, for another replica that has looked at the rights of its client. Undefined: it does neither,
   * and nothing is started.
   */
  async openHere(digest: Digest, signal?: AbortSignal): Promise<OpenedBlob | undefined> {
    const fill = this.#joinable(digest)
    if (!fill) {
      const stored = await this.#tolerate('open', this.#deps.store.open(digest))
      return stored && this.#hit(digest, stored)
    }
    const member = fill.join()
    this.#spans.get(fill)?.linkCurrent()
    try {
      await untilAborted(fill.opened, signal)
      return this.#cold({ fill, size: fill.size, member, outcome: 'joined' })
    } catch (error) {
      member.close()
      throw error
    }
  }

  /**
   * Where a client of this repository can read the blob by itself. Undefined: it is smaller than `minBytes`, or has to be read here, and whoever asks
   * for it here learns what there is to say.
   */
  async linkTo(
    target: Target,
    digest: Digest,
    { minBytes }: { readonly minBytes: number },
  ): Promise<BlobLink | undefined> {
    const { links, rights } = this.#deps
    const expected = this.#expected.get(keyOf(target, digest))
    if (!links || wellKnownBlobs.has(digest) || (expected ?? minBytes) < minBytes) return undefined
    const fill = this.#joinable(digest)
    // What comes from elsewhere was not there a moment ago.
    if (fill && fill.began !== 'shared') return undefined
    if ((await rights.mayReadBlob(target, digest)) !== 'yes') return undefined
    const link = await this.#tolerate('shared.link', links.link(digest))
    if (!link || link.size < minBytes || link.size !== (expected ?? link.size)) return undefined
    return link
  }

  /** Opens a blob for reading. Throws blobUnknown, or the failure of the upstream that had to be asked. */
  async open(target: Target, digest: Digest, signal?: AbortSignal): Promise<OpenedBlob> {
    const known = wellKnownBlobs.get(digest)
    if (known) return inMemory(known)
    const wanted = { target, digest, signal }
    for (;;) {
      const publications = this.#publications.get(digest)
      const stored = this.#joinable(digest) ? undefined : await this.#tolerate('open', this.#deps.store.open(digest))
      if (stored) {
        await this.#requireRight(wanted, stored)
        return this.#hit(digest, stored)
      }
      const fill = this.#joinable(digest)
      // What is published while the store is being asked would be missed by both looks.
      if (!fill && publications !== this.#publications.get(digest)) continue
      // A download for this very repository, as a new one, asks upstream for its rights by itself.
      if (fill && this.#running.get(fill) !== keyOf(target, digest)) {
        await this.#requireRight(wanted)
        if (this.#joinable(digest) !== fill) continue
      }
      const opened = await this.#attach(wanted, fill)
      if (opened) return opened
    }
  }

  /** Ends every download. Nothing that was published is lost. */
  async close(): Promise<void> {
    this.#closed = true
    this.#prefetcher.close()
    const ends = [...this.#running.keys()].map(fill => fill.ended)
    for (const fill of this.#running.keys()) fill.cancel(new FillError('cancelled', 'shutting down'))
    await Promise.all(ends)
  }

  /** The bytes are here: may this repository have them? What was opened is closed when not. */
  async #requireRight({ target, digest, signal }: Wanted, stored?: OpenBlob): Promise<void> {
    const { rights } = this.#deps
    try {
      if ((await rights.mayReadBlob(target, digest)) === 'yes') return
      // Answered as if nothing were here, down to the words: who may not read it does not learn that it is cached.
      this.#ask(target, digest)
      await rights.confirm(target, digest, signal)
    } catch (error) {
      this.#rememberMissing(target, digest, error)
      await stored?.close()
      throw error
    }
  }

  async #sizeHere(digest: Digest): Promise<BlobStat | undefined> {
    const size = this.#fills.get(digest)?.size
    if (size !== undefined) return { size, outcome: 'joined' }
    const stored = await this.#tolerate('size', this.#deps.store.size(digest))
    return stored === undefined ? undefined : { size: stored, outcome: 'hit' }
  }

  #joinable(digest: Digest): Fill | undefined {
    const fill = this.#fills.get(digest)
    return fill?.joinable ? fill : undefined
  }

  /** Joins `running`, or starts a download. Undefined: the one that was joined failed for a reason of its own repository; look again. */
  async #attach({ target, digest, signal }: Wanted, running: Fill | undefined): Promise<OpenedBlob | undefined> {
    // A client that left meanwhile begins nothing.
    signal?.throwIfAborted()
    const fill = running ?? this.#start(target, digest, false)
    const member = fill.join()
    if (running) this.#spans.get(fill)?.linkCurrent()
    try {
      await untilAborted(fill.opened, signal)
      // Not what upstream said when it began: whoever joins late may know more.
      return this.#cold({ fill, size: fill.size, member, outcome: outcomeOf(fill.began, running !== undefined) })
    } catch (error) {
      member.close()
      const own = this.#running.get(fill) === keyOf(target, digest)
      if (running && !own && isAboutRepository(error)) return undefined
      throw error
    }
  }

  #start(target: Target, digest: Digest, background: boolean): Fill {
    if (this.#closed) throw unavailable('this cache is shutting down')
    if (!this.#tracer.on) return this.#run(target, digest, background)
    // A trace of its own: it outlives the request that starts it, and belongs to all who join.
    const begin = (): Span | undefined =>
      this.#tracer.detached('fill', {
        'layover.upstream': target.upstream,
        'layover.repository': target.repository,
        'layover.reference': digest,
        'layover.background': background,
      })
    // What is fetched ahead waited in a queue: what runs now is whoever filled the queue first.
    const span = background ? this.#tracer.within(undefined, begin) : begin()
    try {
      const fill = this.#tracer.within(span, () => this.#run(target, digest, background))
      if (span) this.#trace(fill, span)
      return fill
    } catch (error) {
      span?.end(error)
      throw error
    }
  }

  #trace(fill: Fill, span: Span): void {
    this.#spans.set(fill, span)
    void fill.ended.then(end => {
      this.#spans.delete(fill)
      span.set({ 'layover.outcome': end, 'layover.bytes': fill.received, 'layover.source': fill.began })
      span.end(end === 'failed' ? fill.failure : undefined)
    })
  }

  #run(target: Target, digest: Digest, background: boolean): Fill {
    const { spool, fills, observer, rights } = this.#deps
    const { origins, member, withoutUpstream } = this.#originsOf({ target, digest, background })
    const source = new BlobSource({
      upstream: target.upstream,
      repository: target.repository,
      digest,
      origins,
      withoutUpstream,
      quarantine: this.#quarantine,
      maxAttempts: fills.maxAttempts,
      clock: this.#deps.clock,
      onConfirmed: () => {
        this.#missing.delete(keyOf(target, digest))
        rights.confirmed(target, digest).catch((error: unknown) => observer.storeFailed('link', error))
      },
      onWrongBytes: async ({ kind }) => {
        if (kind === 'shared') await within(removalMs, this.#removeShared(digest))
      },
    })
    const expected = this.#expected.get(keyOf(target, digest))
    const fill: Fill = new Fill({
      digest,
      expectedSize: expected,
      source,
      createSpool: size => spool.create(size, { vouched: size === expected }),
      publish: (size, file) => this.#publish({ digest, size, file, source }),
      onReceived: received => member?.progressed(received),
      policy: fills,
      observer,
    })
    this.#fills.set(digest, fill)
    this.#running.set(fill, keyOf(target, digest))
    const { upstream, repository } = target
    this.#started.set(fill, { upstream, repository, startedAt: this.#deps.clock.now() })
    fill.opened.catch((error: unknown) => this.#rememberMissing(target, digest, error))
    void fill.ended.then(end => {
      // A download that could no longer be joined may have been replaced by another.
      if (this.#fills.get(digest) === fill) this.#fills.delete(digest)
      this.#running.delete(fill)
      this.#sideReads.delete(fill)
      if (member && member.standing !== 'undecided') observer.leaseSettled(member.standing)
      member?.end(this.#endOf(end))
    })
    return fill
  }

  /** Where the blob can be had, best first. Throws when there is no place to ask. */
  #originsOf({ target, digest, background }: OriginsOptions): Origins {
    const { shared, fleet, rights } = this.#deps
    const right: RepositoryRight = {
      isHeld: async () => (await rights.mayReadBlob(target, digest)) === 'yes',
      confirm: signal => rights.confirm(target, digest, signal),
    }
    const before = shared ? [sharedOrigin({ shared, digest, right })] : []
    try {
      const upstream = this.#ask(target, digest)
      const member = fleet?.join(digest)
      const { repository } = target
      const origins = [
        ...before,
        ...(member ? [peerOrigin(member.origin, right)] : []),
        ...upstreamOrigins({ upstream, repository, digest, background }),
      ]
      return { origins, member, withoutUpstream: undefined }
    } catch (error) {
      if (before.length === 0 || this.#isKnownMissing(target, digest) || !(error instanceof Error)) throw error
      return { origins: before, member: undefined, withoutUpstream: error }
    }
  }

  async #publish({ digest, size, file, source }: Publication): Promise<void> {
    const { store, shared } = this.#deps
    // Before it is on the disk: a blob that only passes through is kept there for as long as its upload waits, so nothing comes between the two.
    if (source.sharedOfferedWrongSize) await this.#removeShared(digest)
    await store.publish(digest, size, file)
    this.#publications.set(digest, (this.#publications.get(digest) ?? 0) + 1)
    // What came from another replica is uploaded by that one.
    if (!shared || !(source.confirmed || source.sharedOfferedWrongSize)) return
    shared.enqueue(digest, size)
  }

  /** The other replicas read it here until all can have it from the shared store. */
  #endOf(end: FillEnd): Parameters<FleetFill['end']>[0] {
    const published = end === 'published'
    return this.#deps.shared && published ? { published, until: uploaded(this.#deps.shared) } : { published }
  }

  async #removeShared(digest: Digest): Promise<void> {
    await this.#tolerate('shared.delete', this.#deps.shared?.delete(digest))
  }

  /** The upstream to ask, or an error when there is no point in asking. */
  #ask(target: Target, digest: Digest): Upstream {
    const upstream = this.#deps.upstreams.get(target.upstream)
    if (!upstream) throw blobUnknown(digest, `no upstream named ${target.upstream}`)
    if (this.#deps.offline) throw blobUnknown(digest, 'not cached, and this cache is offline')
    if (this.#isKnownMissing(target, digest)) throw blobUnknown(digest)
    return upstream
  }

  #isKnownMissing(target: Target, digest: Digest): boolean {
    return (this.#missing.get(keyOf(target, digest)) ?? 0) > this.#deps.clock.monotonic()
  }

  #rememberMissing(target: Target, digest: Digest, error: unknown): void {
    const cause = error instanceof RegistryError ? error.cause : error
    if (cause instanceof UpstreamError && cause.failure === 'notFound')
      this.#missing.set(keyOf(target, digest), this.#deps.clock.monotonic() + negativeMs)
  }

  #hit(digest: Digest, stored: OpenBlob): OpenedBlob {
    const bad = (error: unknown): void => {
      this.#deps.observer.storeFailed('read', error)
      this.#deps.store.delete(digest).catch((failure: unknown) => this.#deps.observer.storeFailed('delete', failure))
    }
    return {
      size: stored.size,
      outcome: 'hit',
      source: 'disk',
      reader: () => new StoredReader(stored, bad),
      close: () => void stored.close().catch((error: unknown) => this.#deps.observer.storeFailed('close', error)),
    }
  }

  #cold(cold: Cold): OpenedBlob {
    const { fill, size, member, outcome } = cold
    // Who opened it is a reader from the first moment on and until it is closed, so that nothing it may want is let go: neither before its first part,
    // nor between two.
    let isSpare = true
    const spare: BlobReader = {
      read: (position, length, buffer) => member.read(position, length, buffer),
      close: () => {
        isSpare = true
      },
    }
    const take = (): { readonly place: FillReader; readonly reader: BlobReader } => {
      if (isSpare) {
        isSpare = false
        return { place: member, reader: spare }
      }
      const place = fill.join()
      return { place, reader: place }
    }
    return {
      size,
      outcome,
      source: sourceOf(fill.began),
      reader: range => {
        const { place, reader } = take()
        const isFar = range !== undefined && this.#isFar(fill, range)
        place.aim({ start: range?.start ?? 0, withheld: range && !this.#isEarly(range) ? range.end : undefined })
        return isFar ? this.#beside(cold, range, reader) : reader
      },
      close: () => member.close(),
    }
  }

  /** What begins at byte 0 may be a whole blob in parts, of which the first must not look complete before the others are right. */
  #isEarly(range: ByteRange): boolean {
    return this.#deps.fills.earlyRanges && range.start > 0
  }

  #isFar(fill: Fill, range: ByteRange): boolean {
    const { nearBytes, maxSideReads } = this.#deps.fills
    if (fill.verified || range.start <= fill.received + nearBytes) return false
    return (this.#sideReads.get(fill) ?? 0) < maxSideReads
  }

  #beside({ fill }: Cold, range: ByteRange, reader: BlobReader): BlobReader {
    this.#countSideReads(fill, 1)
    return new SideRead({
      fill,
      reader,
      range,
      open: (wanted, signal) => fill.openRange(wanted, signal),
      early: this.#isEarly(range),
      onClose: () => this.#countSideReads(fill, -1),
    })
  }

  #countSideReads(fill: Fill, change: 1 | -1): void {
    const count = (this.#sideReads.get(fill) ?? 0) + change
    if (count > 0) this.#sideReads.set(fill, count)
    else this.#sideReads.delete(fill)
  }

  async #fetchAhead(target: Target, digest: Digest): Promise<void> {
    if (this.#fills.has(digest)) return
    if ((await this.#tolerate('size', this.#deps.store.size(digest))) !== undefined) return
    if (this.#fills.has(digest) || this.#closed) return
    const fill = this.#start(target, digest, true)
    const release = fill.hold()
    await fill.ended
    release()
  }

  /** The store is a help, not a condition. */
  async #tolerate<T>(operation: string, work: Promise<T | undefined> | undefined): Promise<T | undefined> {
    try {
      return await work
    } catch (error) {
      this.#deps.observer.storeFailed(operation, error)
      return undefined
    }
  }
}

type Cold = {
  readonly fill: Fill
  readonly size: number | undefined
  readonly member: FillReader
  readonly outcome: OpenedBlob['outcome']
}

type OriginsOptions = {
  readonly target: Target
  readonly digest: Digest
  readonly background: boolean
}

type Origins = {
  readonly origins: readonly Origin[]
  readonly member: FleetFill | undefined
  readonly withoutUpstream: Error | undefined
}

type Publication = {
  readonly digest: Digest
  readonly size: number
  readonly file: SpoolFile
  readonly source: BlobSource
}

/** Resolves when no upload waits any more, at the latest after a minute. */
async function uploaded(shared: SharedBlobs): Promise<void> {
  for (let polls = 0; polls < 60 && shared.pending().uploads > 0; polls++) await sleep(1_000, undefined, { ref: false })
}

/** What comes from the shared store is in this cache already; what another replica downloads is its download. */
function outcomeOf(began: OriginKind | undefined, joined: boolean): OpenedBlob['outcome'] {
  if (began === 'shared') return 'hit'
  return joined || began === 'peer' ? 'joined' : 'fill'
}

/** By where a download began: what it went on from later, after a break, is not told apart. */
function sourceOf(began: OriginKind | undefined): ServedSource {
  if (began === 'shared') return 's3'
  return began === 'peer' ? 'peer' : 'fill'
}

function keyOf(target: Target, digest: Digest): string {
  return `${target.upstream}/${target.repository}@${digest}`
}

/** What the repository of the first client may not have, another's may; and what its manifest says of the size is its own word. */
function isAboutRepository(error: unknown): boolean {
  if (error instanceof FillError) return error.reason === 'size_mismatch'
  if (error instanceof RegistryError) return error.status === 404
  return error instanceof UpstreamError && (error.failure === 'notFound' || error.failure === 'denied')
}

function inMemory(bytes: Uint8Array): OpenedBlob {
  const reader: BlobReader = {
    read: (position, length) => bytes.subarray(position, position + length),
    close: () => undefined,
  }
  return { size: bytes.length, outcome: 'hit', source: 'memory', reader: () => reader, close: () => undefined }
}
