import type { Clock } from '../clock.ts'
import type { Observer } from '../log/observer.ts'
import type { Digest } from '../oci/digest.ts'
import { BlobIndex } from './blob-index.ts'
import { Budget } from './budget.ts'
import { countersOf } from './counters.ts'
import {
  claimDataDirectory,
  type DataDirectory,
  dataDirectory,
  forgetOldIndexes,
  indexIsGone,
  lockDataDirectory,
  restoreDirectory,
  writableBytes,
} from './data-directory.ts'
import { DirectoryBlobs } from './directory-blobs.ts'
import { DocumentTable } from './document-table.ts'
import { createEviction } from './eviction.ts'
import { LinkTable } from './link-table.ts'
import { ManifestTable } from './manifest-table.ts'
import { Pruning } from './pruning.ts'
import { defaultRecordLimits, type RecordLimits } from './record-limits.ts'
import { makeRoomAtStart, meansNoRoom, noRoomOn, type RoomMade } from './room-at-start.ts'
import { orphansAreLikely, startRun } from './runs.ts'
import { SpoolDirectory } from './spool-directory.ts'
import { Sqlite } from './sqlite.ts'
import { SqliteMetadata } from './sqlite-metadata.ts'
import { SqliteTotals } from './sqlite-totals.ts'
import type { BlobCatalog, Catalog } from './catalog.ts'
import { SqliteCatalog } from './sqlite-catalog.ts'
import type { BlobStore, MetadataStore, Spool, StorageUsage } from './stores.ts'
import { Sweep } from './sweep.ts'
import { TagTable } from './tag-table.ts'
import type { Totals } from './totals.ts'

export type EmbeddedOptions = {
  /** Created when missing. One process at a time. */
  readonly dataDir: string
  /** Published blobs, reserved spool bytes and manifests together. */
  readonly maxBytes: number
  readonly clock: Clock
  readonly observer: Observer
  /** How many links and tags are kept; for a while it may be a quarter more links. */
  readonly recordLimits?: RecordLimits
  /** Blobs that are evicted last: those that still have to be uploaded. */
  readonly isPinned?: (digest: Digest) => boolean
}

export type EmbeddedStores = {
  readonly blobs: BlobStore
  readonly spool: Spool
  readonly metadata: MetadataStore
  readonly totals: Totals
  /** Published blobs in the order of digests: those after `after`, at most `limit`. */
  page(after: Digest | undefined, limit: number): readonly { readonly digest: Digest; readonly size: number }[]
  readonly catalog: Catalog & BlobCatalog
  usage(): StorageUsage
  /** Resolves when the work in the background (adopting files, trimming to the budget) that is known now is done. */
  settled(): Promise<void>
  /** Waits for what is being published; open blobs stay readable. Safe to repeat. */
  close(): Promise<void>
}

/**
 * Opens the stores that need nothing but a directory. What takes time here does not grow with what is cached.
 * On a full disk the least recently used go first; when that is not enough, downloads are streamed and not kept (F-34).
 * Rejects with an error that names the directory and the way out: not writable, no room for the index, in use by another process, of a newer version.
 */
export async function openEmbeddedStores({
  dataDir,
  maxBytes,
  clock,
  observer,
  recordLimits = defaultRecordLimits,
  isPinned = () => false,
}: EmbeddedOptions): Promise<EmbeddedStores> {
  const directory = dataDirectory(dataDir)
  const claimed = claimWithRoom(directory)
  let { release } = claimed
  const failed = (operation: string, error: unknown): void => observer.storeFailed(operation, error)
  const now = (): number => clock.now()
  const background = new Set<Promise<void>>()
  // Until the stores are open: the sweep that follows a new index is started below.
  let findAgain: (() => void) | undefined

  try {
    const sqlite = new Sqlite({
      path: directory.index,
      now,
      onReplaced: reason => {
        failed('index.replaced', reason)
        findAgain?.()
      },
      onCheckpointFailed: reason => failed('index.checkpoint', reason),
    })
    forgetOldIndexes(directory, error => failed('index.forget', error))
    const run = startRun(sqlite)
    const counters = countersOf(sqlite)
    const index = new BlobIndex({ sqlite, now, failed: error => failed('blobs.touch', error) })
    const manifests = new ManifestTable({ sqlite, now, failed })
    const documents = new DocumentTable({ sqlite, counters })

    const published = (): number => counters().blobBytes + counters().manifestBytes
    const budget: Budget = new Budget({
      maxBytes,
      // The disk holds a removed blob until its last reader has closed it.
      published: () => published() + blobs.bytesLingering,
      inUse: () => blobs.bytesInUse + blobs.bytesLingering,
      evict: (bytes, reason) => evict(bytes, reason),
      writable: () => writableBytes(directory),
    })
    const spool = new SpoolDirectory({
      path: directory.spool,
      budget,
      restore: async () => {
        await restoreDirectory(directory.spool)
        if (!indexIsGone(directory)) return
        // The lock went with the directory.
        release()
        release = lockDataDirectory(directory)
        sqlite.replace(new Error('the file was removed'))
      },
      failed,
    })
    const inBackground = (operation: string, work: () => Promise<void>): void => {
      const running = work()
        .catch((error: unknown) => failed(operation, error))
        .finally(() => background.delete(running))
      background.add(running)
    }
    const blobs = new DirectoryBlobs({
      directory,
      index,
      spool,
      failed,
      adopted: () => inBackground('blobs.trim', () => budget.trim()),
    })
    const evict = createEviction({
      maxBytes,
      counters,
      index,
      blobs,
      manifests,
      isPinned,
      evicted: (count, bytes, reason) => observer.evicted(count, bytes, reason),
    })

    const forgetRemoved = async ({ removed, bytes, lacking }: RoomMade): Promise<void> => {
      for (const digest of removed) await blobs.delete(digest)
      if (removed.length > 0) observer.evicted(removed.length, bytes, 'disk')
      if (lacking !== undefined)
        failed(
          'start',
          new Error(`${noRoomOn(directory, lacking).message}. Until then downloads are streamed and not kept`),
        )
    }

    await blobs.reconcile()
    await forgetRemoved(claimed.madeRoom)
    const sweep = new Sweep({ directory, index, blobs })
    let sweeping: Promise<void> = Promise.resolve()
    findAgain = () =>
      inBackground('blobs.sweep', () => {
        const run = sweep.run()
        sweeping = run.catch(() => {})
        return run
      })
    if (orphansAreLikely(run)) findAgain()
    if (published() > maxBytes) inBackground('blobs.trim', () => budget.trim())

    const tags = new TagTable({ sqlite, counters, maxTags: recordLimits.tags })
    const links = new LinkTable(sqlite)
    const pruning = new Pruning({
      counters,
      links,
      maxLinks: recordLimits.links,
      now,
      inBackground,
      indexed: async () => {
        // Blobs that are not found again yet would look as if they were not stored.
        await sweeping
        index.touches.flush()
        manifests.touches.flush()
      },
    })
    pruning.check()

    const metadata = new SqliteMetadata({ manifests, tags, links, documents, budget, pruning, failed })
    let closing: Promise<void> | undefined
    const close = async (): Promise<void> => {
      sweep.stop()
      pruning.stop()
      await Promise.allSettled(background)
      await blobs.idle()
      index.touches.flush()
      manifests.touches.flush()
      run.end()
      await sqlite.close()
      release()
    }
    return {
      blobs,
      spool,
      metadata,
      totals: new SqliteTotals(sqlite),
      page: (after, limit) => index.page(after, limit),
      catalog: new SqliteCatalog(sqlite),
      usage: () => {
        const { blobs: count, blobBytes, manifests: manifestCount, manifestBytes } = counters()
        return {
          blobs: count,
          blobBytes,
          manifests: manifestCount,
          manifestBytes,
          reservedBytes: budget.reservedBytes,
          maxBytes,
        }
      },
      settled: async () => {
        while (background.size > 0) await Promise.allSettled(background)
      },
      close: () => (closing ??= close()),
    }
  } catch (error) {
    release()
    throw meansNoRoom(error, directory) ? noRoomOn(directory, error) : error
  }
}

function claimWithRoom(directory: DataDirectory): { readonly release: () => void; readonly madeRoom: RoomMade } {
  let madeRoom: RoomMade = { removed: [], bytes: 0, lacking: undefined }
  try {
    const release = claimDataDirectory(directory, () => {
      madeRoom = makeRoomAtStart(directory)
    })
    return { release, madeRoom }
  } catch (error) {
    throw meansNoRoom(error, directory) ? noRoomOn(directory, error) : error
  }
}
