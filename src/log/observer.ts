/**
 * What the rooms below `metrics` tell about their work. Implementations never throw: a failed metric is not a failed pull.
 * `upstream` is always a configured name, so it is safe as a metric label.
 */
export interface Observer {
  /** One HTTP exchange with an upstream ended (redirect hops included in one). `outcome` is a status code or a reason word. */
  upstreamRequest(event: {
    readonly upstream: string
    readonly kind: UpstreamKind
    readonly outcome: string
    readonly seconds: number
  }): void
  /** Body bytes that came over the upstream link, of whatever was asked, wasted ones included. */
  upstreamBytes(upstream: string, kind: UpstreamKind, bytes: number): void
  upstreamRateLimit(upstream: string, limit: { readonly limit?: number; readonly remaining?: number }): void
  upstreamState(upstream: string, state: 'closed' | 'half-open' | 'open'): void
  fillStarted(upstream: string): void
  fillResumed(upstream: string, reason: string): void
  fillEnded(event: FillEnded): void
  /** Upstream answered, and what it sent was refused for what it is. None of it is kept, no client gets it as complete. */
  contentRejected(event: ContentRejected): void
  evicted(blobs: number, bytes: number): void
  /** A store did not do what it was asked; the pull went on. */
  storeFailed(operation: string, error: unknown): void
  /** One request to the store that replicas share ended. `outcome` is a status code or a reason word. */
  sharedRequest(operation: SharedOperation, outcome: string): void
  /** Bytes of blobs that came from the shared store or went there, repeated and wasted ones included. */
  sharedBytes(direction: 'read' | 'uploaded', bytes: number): void
}

export type SharedOperation = 'head' | 'get' | 'put' | 'delete' | 'other'

export type FillEnded = {
  readonly upstream: string
  readonly digest: string
  readonly outcome: 'published' | 'uncached' | 'failed' | 'cancelled'
  /** One word; absent when all went well. */
  readonly reason: string | undefined
  /** Bytes received. */
  readonly bytes: number
  readonly error: unknown
}

export type ContentRejected = {
  readonly upstream: string
  readonly kind: UpstreamKind
  /** The digest that was asked for; undefined when it was asked by tag. */
  readonly digest: string | undefined
  /** `digest_mismatch`, `size_mismatch`, or why the bytes are no manifest. */
  readonly reason: string
}

export type UpstreamKind = 'manifest' | 'blob' | 'tags' | 'referrers' | 'token' | 'ping'

export const silentObserver: Observer = {
  upstreamRequest() {},
  upstreamBytes() {},
  upstreamRateLimit() {},
  upstreamState() {},
  fillStarted() {},
  fillResumed() {},
  fillEnded() {},
  contentRejected() {},
  evicted() {},
  storeFailed() {},
  sharedRequest() {},
  sharedBytes() {},
}
