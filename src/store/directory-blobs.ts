import { rename, stat, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Digest } from '../oci/digest.ts'
import type { BlobIndex } from './blob-index.ts'
import { blobPath, restoreDirectory, syncDirectory, type DataDirectory } from './data-directory.ts'
import { openDescriptor } from './descriptor.ts'
import { OpenBlobs, type WholeFile } from './open-blobs.ts'
import type { SpoolDirectory, SpoolDirectoryFile } from './spool-directory.ts'
import type { BlobStore, OpenBlob, SpoolFile } from './stores.ts'
import { codeOf } from './system-error.ts'
import { Turns } from './turns.ts'

export type DirectoryBlobsOptions = {
  readonly directory: DataDirectory
  readonly index: BlobIndex
  readonly spool: SpoolDirectory
  readonly failed: (operation: string, error: unknown) => void
  /** A blob was found that nobody had counted. */
  readonly adopted: () => void
}

/**
 * Blobs as files by digest. The order of steps is what makes a crash harmless:
 * publishing is row `publishing`, sync, rename, sync of the directory, row `present`; removing is row `deleting`, unlink, no row.
 * A file under its final name is therefore always whole, and a row in state `present` names a file.
 */
export class DirectoryBlobs implements BlobStore {
  readonly #options: DirectoryBlobsOptions
  readonly #open = new OpenBlobs()
  readonly #turns = new Turns<Digest>()
  readonly #syncs = new Turns<0 | 1>()
  #nextSync = 0

  constructor(options: DirectoryBlobsOptions) {
    this.#options = options
  }

  /** Bytes of published blobs that are being read. */
  get bytesInUse(): number {
    return this.#open.bytes
  }

  /** Bytes of removed blobs that are still being read. */
  get bytesLingering(): number {
    return this.#open.lingeringBytes
  }

  /** A blob that is read, published or removed right now is not evicted. */
  isInUse(digest: Digest): boolean {
    return this.#open.has(digest) || this.#turns.isBusy(digest)
  }

  async open(digest: Digest): Promise<OpenBlob | undefined> {
    const { index, failed } = this.#options
    try {
      const blob = await this.#open.acquire(digest, () => this.#openFile(digest))
      if (blob !== undefined) index.touch(digest)
      return blob
    } catch (error) {
      // Not readable is not here: upstream has it.
      failed('blobs.open', error)
      return undefined
    }
  }

  async size(digest: Digest): Promise<number | undefined> {
    const { failed, index } = this.#options
    try {
      const size = index.sizeOf(digest)
      if (size !== undefined && (await this.#fileSize(digest)) === size) return size
      return await this.#settle(digest)
    } catch (error) {
      failed('blobs.size', error)
      return undefined
    }
  }

  /** Rejects, with nothing published, when the file is not `size` bytes long or the system fails. */
  async publish(digest: Digest, size: number, spool: SpoolFile): Promise<void> {
    const file = this.#options.spool.fileAt(spool.path)
    if (file === undefined) throw new Error('only a running spool file of this store can be published')
    const actual = await file.size()
    if (actual !== size) throw new Error(`the spool file holds ${actual} bytes, not ${size}`)
    await this.#turns.run(digest, async () => {
      if ((await this.#check(digest)) === undefined) await this.#takeOver(digest, size, file)
      else await file.discard()
    })
  }

  delete(digest: Digest): Promise<void> {
    return this.#turns.run(digest, async () => {
      this.#options.index.markDeleting([digest])
      await this.#removeFiles([digest])
    })
  }

  /** Removes blobs whose rows are in state `deleting`. Call it in the same tick that marked them. */
  async remove(digests: readonly Digest[]): Promise<void> {
    const removal = Promise.withResolvers<void>()
    for (const digest of digests) void this.#turns.run(digest, () => removal.promise)
    try {
      await this.#removeFiles(digests)
    } finally {
      removal.resolve()
    }
  }

  /** Brings the index in line with what a killed process left on disk. */
  async reconcile(): Promise<void> {
    for (const row of this.#options.index.unsettled()) {
      if (row.state === 'publishing' && (await this.#fileSize(row.digest)) === row.size)
        this.#options.index.put(row.digest, row.size, 'present')
      else await this.#removeFiles([row.digest])
    }
  }

  /** Counts a file that has no row, if it is there. */
  async adopt(digest: Digest): Promise<void> {
    await this.#settle(digest)
  }

  /** Resolves when nothing is being published or removed. */
  idle(): Promise<void> {
    return this.#turns.idle()
  }

  async #openFile(digest: Digest): Promise<WholeFile | undefined> {
    const size = this.#options.index.sizeOf(digest) ?? (await this.#settle(digest))
    if (size === undefined) return undefined
    const file = await this.#tryOpen(digest, size)
    if (file !== undefined) return file
    const settled = await this.#settle(digest)
    return settled === undefined ? undefined : this.#tryOpen(digest, settled)
  }

  async #tryOpen(digest: Digest, size: number): Promise<WholeFile | undefined> {
    const descriptor = await openDescriptor(blobPath(this.#options.directory, digest), 'read').catch(absent)
    if (descriptor === undefined) return undefined
    if ((await descriptor.size()) === size) return { descriptor, size }
    await descriptor.close()
    return undefined
  }

  /** Makes row and file agree. Gives the size of what is here then. */
  async #settle(digest: Digest): Promise<number | undefined> {
    const state = this.#options.index.find(digest)?.state
    // Being published or removed: not here yet, or not here any more. No reader waits for that.
    if (state !== undefined && state !== 'present' && this.#turns.isBusy(digest)) return undefined
    return this.#turns.run(digest, () => this.#check(digest))
  }

  async #check(digest: Digest): Promise<number | undefined> {
    const { index, failed, adopted } = this.#options
    const row = index.find(digest)
    const size = await this.#fileSize(digest)
    if (row === undefined && size !== undefined) {
      // The file outlived its row: a rename happens only after the bytes were synced, so it is whole.
      index.put(digest, size, 'present')
      adopted()
      return size
    }
    if (row === undefined || (row.state === 'present' && row.size === size)) return size
    if (row.state === 'present')
      failed('blobs.check', new Error(`${digest} was lost or cut on disk: it is fetched again`))
    index.markDeleting([digest])
    await this.#removeFiles([digest])
    return undefined
  }

  async #takeOver(digest: Digest, size: number, file: SpoolDirectoryFile): Promise<void> {
    const { index, directory } = this.#options
    const path = blobPath(directory, digest)
    index.put(digest, size, 'publishing')
    try {
      await this.#sync(file)
      await this.#rename(file.path, path)
      await syncDirectory(dirname(path))
      index.put(digest, size, 'present')
      file.handOver()
    } catch (error) {
      await this.#removeFiles([digest])
      throw error
    }
  }

  /** Two syncs at a time: they are slow, and each takes one of the few threads that reads need as well. */
  #sync(file: SpoolDirectoryFile): Promise<void> {
    this.#nextSync += 1
    return this.#syncs.run(this.#nextSync % 2 === 0 ? 0 : 1, () => file.sync())
  }

  async #rename(from: string, to: string): Promise<void> {
    try {
      await rename(from, to)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
      await restoreDirectory(dirname(to))
      await rename(from, to)
    }
  }

  /** The file size under the final name. */
  async #fileSize(digest: Digest): Promise<number | undefined> {
    const found = await stat(blobPath(this.#options.directory, digest)).catch(absent)
    return found?.isFile() === true ? found.size : undefined
  }

  async #removeFiles(digests: readonly Digest[]): Promise<void> {
    const { directory, index, failed } = this.#options
    const removed: Digest[] = []
    for (const digest of digests) {
      this.#open.forget(digest)
      try {
        await unlink(blobPath(directory, digest)).catch(absent)
        removed.push(digest)
      } catch (error) {
        // The row stays in state `deleting`: the next start tries again.
        failed('blobs.remove', error)
      }
    }
    index.remove(removed)
  }
}

function absent(error: unknown): undefined {
  if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined
  throw error
}
