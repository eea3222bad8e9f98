import { Readable } from 'node:stream'
import type { Digest } from '../../src/oci/digest.ts'
import type { SharedBlob, SharedBlobs } from '../../src/store/stores.ts'

export type SharedOpen = { readonly digest: Digest; readonly offset: number; readonly end: number | undefined }

/** A shared store in memory, with a note of everything that was asked of it, which breaks where and when the test says. */
export class MemoryShared implements SharedBlobs {
  readonly objects = new Map<Digest, Buffer>()
  readonly opens: SharedOpen[] = []
  readonly sizes: Digest[] = []
  readonly enqueued: { readonly digest: Digest; readonly size: number }[] = []
  readonly deleted: Digest[] = []
  /** Every call rejects. */
  down = false
  /** The body of the n-th open (from 0) breaks after this many bytes. */
  cuts: (number | undefined)[] = []
  /** Bodies end here, as an open connection that brings nothing, until it is released. */
  held: Promise<void> | undefined
  /** Deletes take effect when it resolves. */
  deleting: Promise<void> | undefined

  async size(digest: Digest): Promise<number | undefined> {
    this.#answer()
    this.sizes.push(digest)
    return this.objects.get(digest)?.length
  }

  async open(digest: Digest, { offset, end }: Parameters<SharedBlobs['open']>[1]): Promise<SharedBlob | undefined> {
    const cut = this.cuts[this.opens.length]
    this.opens.push({ digest, offset, end })
    this.#answer()
    const object = this.objects.get(digest)
    if (object === undefined) return undefined
    const wanted = object.subarray(offset, end === undefined ? undefined : end + 1)
    return { offset, size: object.length, body: Readable.from(this.#send(wanted, cut), { objectMode: false }) }
  }

  enqueue(digest: Digest, size: number): void {
    this.enqueued.push({ digest, size })
  }

  async delete(digest: Digest): Promise<void> {
    this.#answer()
    await this.deleting
    this.deleted.push(digest)
    this.objects.delete(digest)
  }

  pending(): { readonly uploads: number; readonly bytes: number } {
    return { uploads: 0, bytes: 0 }
  }

  async close(): Promise<void> {}

  #answer(): void {
    if (this.down) throw new Error('the shared store is down')
  }

  async *#send(bytes: Buffer, cut: number | undefined): AsyncGenerator<Buffer> {
    const until = Math.min(bytes.length, cut ?? bytes.length)
    if (until > 0) yield bytes.subarray(0, until)
    await this.held
    if (cut !== undefined && cut < bytes.length) throw new Error('the connection to the shared store broke')
  }
}
