import type { Hash } from 'node:crypto'
import type { Readable } from 'node:stream'
import { hasher } from '../oci/digest.ts'
import type { ByteRange } from '../oci/range.ts'
import type { UpstreamBlob } from '../upstream/upstream.ts'
import type { BlobReader } from './blob-reader.ts'
import type { Fill } from './fill.ts'
import { FillError } from './fill-error.ts'

export type SideReadDeps = {
  readonly fill: Fill
  /** Registered with the fill and aimed at the range: takes over when the download has come this far. */
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
 * Its bytes cannot be verified by themselves: the digest is that of the whole blob. So they are hashed on the way and their last byte is
 * withheld; they are compared with what the download brings as soon as it comes by, and the last byte is given by the download once it has
 * been verified. When the download catches up, or the side request fails, reading goes on there, after the same comparison.
 */
export class SideRead implements BlobReader {
  readonly #deps: SideReadDeps
  readonly #abort = new AbortController()
  readonly #hash: Hash = hasher('sha256')
  #body: Readable | undefined
  #chunks: AsyncIterator<Buffer> | undefined
  #pending: Buffer | undefined
  /** Bytes from the side: [range.start, #sideEnd). */
  #sideEnd: number
  #onFill = false
  #closed = false

  constructor(deps: SideReadDeps) {
    this.#deps = deps
    this.#sideEnd = deps.range.start
  }

  async read(position: number, length: number, buffer: () => Buffer): Promise<Uint8Array> {
    const { reader } = this.#deps
    if (!this.#onFill) {
      const chunk = await this.#fromSide(position, length)
      if (chunk !== undefined) return chunk
      await this.#switchToFill(buffer)
    }
    return await reader.read(position, length, buffer)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#stop()
    this.#deps.reader.close()
    this.#deps.onClose()
  }

  /** The next bytes of the side request; undefined when the download has to take over. */
  async #fromSide(position: number, length: number): Promise<Buffer | undefined> {
    const { fill, range, early } = this.#deps
    if (fill.received > position + 1) return undefined
    if (!early && position === range.end) return undefined
    const chunk = await this.#next()
    if (chunk === undefined) return undefined
    const limit = early ? length : Math.min(length, range.end - position)
    const taken = chunk.subarray(0, limit)
    this.#pending = chunk.length > limit ? chunk.subarray(limit) : undefined
    this.#hash.update(taken)
    this.#sideEnd += taken.length
    return taken
  }

  async #switchToFill(buffer: () => Buffer): Promise<void> {
    this.#onFill = true
    this.#stop()
    if (!this.#deps.early && this.#sideEnd > this.#deps.range.start) await this.#compare(buffer)
  }

  #stop(): void {
    this.#abort.abort()
    this.#body?.destroy()
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
    const { body, offset } = await open(range, this.#abort.signal)
    this.#body = body
    // Destroying it is how it is closed, also while nobody iterates.
    body.on('error', () => undefined)
    if (offset === range.start && !this.#closed) return body[Symbol.asyncIterator]()
    body.destroy()
    throw new FillError('range_ignored', 'upstream does not serve ranges')
  }

  /** Waits until the download has brought the bytes that were given from the side. */
  async #compare(buffer: () => Buffer): Promise<void> {
    const { range, reader } = this.#deps
    const brought = hasher('sha256')
    for (let position = range.start; position < this.#sideEnd && !this.#closed; ) {
      const bytes = await reader.read(position, this.#sideEnd - position, buffer)
      brought.update(bytes)
      position += bytes.length
    }
    if (!brought.digest().equals(this.#hash.digest()))
      throw new FillError(
        'digest_mismatch',
        'a range fetched beside the download differs from what the download brought',
      )
  }
}
