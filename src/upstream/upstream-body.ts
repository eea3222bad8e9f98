import { Readable } from 'node:stream'
import { transportError } from './failure.ts'

type BodyOptions = {
  readonly upstream: string
  readonly redirected: boolean
  readonly signal: AbortSignal | undefined
  readonly onBytes: (bytes: number) => void
  /** Called once, when the body has ended, broken or been destroyed. */
  readonly onClose: () => void
}

/** A response body as callers get it: counted, with errors of our own words, and telling when it is over. */
export class UpstreamBody extends Readable {
  readonly #source: Readable
  readonly #options: BodyOptions

  constructor(source: Readable, options: BodyOptions) {
    super({ highWaterMark: 256 * 1024 })
    this.#source = source
    this.#options = options
    let hasEnded = false
    source.on('data', (chunk: Buffer) => {
      options.onBytes(chunk.length)
      if (!this.push(chunk)) source.pause()
    })
    source.on('end', () => {
      hasEnded = true
      this.push(null)
    })
    source.on('error', error => this.#fail(error))
    source.on('close', () => {
      if (!hasEnded) this.#fail(Object.assign(new Error('other side closed'), { code: 'UND_ERR_SOCKET' }))
    })
    source.pause()
  }

  override _read(): void {
    this.#source.resume()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#source.destroy()
    this.#options.onClose()
    callback(error)
  }

  #fail(error: unknown): void {
    const { upstream, redirected, signal } = this.#options
    if (this.destroyed) return
    const reason: unknown = signal?.aborted === true ? signal.reason : undefined
    this.destroy(reason instanceof Error ? reason : transportError(upstream, error, { phase: 'body', redirected }))
  }
}
