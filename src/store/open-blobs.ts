import type { Digest } from '../oci/digest.ts'
import type { Descriptor } from './descriptor.ts'
import type { OpenBlob } from './stores.ts'

export type WholeFile = { readonly descriptor: Descriptor; readonly size: number }

type Entry = { readers: number; readonly opening: Promise<WholeFile | undefined>; file: WholeFile | undefined }

/** Blobs that are open now: one descriptor per digest, however many read it. */
export class OpenBlobs {
  readonly #entries = new Map<Digest, Entry>()
  #bytes = 0
  #lingering = 0

  /** Bytes of the blobs that are open and still published. */
  get bytes(): number {
    return this.#bytes
  }

  /** Bytes of the blobs that were forgotten while they were open, and still are. */
  get lingeringBytes(): number {
    return this.#lingering
  }

  has(digest: Digest): boolean {
    return this.#entries.has(digest)
  }

  /** Joins who has `digest` open, or opens it by `openFile`. Undefined: `openFile` found nothing. */
  async acquire(digest: Digest, openFile: () => Promise<WholeFile | undefined>): Promise<OpenBlob | undefined> {
    const entry = this.#entries.get(digest) ?? this.#enter(digest, openFile)
    entry.readers += 1
    try {
      const file = await entry.opening
      if (file !== undefined) return openBlob(file, () => this.#leave(digest, entry))
    } catch (error) {
      await this.#leave(digest, entry)
      throw error
    }
    await this.#leave(digest, entry)
    return undefined
  }

  /** Who comes now opens it anew; who reads goes on to the end. */
  forget(digest: Digest): void {
    const entry = this.#entries.get(digest)
    if (entry === undefined) return
    this.#entries.delete(digest)
    this.#bytes -= entry.file?.size ?? 0
    this.#lingering += entry.file?.size ?? 0
  }

  #enter(digest: Digest, openFile: () => Promise<WholeFile | undefined>): Entry {
    const entry: Entry = {
      readers: 0,
      file: undefined,
      opening: openFile().then(file => {
        entry.file = file
        if (this.#entries.get(digest) === entry) this.#bytes += file?.size ?? 0
        else this.#lingering += file?.size ?? 0
        return file
      }),
    }
    this.#entries.set(digest, entry)
    return entry
  }

  async #leave(digest: Digest, entry: Entry): Promise<void> {
    entry.readers -= 1
    if (entry.readers > 0) return
    if (this.#entries.get(digest) === entry) this.forget(digest)
    try {
      await entry.file?.descriptor.close()
    } finally {
      this.#lingering -= entry.file?.size ?? 0
    }
  }
}

function openBlob({ descriptor, size }: WholeFile, leave: () => Promise<void>): OpenBlob {
  let closed: Promise<void> | undefined
  return {
    size,
    read: (buffer, position, length) =>
      closed === undefined
        ? descriptor.read(buffer, position, length)
        : Promise.reject(new Error('the blob was closed by this reader')),
    close: () => (closed ??= leave()),
  }
}
