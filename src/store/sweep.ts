import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { isDigest } from '../oci/digest.ts'
import type { BlobIndex } from './blob-index.ts'
import type { DataDirectory } from './data-directory.ts'
import type { DirectoryBlobs } from './directory-blobs.ts'
import { codeOf } from './system-error.ts'

export type SweepOptions = {
  readonly directory: DataDirectory
  readonly index: BlobIndex
  readonly blobs: DirectoryBlobs
}

/** Between directories, so that requests hardly notice. */
const pauseMs = 5

/** Walks through all blob files once and has those counted that have no row: until then the budget does not know of them. */
export class Sweep {
  readonly #options: SweepOptions
  readonly #stopped = new AbortController()

  constructor(options: SweepOptions) {
    this.#options = options
  }

  async run(): Promise<void> {
    for (const algorithm of ['sha256', 'sha512'] as const)
      for (const shard of await namesIn(join(this.#options.directory.blobs, algorithm))) {
        if (this.#stopped.signal.aborted) return
        await this.#adoptFrom(algorithm, shard)
        await pause(pauseMs, undefined, { ref: false, signal: this.#stopped.signal }).catch(() => {})
      }
  }

  stop(): void {
    this.#stopped.abort()
  }

  async #adoptFrom(algorithm: string, shard: string): Promise<void> {
    const { directory, index, blobs } = this.#options
    for (const hex of await namesIn(join(directory.blobs, algorithm, shard))) {
      if (this.#stopped.signal.aborted) return
      const digest = `${algorithm}:${hex}`
      if (isDigest(digest) && hex.startsWith(shard) && index.find(digest) === undefined) await blobs.adopt(digest)
    }
  }
}

async function namesIn(path: string): Promise<readonly string[]> {
  try {
    return await readdir(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return []
    throw error
  }
}
