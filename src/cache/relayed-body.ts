import { Readable } from 'node:stream'
import type { UpstreamBlob } from '../upstream/upstream.ts'

/** Opens the bytes from `position` elsewhere, or gives undefined when there is nowhere else. */
export type OpenNext = (position: number) => Promise<UpstreamBlob | undefined>

/**
 * The bytes of a blob from one replica after the other: where one breaks off, `next` says who has what is missing. Errors with what the last one
 * failed of when there is no next one.
 */
export class RelayedBody extends Readable {
  readonly #next: OpenNext
  #body: Readable
  /** Position after the last byte that was passed on. */
  #position: number
  /** Bytes to leave out: the other side began before what is missing. */
  #skip = 0

  constructor(first: UpstreamBlob, next: OpenNext) {
    super({ highWaterMark: 256 * 1024 })
    this.#next = next
    this.#position = first.offset
    this.#body = this.#attach(first)
  }

  override _read(): void {
    this.#body.resume()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#body.destroy()
    callback(error)
  }

  #attach({ body, offset }: UpstreamBlob): Readable {
    this.#skip = this.#position - offset
    let isOver = false
    const broken = (error: Error): void => {
      if (isOver) return
      isOver = true
      body.destroy()
      // Ends by itself in destroy() or in another body.
      void this.#goOn(error)
    }
    body.on('data', (chunk: Buffer) => {
      const fresh = this.#skip >= chunk.length ? undefined : chunk.subarray(this.#skip)
      this.#skip -= chunk.length - (fresh?.length ?? 0)
      if (!fresh || isOver) return
      this.#position += fresh.length
      if (!this.push(fresh)) body.pause()
    })
    body.once('end', () => {
      if (isOver) return
      isOver = true
      this.push(null)
    })
    body.on('error', broken)
    body.once('close', () => broken(new Error('the other replica closed before the end of the body')))
    return body
  }

  async #goOn(error: Error): Promise<void> {
    try {
      const blob = this.destroyed ? undefined : await this.#next(this.#position)
      if (blob === undefined) this.destroy(error)
      else if (this.destroyed) blob.body.destroy()
      else this.#body = this.#attach(blob)
    } catch (reason) {
      this.destroy(reason instanceof Error ? reason : error)
    }
  }
}
