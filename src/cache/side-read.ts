import type { Hash } from 'node:crypto'
import { hasher } from '../oci/digest.ts'
import type { ByteRange } from '../oci/range.ts'
import type { UpstreamBlob } from '../upstream/upstream.ts'
import type { BlobReader } from './blob-reader.ts'
import type { Fill } from './fill.ts'
import { FillError } from './fill-error.ts'

export type SideReadDeps = {
  readonly fill: Fill
  /** Registered with the fill: takes over when the download has come this far. */
  readonly reader: BlobReader
  readonly range: ByteRange
  readonly open: (range: ByteRange, signal: AbortSignal) => Promise<UpstreamBlob>
  /** true: the last byte does not wait for the verification of the whole blob. */
  readonly early: boolean
  readonly onClose: () => void
}

/**
 * A range that lies far ahead of a running download, fetched beside it (P-119).
 *
 * Its bytes cannot be verified by themselves: the digest is that of the whole blob. So they are hashed on the way, their last byte is withheld,
 * and once the download has been verified they are compared with what it brought; only then is the response completed.
 * When the download catches up, or the side request fails, reading goes on there.
 */
export class SideRead implements BlobReader {
  readonly #deps: SideReadDeps
  readonly #abort = new AbortController()
  readonly #hash: Hash = hasher('sha256')
  #chunks: AsyncIterator<Buffer> | undefined
  #pending: Buffer | undefined
  /** Bytes from the side: [range.start, #sideEnd). */
  #sideEnd: number
  #onFill = false
  #checked = false
  #closed = false

  constructor(deps: SideReadDeps) {
    this.#deps = deps
    this.#sideEnd = deps.range.start
  }

  async read(position: number, length: number, buffer: () => Buffer): Promise<Uint8Array> {
    const { fill, range, early } = this.#deps
    const last = position === range.end
    if (!this.#onFill && fill.received > position + 1) this.#switchToFill()
    if (!early && last) await this.#untilVerified(buffer)
    if (this.#onFill) return await this.#readFill(position, length, buffer)
    const chunk = await this.#next()
    if (chunk === undefined) {
      this.#switchToFill()
      return await this.#readFill(position, length, buffer)
    }
    const limit = early ? length : Math.max(1, Math.min(length, range.end - position))
    const taken = chunk.subarray(0, limit)
    this.#pending = chunk.length > limit ? chunk.subarray(limit) : undefined
    this.#hash.update(taken)
    this.#sideEnd += taken.length
    return taken
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#abort.abort()
    void this.#chunks?.return?.()
    this.#deps.reader.close()
    this.#deps.onClose()
  }

  #switchToFill(): void {
    this.#onFill = true
    this.#abort.abort()
    void this.#chunks?.return?.()
  }

  async #readFill(position: number, length: number, buffer: () => Buffer): Promise<Uint8Array> {
    // The download's own bytes may only complete the response when those from the side were the same.
    const rest = this.#deps.range.end - position
    const early = this.#deps.early || this.#sideEnd === this.#deps.range.start
    const wanted = early ? length : Math.max(1, Math.min(length, rest))
    return await this.#deps.reader.read(position, wanted, buffer)
  }

  async #next(): Promise<Buffer | undefined> {
    if (this.#pending) return this.#pending
    try {
      this.#chunks ??= await this.#open()
      const next = await this.#chunks.next()
      return next.done ? undefined : next.value
    } catch {
      // The side request is an extra: the download itself brings these bytes too, later.
      return undefined
    }
  }

  async #open(): Promise<AsyncIterator<Buffer>> {
    const { range, open } = this.#deps
    const blob = await open(range, this.#abort.signal)
    if (blob.offset !== range.start) {
      blob.body.destroy()
      throw new FillError('range_ignored', 'upstream does not serve ranges')
    }
    return blob.body[Symbol.asyncIterator]()
  }

  async #untilVerified(buffer: () => Buffer): Promise<void> {
    const { fill, range } = this.#deps
    if (this.#checked) return
    while (!fill.verified) {
      if (fill.failure) throw fill.failure
      await fill.changed()
    }
    if (this.#sideEnd > range.start) await this.#compare(buffer)
    this.#checked = true
  }

  async #compare(buffer: () => Buffer): Promise<void> {
    const verified = hasher('sha256')
    for (let position = this.#deps.range.start; position < this.#sideEnd; ) {
      const bytes = await this.#deps.reader.read(position, this.#sideEnd - position, buffer)
      verified.update(bytes)
      position += bytes.length
    }
    const same = verified.digest().equals(this.#hash.copy().digest())
    if (!same)
      throw new FillError('digest_mismatch', 'a range fetched beside the download differs from the verified blob')
  }
}
