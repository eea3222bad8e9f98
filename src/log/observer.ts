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
    /** Absent for tokens. */
    readonly method?: string
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
  /** A tag that was not fresh any more was asked about. */
  revalidated(upstream: string, result: RevalidationResult): void
  evicted(blobs: number, bytes: number, reason: EvictionReason): void
  /** A store did not do what it was asked; the pull went on. */
  storeFailed(operation: string, error: unknown): void
  /** One request to the store that replicas share ended. `outcome` is a status code or a reason word; `seconds` until its answer began. */
  sharedRequest(operation: SharedOperation, outcome: string, seconds?: number): void
  /** Bytes of blobs that came from the shared store or went there, repeated and wasted ones included. */
  sharedBytes(direction: 'read' | 'uploaded', bytes: number): void
  /** One command, or one script, that Redis was asked for. `outcome`: `ok`, `timeout`, `unavailable` or the first word of Redis' error. */
  redisCommand(outcome: string, seconds: number): void
  /** What it came to that this replica asked who downloads a blob. */
  leaseSettled(result: LeaseResult): void
  /** Bytes of blobs that other replicas read here, and that this one read there. */
  peerBytes(direction: 'read' | 'sent', bytes: number): void
}

/** `same`: upstream confirmed it; `changed`: it names something else now; `gone`; `failed`: upstream could not tell. */
export type RevalidationResult = 'same' | 'changed' | 'gone' | 'failed'
/** `budget`: `storage.maxBytes` was used up; `disk`: the disk was full before that. */
export type EvictionReason = 'budget' | 'disk'
export type LeaseResult = 'owner' | 'follower' | 'alone'

export type SharedOperation = 'head' | 'get' | 'put' | 'delete' | 'other'

export type FillEnded = {
  readonly upstream: string
  readonly digest: string
  readonly outcome: 'published' | 'uncached' | 'failed' | 'cancelled'
  /** One word; absent when all went well. */
  readonly reason: string | undefined
  /** Bytes received. */
  readonly bytes: number
  /** From its start to its end. */
  readonly seconds: number
  /** Most readers that it had at once. */
  readonly readers: number
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
  revalidated() {},
  evicted() {},
  storeFailed() {},
  sharedRequest() {},
  sharedBytes() {},
  redisCommand() {},
  leaseSettled() {},
  peerBytes() {},
}
