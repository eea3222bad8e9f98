import { Readable } from 'node:stream'
import { type S3Error, s3Error } from './s3-error.ts'

type BodyOptions = { readonly onBytes: (bytes: number) => void; readonly onFailure: (error: S3Error) => void }

/** The body of an answer from the bucket: counted, with errors of our own words. It ends only when all bytes that were announced have come. */
export class S3Body extends Readable {
  readonly #source: Readable
  readonly #onFailure: (error: S3Error) => void

  constructor(source: Readable, { onBytes, onFailure }: BodyOptions) {
    super({ highWaterMark: 256 * 1024 })
    this.#source = source
    this.#onFailure = onFailure
    let hasEnded = false
    source.on('data', (chunk: Buffer) => {
      onBytes(chunk.byteLength)
      if (!this.push(chunk)) source.pause()
    })
    source.on('end', () => {
      hasEnded = true
      this.push(null)
    })
    source.on('error', error => this.#fail(error))
    source.on('close', () => {
      if (!hasEnded) this.#fail(new Error('the connection was closed'))
    })
    source.pause()
  }

  override _read(): void {
    this.#source.resume()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#source.destroy()
    callback(error)
  }

  #fail(error: unknown): void {
    if (this.destroyed) return
    const failure = s3Error('reading', error)
    this.#onFailure(failure)
    this.destroy(failure)
  }
}
