import type { BlobReader } from './blob-reader.ts'

/** What a reader needs of the download that it belongs to. */
interface Download {
  readonly verified: boolean
  read(position: number, length: number, buffer: () => Buffer): Promise<Uint8Array> | Uint8Array
  /** Resolves when size and digest were right, throws when they were not. */
  untilVerified(): Promise<void>
  moved(): void
  leave(reader: FillReader): void
}

/** One reader's place in a download. */
export class FillReader implements BlobReader {
  /** First byte that must still be held for it. */
  position = 0
  readonly #fill: Download
  #withheld = Number.POSITIVE_INFINITY
  #failure: Error | undefined

  constructor(fill: Download) {
    this.#fill = fill
  }

  /** Begins at `start`. The byte at `withheld` is given only once the whole blob has been verified, also when it is not the blob's last one. */
  aim({ start, withheld }: { readonly start: number; readonly withheld: number | undefined }): void {
    this.#withheld = withheld ?? Number.POSITIVE_INFINITY
    this.#moveTo(start)
  }

  read(position: number, length: number, buffer: () => Buffer): Promise<Uint8Array> | Uint8Array {
    if (this.#failure) throw this.#failure
    this.#moveTo(position)
    if (position === this.#withheld && !this.#fill.verified) return this.#readWithheld(position, buffer)
    const before = position < this.#withheld ? this.#withheld - position : length
    return this.#fill.read(position, this.#fill.verified ? length : Math.min(length, before), buffer)
  }

  /** It takes its byte along, so that a download without a file need not keep what lies behind it until the end. */
  async #readWithheld(position: number, buffer: () => Buffer): Promise<Uint8Array> {
    const byte = Buffer.from(await this.#fill.read(position, 1, buffer))
    this.#moveTo(Number.POSITIVE_INFINITY)
    await this.#fill.untilVerified()
    return byte
  }

  fail(error: Error): void {
    this.#failure = error
    this.close()
  }

  close(): void {
    this.#fill.leave(this)
  }

  #moveTo(position: number): void {
    if (position === this.position) return
    this.position = position
    this.#fill.moved()
  }
}
