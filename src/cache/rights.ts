import { LRUCache } from 'lru-cache'
import { type Clock, systemClock } from '../clock.ts'
import { type Digest, wellKnownBlobs } from '../oci/digest.ts'
import { blobUnknown } from '../oci/errors.ts'
import type { Observer } from '../log/observer.ts'
import type { Target } from '../routing/target.ts'
import type { MetadataStore } from '../store/stores.ts'
import type { Upstream } from '../upstream/upstream.ts'
import { createFlights } from './flights.ts'
import { forgivingMetadata } from './forgiving-metadata.ts'
import { createRightsAge } from './rights-age.ts'
import { offlineAnd, toRegistryError } from './upstream-failure.ts'

/**
 * Which repository may read which digest. That the bytes are here says nothing: they may have come through another repository,
 * or another upstream (T-11). Only upstream opens a digest for a repository, and only for that one.
 */
export interface Rights {
  /**
   * For bytes that are here, whoever brought them. `yes`: upstream confirmed the digest for this repository, or one of the repository's
   * manifests names it and the same upstream confirmed it somewhere.
   * `ask`: {@link confirm} it before a byte, a size or a 304 is given away.
   */
  mayReadBlob(target: Target, digest: Digest): Promise<'yes' | 'ask'>
  /** Asks upstream under this repository, then links. One question for all who wait; `signal` ends the waiting of one. Throws BLOB_UNKNOWN, DENIED or UNAVAILABLE. */
  confirm(target: Target, digest: Digest, signal?: AbortSignal): Promise<void>
  /** Upstream just gave the digest for this repository. */
  confirmed(target: Target, digest: Digest): Promise<void>
  /** A manifest of this repository describes these. */
  named(target: Target, digests: readonly Digest[]): Promise<void>
}

/** What manifests need besides: they are never opened by being named. */
export interface ManifestRights extends Rights {
  isConfirmed(target: Target, digest: Digest): Promise<boolean>
  /** Upstream confirmed it, and does so again where that was too long ago. */
  mayReadManifest(target: Target, digest: Digest): Promise<boolean>
  /** Upstream just gave or acknowledged something of this repository. */
  heard(target: Target): void
  /** Upstream's last word on this repository is good enough: always, where rights do not age. */
  isFresh(target: Target): boolean
  /** Upstream gave or acknowledged the digest under some repository: its word on another of its repositories may be believed. */
  isConfirmedAt(upstream: string, digest: Digest): Promise<boolean>
  /** As `mayReadManifest`, from memory alone: `false` means to ask that. */
  remembersConfirmed(target: Target, digest: Digest): boolean
}

export type RightsDependencies = {
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly metadata: MetadataStore
  readonly observer: Observer
  readonly offline: boolean
  /** How long upstream's word on a repository is good; undefined, also by default: for ever. */
  readonly maxAgeMs?: (upstream: string) => number | undefined
  readonly clock?: Clock
}

/** About 250 bytes each: 64 Ki links are 16 MiB. */
const rememberedLinks = 65_536

export function createRights(deps: RightsDependencies): ManifestRights {
  const metadata = forgivingMetadata(deps.metadata, deps.observer)
  /** `opened`: named by one of its manifests, and upstream confirmed it somewhere. */
  const remembered = new LRUCache<string, 'confirmed' | 'opened'>({ max: rememberedLinks })
  const questions = createFlights<void>()

  const { upstreams, offline, clock = systemClock, maxAgeMs = () => undefined } = deps
  const age = createRightsAge({ upstreams, clock, offline, maxAgeMs })

  const remembersLink = (target: Target, digest: Digest): boolean =>
    remembered.get(keyOf(target, digest)) === 'confirmed'

  const linkOf = async (target: Target, digest: Digest): Promise<'named' | 'confirmed' | undefined> => {
    if (remembersLink(target, digest)) return 'confirmed'
    const link = await metadata.getLink(target.upstream, target.repository, digest)
    if (link === 'confirmed') remembered.set(keyOf(target, digest), 'confirmed')
    return link
  }

  /** What is held and not taken back meanwhile; what was taken back is forgotten (T-16). */
  const stillHolds = async (target: Target, digest: Digest, kind: 'manifest' | 'blob'): Promise<boolean> => {
    if (await age.stillHolds(target, digest, kind)) return true
    remembered.delete(keyOf(target, digest))
    await metadata.deleteLink(target.upstream, target.repository, digest)
    return false
  }

  const confirmed = async (target: Target, digest: Digest): Promise<void> => {
    age.heard(target)
    remembered.set(keyOf(target, digest), 'confirmed')
    await metadata.putLinks(target.upstream, target.repository, [digest], 'confirmed')
  }

  const ask = async (target: Target, digest: Digest, signal: AbortSignal): Promise<void> => {
    const subject = { kind: 'blob', repository: target.repository, reference: digest } as const
    if (deps.offline) throw offlineAnd(subject)
    const upstream = deps.upstreams.get(target.upstream)
    if (!upstream) throw blobUnknown(digest, 'this upstream is not configured here')
    try {
      await upstream.headBlob(target.repository, digest, { signal })
    } catch (error) {
      throw toRegistryError(error, subject)
    }
    await confirmed(target, digest)
  }

  const isHeld = async (target: Target, digest: Digest): Promise<boolean> => {
    // A warm blob asks no store, also while there is none that answers.
    if (remembered.has(keyOf(target, digest))) return true
    const link = await linkOf(target, digest)
    if (link !== 'named') return link === 'confirmed'
    if (!(await metadata.isConfirmedAt(target.upstream, digest))) return false
    remembered.set(keyOf(target, digest), 'opened')
    return true
  }

  return {
    remembersConfirmed: (target, digest) => remembersLink(target, digest) && age.isFresh(target),
    confirmed,
    heard: target => age.heard(target),
    isFresh: target => age.isFresh(target),
    async mayReadManifest(target, digest) {
      return (await linkOf(target, digest)) === 'confirmed' && (await stillHolds(target, digest, 'manifest'))
    },
    async isConfirmed(target, digest) {
      return (await linkOf(target, digest)) === 'confirmed'
    },
    isConfirmedAt: (upstream, digest) => metadata.isConfirmedAt(upstream, digest),
    async mayReadBlob(target, digest) {
      // Their content is known to everybody (P-66).
      if (wellKnownBlobs.has(digest)) return 'yes'
      return (await isHeld(target, digest)) && (await stillHolds(target, digest, 'blob')) ? 'yes' : 'ask'
    },
    async confirm(target, digest, signal) {
      await questions.share(keyOf(target, digest), abandoned => ask(target, digest, abandoned), signal)
    },
    async named(target, digests) {
      if (digests.length > 0) await metadata.putLinks(target.upstream, target.repository, digests, 'named')
    },
  }
}

// Names and digests hold no white space, so no two targets share a key (T-24).
const keyOf = (target: Target, digest: Digest): string => `${target.upstream} ${target.repository} ${digest}`
