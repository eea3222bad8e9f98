import type { OpenBlob } from '../store/stores.ts'
import type { BlobReader } from './blob-reader.ts'

/** Reads a published blob. `onBroken` hears of bytes that should be there and cannot be read: the file is then not to be trusted any more. */
export class StoredReader implements BlobReader {
  readonly #file: OpenBlob
  readonly #onBroken: (error: unknown) => void

  constructor(file: OpenBlob, onBroken: (error: unknown) => void) {
    this.#file = file
    this.#onBroken = onBroken
  }

  async read(position: number, length: number, buffer: () => Buffer): Promise<Uint8Array> {
    if (position >= this.#file.size) return nothing
    const into = buffer()
    try {
      const count = await this.#file.read(into, position, Math.min(length, into.length))
      if (count === 0) throw new Error(`the stored file ends at byte ${position}`)
      return into.subarray(0, count)
    } catch (error) {
      this.#onBroken(error)
      throw error
    }
  }

  /** The file belongs to who opened it. */
  close(): void {}
}

const nothing = new Uint8Array(0)
