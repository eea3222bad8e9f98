import type { Digest } from '../oci/digest.ts'
import type { BlobStore, OpenBlob, SpoolFile } from './stores.ts'

export type PassingBlobsOptions = {
  readonly blobs: BlobStore
  /** True while the blob is needed here, because it is not in the shared store yet. */
  readonly isNeeded: (digest: Digest) => boolean
  readonly failed: (error: unknown) => void
  /** How often is looked whether something can go. */
  readonly everyMs?: number
}

/** Blobs that only pass through this disk: each is removed once it is not needed here any more. Whoever has it open reads on. */
export class PassingBlobs implements BlobStore {
  readonly #options: PassingBlobsOptions
  readonly #passing = new Set<Digest>()
  readonly #timer: NodeJS.Timeout

  constructor(options: PassingBlobsOptions) {
    this.#options = options
    this.#timer = setInterval(() => void this.#letGo(), options.everyMs ?? 1_000).unref()
  }

  open(digest: Digest): Promise<OpenBlob | undefined> {
    return this.#options.blobs.open(digest)
  }

  size(digest: Digest): Promise<number | undefined> {
    return this.#options.blobs.size(digest)
  }

  async publish(digest: Digest, size: number, spool: SpoolFile): Promise<void> {
    await this.#options.blobs.publish(digest, size, spool)
    this.#passing.add(digest)
  }

  async delete(digest: Digest): Promise<void> {
    this.#passing.delete(digest)
    await this.#options.blobs.delete(digest)
  }

  close(): void {
    clearInterval(this.#timer)
  }

  async #letGo(): Promise<void> {
    const { isNeeded, failed } = this.#options
    for (const digest of this.#passing) if (!isNeeded(digest)) await this.delete(digest).catch(failed)
  }
}
