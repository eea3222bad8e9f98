import { Readable } from 'node:stream'
import type { Digest } from '../../src/oci/digest.ts'
import {
  type BlobHead,
  type BlobOptions,
  type ManifestHead,
  type Upstream,
  type UpstreamBlob,
  UpstreamError,
  type UpstreamHealth,
  type UpstreamManifest,
  type UpstreamPage,
} from '../../src/upstream/upstream.ts'

/** A blob request that waits for the test to decide what upstream does. */
export type PuppetRequest = {
  readonly repository: string
  readonly digest: Digest
  readonly offset: number
  readonly end: number | undefined
  readonly source: number
  readonly background: boolean
  /** Answers with headers; the body follows as the test says. */
  answer(options?: { size?: number; offset?: number }): PuppetBody
  fail(error: Error): void
}

export type PuppetBody = {
  send(...chunks: Uint8Array[]): void
  end(): void
  break(reason?: string): void
  /** Resolves when the reader has let go of the connection. */
  readonly closed: Promise<void>
}

/** An upstream whose every answer, byte and failure the test decides, so that interleavings are exact. Blobs only. */
export class PuppetUpstream implements Upstream {
  readonly name = 'puppet.test'
  readonly sources: number
  /** Every blob request so far. */
  readonly requests: PuppetRequest[] = []
  readonly heads: string[] = []
  /** What HEAD says of a blob; default: not found. */
  head: (repository: string, digest: Digest) => BlobHead = () => {
    throw new UpstreamError('notFound', this.name, 'http_404', 'no such blob', { status: 404 })
  }
  #taken = 0
  #arrivals: (() => void)[] = []

  constructor(sources = 1) {
    this.sources = sources
  }

  /** The next blob request that the test has not taken yet. */
  async next(): Promise<PuppetRequest> {
    const index = this.#taken++
    for (;;) {
      const request = this.requests[index]
      if (request) return request
      await new Promise<void>(resolve => this.#arrivals.push(resolve))
    }
  }

  getBlob(repository: string, digest: Digest, options: BlobOptions): Promise<UpstreamBlob> {
    const { offset, end, source, signal, background = false } = options
    return new Promise((resolve, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true })
      this.requests.push({
        repository,
        digest,
        offset,
        end,
        source,
        background,
        fail: reject,
        answer: ({ size, offset: from = offset } = {}) => {
          const body = new Readable({ read() {}, highWaterMark: 1 << 20 })
          const closed = new Promise<void>(close => body.once('close', close))
          resolve({ offset: from, size, etag: undefined, body })
          return {
            closed,
            send: (...chunks) => chunks.forEach(chunk => void body.push(chunk)),
            end: () => void body.push(null),
            break: (reason = 'reset') =>
              void body.destroy(new UpstreamError('unavailable', this.name, reason, 'the connection broke')),
          }
        },
      })
      for (const arrive of this.#arrivals.splice(0)) arrive()
    })
  }

  async headBlob(repository: string, digest: Digest): Promise<BlobHead> {
    this.heads.push(`${repository}@${digest}`)
    return this.head(repository, digest)
  }

  health(): UpstreamHealth {
    return { state: 'closed', unreachableSince: undefined, blockedUntil: undefined, lastError: undefined }
  }

  headManifest(): Promise<ManifestHead> {
    return Promise.reject(new Error('blobs only'))
  }

  getManifest(): Promise<UpstreamManifest> {
    return Promise.reject(new Error('blobs only'))
  }

  listTags(): Promise<UpstreamPage> {
    return Promise.reject(new Error('blobs only'))
  }

  listReferrers(): Promise<UpstreamPage> {
    return Promise.reject(new Error('blobs only'))
  }

  async close(): Promise<void> {}
}
