import type { EvictionReason } from '../log/observer.ts'
import type { Digest } from '../oci/digest.ts'
import type { BlobIndex } from './blob-index.ts'
import type { Counters } from './counters.ts'
import type { DirectoryBlobs } from './directory-blobs.ts'
import type { ManifestTable } from './manifest-table.ts'

export type EvictionOptions = {
  readonly maxBytes: number
  readonly counters: () => Counters
  readonly index: BlobIndex
  readonly blobs: DirectoryBlobs
  readonly manifests: ManifestTable
  /** A blob that should go after all others, because it is nowhere else yet. */
  readonly isPinned: (digest: Digest) => boolean
  readonly evicted: (blobs: number, bytes: number, reason: EvictionReason) => void
}

type Victim = { readonly digest: Digest; readonly size: number }

/** So many at a time: choosing and marking is synchronous, and requests go on in between. */
const batch = 128

/**
 * Gives the function that removes the least recently used until about `bytes` are free, one batch per call; it resolves with how many
 * bytes were freed, 0 when nothing can be removed. Blobs that someone reads stay: removing them would free nothing yet.
 *
 * Pinned blobs go when nothing else is left: a bucket that takes no uploads must not keep pulls from being cached.
 * Blobs go before manifests. A manifest is small, costs a request that upstream counts, and is served from memory so often that its
 * row looks older than it is. Only when manifests hold more than a tenth of the budget do they go first.
 */
export function createEviction(options: EvictionOptions): (bytes: number, reason: EvictionReason) => Promise<number> {
  const { maxBytes, counters, index, blobs, manifests, isPinned, evicted } = options

  const evictBlobs = async (bytes: number, reason: EvictionReason): Promise<number> => {
    const isFree = ({ digest }: Victim): boolean => !blobs.isInUse(digest)
    const unpinned = firstOf(index.leastRecentlyUsed(), bytes, victim => isFree(victim) && !isPinned(victim.digest))
    const victims = unpinned.length > 0 ? unpinned : firstOf(index.leastRecentlyUsed(), bytes, isFree)
    if (victims.length === 0) return 0
    const digests = victims.map(victim => victim.digest)
    index.markDeleting(digests)
    await blobs.remove(digests)
    evicted(victims.length, bytesOf(victims), reason)
    return bytesOf(victims)
  }

  const evictManifests = async (bytes: number, reason: EvictionReason): Promise<number> => {
    const victims = firstOf(manifests.leastRecentlyUsed(), bytes, () => true)
    if (victims.length === 0) return 0
    manifests.delete(victims.map(victim => victim.digest))
    evicted(0, bytesOf(victims), reason)
    return bytesOf(victims)
  }

  return async (bytes, reason) => {
    index.touches.flush()
    manifests.touches.flush()
    const manifestsFirst = counters().manifestBytes > maxBytes / 10
    const [first, second] = manifestsFirst ? [evictManifests, evictBlobs] : [evictBlobs, evictManifests]
    return (await first(bytes, reason)) || (await second(bytes, reason))
  }
}

function firstOf(rows: Iterable<Victim>, bytes: number, accept: (victim: Victim) => boolean): readonly Victim[] {
  const chosen: Victim[] = []
  let sum = 0
  for (const row of rows) {
    if (!accept(row)) continue
    chosen.push(row)
    sum += row.size
    if (sum >= bytes || chosen.length >= batch) break
  }
  return chosen
}

const bytesOf = (victims: readonly Victim[]): number => victims.reduce((sum, victim) => sum + victim.size, 0)
