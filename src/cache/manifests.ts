import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { Observer } from '../log/observer.ts'
import type { Outcome, ServedSource } from '../log/outcome.ts'
import { type Digest, isDigest, wellKnownBlobs } from '../oci/digest.ts'
import { manifestUnknown, nameUnknown, unavailable } from '../oci/errors.ts'
import { describedBlobs, type ParsedManifest } from '../oci/manifest.ts'
import type { Reference } from '../oci/reference.ts'
import { formatWarning } from '../oci/warning.ts'
import type { Target } from '../routing/target.ts'
import type { Questions } from '../store/questions.ts'
import type { BlobStore, ManifestRecord, MetadataStore } from '../store/stores.ts'
import { type Upstream, UpstreamError } from '../upstream/upstream.ts'
import { createAbsences } from './absences.ts'
import { createFlights } from './flights.ts'
import { forgivingMetadata } from './forgiving-metadata.ts'
import { createInquire } from './inquiry.ts'
import { type Asked, ageOf, askedNow, isFresh, mayServeStale, momentOf, staleWarning } from './freshness.ts'
import {
  type FetchedManifest,
  fetchByDigest,
  fetchByTag,
  fetchByTagFromMirrors,
  type Origin,
} from './manifest-fetch.ts'
import { type CachedManifest, createManifestRecords } from './manifest-records.ts'
import type { ManifestRights } from './rights.ts'
import { isWithdrawal } from './rights-age.ts'
import { createTags, type TagEntry, tagKey } from './tags.ts'
import { isNoInformation, offlineAnd, reasonOf, retryAfterOf, toRegistryError } from './upstream-failure.ts'

/** Manifests by tag and by digest, for GET and HEAD alike: they are at most 4 MiB and held in memory. */
export interface Manifests {
  /**
   * Gives a manifest that this repository may be given. Without a promise when it is in memory and fresh.
   * `options.signal` ends the waiting of this caller; what it waits for goes on (F-17). It is read only when there is waiting to do.
   * Throws or rejects with {@link RegistryError}, or with `signal.reason`.
   */
  get(target: Target, reference: Reference, options?: Waiting): ServedManifest | Promise<ServedManifest>
}

export type Waiting = { readonly signal?: AbortSignal }

export type ServedManifest = {
  readonly digest: Digest
  readonly mediaType: string
  /** Exactly as upstream sent them (P-29). */
  readonly bytes: Uint8Array
  readonly byTag: boolean
  readonly outcome: Outcome
  readonly source: ServedSource
  /** One word, when the outcome is `stale`. */
  readonly staleReason: string | undefined
  /** Since upstream last confirmed it; 0 by digest. */
  readonly ageMs: number
  /** Undefined by digest: it never expires (P-48). */
  readonly ttlMs: number | undefined
  /** Whole `Warning` values: `299 - "…"`. */
  readonly warnings: readonly string[]
  /** The same object for the same manifest while it stays in memory: room for prepared headers. */
  readonly slot: { headers?: unknown }
}

export type TagSettings = {
  readonly tagTtlMs: number
  readonly maxStaleMs: number
  readonly whenGone: 'deny' | 'serve'
}

export type ManifestsDependencies = {
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly settings: (upstream: string) => TagSettings
  readonly metadata: MetadataStore
  readonly blobs: Pick<BlobStore, 'size'>
  readonly rights: ManifestRights
  /** What other replicas ask upstream at the moment; undefined: there are none. */
  readonly questions?: Questions | undefined
  readonly clock: Clock
  readonly observer: Observer
  /** Called once for each manifest that is newly stored: prefetching starts here. */
  readonly onServed?: (target: Target, parsed: ParsedManifest, record: ManifestRecord) => void
  /** Default 64 MiB. */
  readonly memoryBytes?: number
  /** Where the metadata store has its bytes. Default `disk`. */
  readonly storeSource?: ServedSource
  /** In [0, 1). Default Math.random. */
  readonly random?: () => number
  /** true: never dial. */
  readonly offline: boolean
}

/** One request's place: whose manifest, of which upstream, by which rules. */
type Place = { readonly target: Target; readonly upstream: Upstream; readonly settings: TagSettings }
/** A place where there is work to do; `signal` fires when nobody waits for it any more. */
type Errand = Place & { readonly signal: AbortSignal }
type Settled = Pick<ServedManifest, 'outcome' | 'ageMs' | 'warnings'> & {
  readonly cached: CachedManifest
  readonly staleReason?: string
}

const defaultMemoryBytes = 64 * 1024 * 1024
/** How long a repository that answers GET, and HEAD with nothing of use, is asked by GET at once (P-40, F-32). */
const headUselessMs = 10 * 60_000

export function createManifests(deps: ManifestsDependencies): Manifests {
  const { clock, rights, offline } = deps
  const metadata = forgivingMetadata(deps.metadata, deps.observer)
  const records = createManifestRecords({
    metadata,
    observer: deps.observer,
    memoryBytes: deps.memoryBytes ?? defaultMemoryBytes,
    storeSource: deps.storeSource ?? 'disk',
  })
  const tags = createTags({ metadata, clock, random: deps.random ?? Math.random })
  const absences = createAbsences(clock)
  const inquire = createInquire(deps.questions, clock)
  const tagFlights = createFlights<Settled>()
  const digestFlights = createFlights<Settled>()
  const fetches = createFlights<Settled>()
  /** Upstream and repository → until when HEAD is not tried. */
  const headUselessUntil = new LRUCache<string, number>({ max: 10_000 })

  const originOf = ({ upstream, target, signal }: Errand): Origin => ({
    upstream,
    signal,
    repository: target.repository,
    observer: deps.observer,
  })

  const cannotAsk = (upstream: Upstream): boolean => offline || upstream.health().state === 'open'

  const questionOf = ({ upstream, repository }: Target, reference: string) => ({ upstream, repository, reference })

  // By digest

  const getByDigest = (place: Place, digest: Digest, waiting: Waiting) => {
    const cached = records.peek(digest)
    if (cached && rights.remembersConfirmed(place.target, digest) && !cannotAsk(place.upstream))
      return served(hit(cached), undefined)
    return digestFlights
      .share(tagKey(place.target, digest), signal => settleDigest({ ...place, signal }, digest), waiting.signal)
      .then(({ value, joined }) => served(joined ? joinedTo(value) : value, undefined))
  }

  const settleDigest = async (place: Errand, digest: Digest): Promise<Settled> => {
    const { target, upstream } = place
    const cached = await records.find(digest)
    if (cached && (await rights.mayReadManifest(target, digest))) {
      if (cannotAsk(upstream)) await requireBlobs(place, cached)
      return hit(cached)
    }
    const subject = { kind: 'manifest', repository: target.repository, reference: digest } as const
    if (absences.has(tagKey(target, digest))) throw absent(place, digest)
    if (offline) throw offlineAnd(subject)
    try {
      if (cached) return await settleKnownElsewhere(place, cached)
      return await obtain(place, digest)
    } catch (error) {
      if (isNotFound(error)) absences.add(tagKey(target, digest))
      throw toRegistryError(error, subject)
    }
  }

  /** One GET by digest for all who need it, by tag or by digest. */
  const obtain = async (place: Errand, digest: Digest, firstSource = 0): Promise<Settled> => {
    const ask = async (signal: AbortSignal): Promise<Settled> => {
      const fetched = await fetchByDigest(originOf({ ...place, signal }), digest, firstSource)
      return filled(await keep(place.target, fetched), fetched.warnings)
    }
    const look = async (): Promise<Settled | undefined> => {
      const cached = await records.find(digest)
      // A record may be older than what upstream has taken back since (T-16).
      return cached && (await rights.mayReadManifest(place.target, digest)) ? hit(cached) : undefined
    }
    const fetch = (signal: AbortSignal): Promise<Settled> =>
      cannotAsk(place.upstream)
        ? ask(signal)
        : inquire({ question: questionOf(place.target, digest), signal, look, ask: () => ask(signal) })
    const { value } = await fetches.share(tagKey(place.target, digest), fetch, place.signal)
    return value
  }

  /**
   * The bytes came through another repository; whether this one has them is upstream's to say (T-11). An upstream that never had them
   * has to give them: that it says yes to a digest proves nothing.
   */
  const settleKnownElsewhere = async (place: Errand, cached: CachedManifest): Promise<Settled> => {
    const { target, upstream, signal } = place
    const { digest } = cached.record
    let firstSource = 0
    if (!(await rights.isConfirmedAt(target.upstream, digest))) return obtain(place, digest)
    try {
      const head = await upstream.headManifest(target.repository, digest, { signal })
      if (head.digest === digest) {
        const agreed = await records.agree(cached, head.mediaType)
        await link(target, agreed)
        return { cached: agreed, outcome: 'revalidated', ageMs: 0, warnings: [] }
      }
    } catch (error) {
      if (!(error instanceof UpstreamError) || error.failure === 'notFound') throw error
      if (error.failure === 'unavailable' || error.failure === 'rateLimited') {
        if (upstream.sources === 1) throw error
        firstSource = 1
      }
    }
    return obtain(place, digest, firstSource)
  }

  // By tag

  const getByTag = (place: Place, tag: string, waiting: Waiting) => {
    const { target, settings } = place
    const entry = tags.peek(target, tag)
    if (entry && !cannotAsk(place.upstream)) {
      const ageMs = ageOf(entry.checkedAt, clock)
      const cached = isFresh(ageMs, settings.tagTtlMs) ? records.peek(entry.record.digest) : undefined
      if (cached) return served({ cached, outcome: 'hit', ageMs, warnings: entry.warnings }, settings.tagTtlMs)
    }
    return tagFlights
      .share(tagKey(target, tag), signal => settleTag({ ...place, signal }, tag), waiting.signal)
      .then(({ value, joined }) => served(joined ? joinedTo(value) : value, settings.tagTtlMs))
  }

  const settleTag = async (place: Errand, tag: string): Promise<Settled> => {
    const { target, settings } = place
    const entry = await tags.find(target, tag, settings.tagTtlMs)
    if (!entry) return settleNewTag(place, tag)
    // Absent when the pointer dangles: the manifest was dropped from the store, or never got there (F-62, F-65).
    const cached = await records.find(entry.record.digest)
    const ageMs = ageOf(entry.checkedAt, clock)
    if (cached && isFresh(ageMs, settings.tagTtlMs)) {
      if (cannotAsk(place.upstream)) await requireBlobs(place, cached)
      return { cached, outcome: 'hit', ageMs, warnings: entry.warnings }
    }
    if (offline) {
      if (!cached) throw offlineAnd({ kind: 'manifest', repository: target.repository, reference: tag })
      return settleStale(place, { entry, cached, why: 'offline' })
    }
    const { postponed } = entry
    const usable = postponed?.why === 'gone' || mayServeStale(ageMs, settings.maxStaleMs)
    if (postponed && cached && usable && momentOf(clock) < postponed.until)
      return settleStale(place, { entry, cached, why: postponed.why })
    try {
      return await inquireTag(place, tag, () =>
        countRevalidation(place, entry.record.digest, revalidate(place, tag, entry)),
      )
    } catch (error) {
      return settleAfterFailure(place, tag, { entry, cached, error })
    }
  }

  /** What upstream said to this replica; what another one was told is counted there. */
  const countRevalidation = async (place: Errand, before: Digest, answer: Promise<Settled>): Promise<Settled> => {
    const { upstream } = place.target
    try {
      const settled = await answer
      deps.observer.revalidated(upstream, settled.cached.record.digest === before ? 'same' : 'changed')
      return settled
    } catch (error) {
      deps.observer.revalidated(upstream, isNotFound(error) ? 'gone' : 'failed')
      throw error
    }
  }

  /** One question for all replicas, where its answer is good for any time at all. */
  const inquireTag = (place: Errand, tag: string, ask: () => Promise<Settled>): Promise<Settled> => {
    const { target, settings, signal } = place
    if (settings.tagTtlMs === 0 || cannotAsk(place.upstream)) return ask()
    const look = async (): Promise<Settled | undefined> => {
      const entry = await tags.find(target, tag, settings.tagTtlMs)
      const ageMs = entry ? ageOf(entry.checkedAt, clock) : Number.POSITIVE_INFINITY
      const cached = entry && isFresh(ageMs, settings.tagTtlMs) ? await records.find(entry.record.digest) : undefined
      return entry && cached && { cached, outcome: 'hit', ageMs, warnings: entry.warnings }
    }
    return inquire({ question: questionOf(target, tag), signal, look, ask })
  }

  const settleNewTag = async (place: Errand, tag: string): Promise<Settled> => {
    const { target } = place
    const subject = { kind: 'manifest', repository: target.repository, reference: tag } as const
    if (absences.has(tagKey(target, tag))) throw absent(place, tag)
    if (offline) throw offlineAnd(subject)
    try {
      return await inquireTag(place, tag, () => fillByTag(place, tag))
    } catch (error) {
      if (isNotFound(error)) absences.add(tagKey(target, tag))
      const settled = await settleFromMirrors(place, tag, error)
      if (settled) return settled
      throw toRegistryError(error, subject)
    }
  }

  /** One HEAD, which Docker Hub does not count; a GET when it names something new, or says nothing (P-47, P-101). */
  const revalidate = async (place: Errand, tag: string, entry: TagEntry): Promise<Settled> => {
    const askedAt = askedNow(clock)
    const head = await headDigest(place, tag)
    if (head === 'unsure' || head === 'useless') {
      const settled = await fillByTag(place, tag)
      if (head === 'useless') headUselessUntil.set(repositoryKey(place.target), clock.monotonic() + headUselessMs)
      const same = settled.cached.record.digest === entry.record.digest
      return same ? { ...settled, outcome: 'revalidated' } : settled
    }
    const { digest } = head
    const isSame = digest === entry.record.digest
    const found = await records.find(digest)
    // Upstream says that this repository's tag is this digest, and these bytes have that digest. It is believed where the bytes are its own.
    if (found && (isSame || (await rights.isConfirmedAt(place.target.upstream, digest)))) {
      const known = await records.agree(found, head.mediaType)
      const warnings = isSame ? entry.warnings : []
      const settled: Settled = { cached: known, outcome: 'revalidated', ageMs: 0, warnings }
      await link(place.target, known)
      await point(place, tag, settled, askedAt)
      return settled
    }
    try {
      const settled = await obtain(place, digest)
      await point(place, tag, settled, askedAt)
      return settled.outcome === 'hit' ? { ...settled, outcome: 'revalidated' } : settled
    } catch (error) {
      // The tag may have moved on since the HEAD, and the digest be gone: what the GET gives is what counts (F-30).
      if (isNotFound(error)) return fillByTag(place, tag)
      throw error
    }
  }

  const fillByTag = async (place: Errand, tag: string): Promise<Settled> => {
    const askedAt = askedNow(clock)
    const fetched = await fetchByTag(originOf(place), tag)
    const settled = filled(await keep(place.target, fetched), fetched.warnings)
    await point(place, tag, settled, askedAt)
    return settled
  }

  /**
   * What HEAD names. `useless`: this registry may not know HEAD (F-32), which is remembered when GET works.
   * `unsure`: a 404, which counts when GET says it too (F-29).
   */
  const headDigest = async (
    { upstream, target, signal }: Errand,
    tag: string,
  ): Promise<{ readonly digest: Digest; readonly mediaType: string | undefined } | 'unsure' | 'useless'> => {
    if ((headUselessUntil.get(repositoryKey(target)) ?? Number.NEGATIVE_INFINITY) > clock.monotonic()) return 'unsure'
    try {
      const { digest, mediaType } = await upstream.headManifest(target.repository, tag, { signal })
      return digest !== undefined && isDigest(digest) ? { digest, mediaType } : 'useless'
    } catch (error) {
      if (isNotFound(error)) return 'unsure'
      if (error instanceof UpstreamError && (error.failure === 'denied' || error.failure === 'invalid'))
        return 'useless'
      throw error
    }
  }

  const settleAfterFailure = async (
    place: Errand,
    tag: string,
    { entry, cached, error }: { entry: TagEntry; cached: CachedManifest | undefined; error: unknown },
  ): Promise<Settled> => {
    const { target, settings } = place
    const isGone = isNotFound(error)
    if (isGone && settings.whenGone === 'deny') {
      await tags.remove(target, tag)
      absences.add(tagKey(target, tag))
    } else if (isGone || (isNoInformation(error) && !isWithdrawn(target, error))) {
      const why = isGone ? 'gone' : reasonOf(error)
      const usable = isGone || mayServeStale(ageOf(entry.checkedAt, clock), settings.maxStaleMs)
      tags.postpone(target, tag, entry, why, retryAfterOf(error))
      if (cached && usable) return settleStale(place, { entry, cached, why })
    }
    const settled = await settleFromMirrors(place, tag, error)
    if (settled) return settled
    throw toRegistryError(error, { kind: 'manifest', repository: target.repository, reference: tag })
  }

  /** Upstream refuses the repository, and has not opened it for longer than rights are good (T-16). */
  const isWithdrawn = (target: Target, error: unknown): boolean => isWithdrawal(error) && !rights.isFresh(target)

  /** The old answer, for as long as the blobs behind it can be had as well. */
  const settleStale = async (
    place: Place,
    { entry, cached, why }: { entry: TagEntry; cached: CachedManifest; why: string },
  ): Promise<Settled> => {
    await requireBlobs(place, cached)
    const ageMs = ageOf(entry.checkedAt, clock)
    const warnings = [staleWarning(place.upstream.name, why, ageMs)]
    return { cached, outcome: 'stale', ageMs, warnings, staleReason: why }
  }

  /** What a mirror says about a tag is served, and never becomes the tag (T-21). */
  const settleFromMirrors = async (place: Errand, tag: string, error: unknown): Promise<Settled | undefined> => {
    const { target, upstream } = place
    const primaryIsDown =
      error instanceof UpstreamError && (error.failure === 'unavailable' || error.failure === 'rateLimited')
    if (!primaryIsDown || upstream.sources === 1) return undefined
    const fetched = await fetchByTagFromMirrors(originOf(place), tag)
    if (!fetched) return undefined
    const cached = await keep(target, fetched)
    const notice = formatWarning(`${upstream.name} cannot be asked (${reasonOf(error)}): this is its mirror's answer`)
    return { cached, outcome: 'fill', ageMs: 0, warnings: [notice] }
  }

  // Storing: the manifest, then what it opens, then the tag that points to it (F-65).

  const keep = async (target: Target, fetched: FetchedManifest): Promise<CachedManifest> => {
    const isNew = (await records.find(fetched.record.digest)) === undefined
    const cached = await records.keep(fetched.record, fetched.parsed)
    await link(target, cached)
    if (isNew) announce(target, cached)
    return cached
  }

  const announce = (target: Target, { parsed, record }: CachedManifest): void => {
    try {
      deps.onServed?.(target, parsed, record)
    } catch (error) {
      // Whoever prefetches must not fail the pull that told it.
      deps.observer.storeFailed('onServed', error)
    }
  }

  const link = async (target: Target, { record, parsed }: CachedManifest): Promise<void> => {
    absences.remove(tagKey(target, record.digest))
    rights.heard(target)
    if (await rights.isConfirmed(target, record.digest)) return
    await rights.named(
      target,
      describedBlobs(parsed).map(blob => blob.digest),
    )
    await rights.confirmed(target, record.digest)
  }

  const point = async (place: Place, tag: string, { cached, warnings }: Settled, askedAt: Asked): Promise<void> => {
    const { digest, mediaType, bytes } = cached.record
    await tags.confirm(place.target, tag, { pointer: { digest, mediaType, size: bytes.length }, askedAt, warnings })
    absences.remove(tagKey(place.target, tag))
  }

  /**
   * Some clients choose a mirror once per image, by its manifest, and then take every blob from it. An image whose blobs
   * cannot be had is therefore not offered, so that they go elsewhere at once.
   */
  const requireBlobs = async (place: Place, { record, parsed }: CachedManifest): Promise<void> => {
    if (parsed.kind === 'index') return
    for (const { digest } of describedBlobs(parsed)) {
      if (wellKnownBlobs.has(digest) || (await isStored(digest))) continue
      // Where one of the missing blobs can still be had, the others are taken to be.
      if (await mirrorsHave(place, digest)) return
      if (offline)
        throw manifestUnknown(record.digest, 'its manifest is cached, its blobs are not, and this cache is offline')
      throw unavailable(`${place.upstream.name} cannot be asked now, and not all blobs of this image are cached`)
    }
  }

  const mirrorsHave = async ({ upstream, target }: Place, digest: Digest): Promise<boolean> => {
    if (offline || upstream.sources === 1) return false
    try {
      await upstream.headBlob(target.repository, digest)
      return true
    } catch (error) {
      if (error instanceof UpstreamError) return false
      throw error
    }
  }

  const isStored = async (digest: Digest): Promise<boolean> => {
    try {
      return (await deps.blobs.size(digest)) !== undefined
    } catch (error) {
      deps.observer.storeFailed('size', error)
      return false
    }
  }

  return {
    get(target, reference, options = {}) {
      const upstream = deps.upstreams.get(target.upstream)
      if (!upstream) throw nameUnknown(target.requestedRepository, `${target.upstream} is not configured here`)
      const place = { target, upstream, settings: deps.settings(target.upstream) }
      return reference.kind === 'tag'
        ? getByTag(place, reference.tag, options)
        : getByDigest(place, reference.digest, options)
    },
  }
}

function served({ cached, outcome, ageMs, warnings, staleReason }: Settled, ttlMs: number | undefined): ServedManifest {
  const { digest, mediaType, bytes } = cached.record
  return {
    digest,
    mediaType,
    bytes,
    byTag: ttlMs !== undefined,
    outcome,
    source: cached.source,
    staleReason,
    ageMs,
    ttlMs,
    warnings,
    slot: cached.slot,
  }
}

const hit = (cached: CachedManifest): Settled => ({ cached, outcome: 'hit', ageMs: 0, warnings: [] })

const filled = (cached: CachedManifest, warnings: readonly string[] = []): Settled => ({
  cached,
  outcome: 'fill',
  ageMs: 0,
  warnings,
})

/** Whoever waited for another's download did not cause one. */
const joinedTo = (settled: Settled): Settled =>
  settled.outcome === 'fill' ? { ...settled, outcome: 'joined' } : settled

const repositoryKey = (target: Target): string => `${target.upstream} ${target.repository}`

const isNotFound = (error: unknown): boolean => error instanceof UpstreamError && error.failure === 'notFound'

const absent = ({ target, upstream }: Place, reference: string) =>
  manifestUnknown(reference, `${upstream.name} did not have it in ${target.repository} a moment ago`)
