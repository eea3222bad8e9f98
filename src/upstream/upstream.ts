import type { Readable } from 'node:stream'
import type { Digest } from '../oci/digest.ts'
import type { RateLimit } from './rate-limit.ts'

/**
 * One configured registry, asked as a client. Every call either resolves with what upstream said or throws {@link UpstreamError}.
 * No call retries a 4xx. Signals end the exchange and reject with `signal.reason`.
 */
export interface Upstream {
  /** The configured canonical name, e.g. `docker.io`. */
  readonly name: string
  /** How many URLs serve its content: 1 + mirrors. */
  readonly sources: number
  health(): UpstreamHealth

  /** HEAD of a manifest at the first URL. `digest` and `size` are absent when upstream does not say (P-40, F-32): ask by GET then. */
  headManifest(repository: string, reference: string, options?: CallOptions): Promise<ManifestHead>
  /**
   * GET of a manifest with the full Accept list; at most 4 MiB are read. Bytes are not verified here.
   * By tag only `source` 0 (default) is authoritative; by digest any source is as good.
   */
  getManifest(repository: string, reference: string, options?: CallOptions & SourceOption): Promise<UpstreamManifest>
  /** Existence and size of a blob under this repository: by HEAD, or by a one-byte GET where HEAD is not answered (P-50). Mirrors are tried on `unavailable`. */
  headBlob(repository: string, digest: Digest, options?: CallOptions): Promise<BlobHead>
  /**
   * Opens a blob's bytes from `offset`. Resolves when the response headers are in. The caller owns `body` and must read it to the end or destroy it.
   * Redirects were followed without credentials. `offset` of the answer may be 0 although more was asked: upstream ignored the range (P-114).
   */
  getBlob(repository: string, digest: Digest, options: BlobOptions): Promise<UpstreamBlob>
  /** One page of `tags/list`. `query` holds only known parameters. */
  listTags(repository: string, query: URLSearchParams, options?: CallOptions): Promise<UpstreamPage>
  /** One page of the referrers API. Throws `notFound` where upstream does not have the API. */
  listReferrers(
    repository: string,
    digest: Digest,
    query: URLSearchParams,
    options?: CallOptions,
  ): Promise<UpstreamPage>
  close(): Promise<void>
}

export type CallOptions = { readonly signal?: AbortSignal }
export type SourceOption = { readonly source?: number }
export type BlobOptions = CallOptions & {
  /** First byte wanted. */
  readonly offset: number
  /** Last byte wanted, inclusive; absent: to the end. */
  readonly end?: number
  /** Which URL: 0 is the upstream's own, 1… its mirrors. */
  readonly source: number
  /** Queues behind what clients wait for. */
  readonly background?: boolean
}

export type ManifestHead = {
  readonly digest: string | undefined
  readonly mediaType: string | undefined
  readonly size: number | undefined
}
export type UpstreamManifest = {
  readonly bytes: Buffer
  /** Content-Type as sent, without parameters, lower case. */
  readonly mediaType: string | undefined
  /** Docker-Content-Digest as sent: a claim, not a fact. */
  readonly digest: string | undefined
  /** Well-formed `299 - "…"` warnings (P-103). */
  readonly warnings: readonly string[]
}
export type BlobHead = { readonly size: number | undefined }
export type UpstreamBlob = {
  /** Where the body really starts: the asked offset (206) or 0 (200). */
  readonly offset: number
  /** Size of the whole blob, when upstream says it. */
  readonly size: number | undefined
  readonly etag: string | undefined
  /** Raw bytes; errors when the connection breaks or stays idle. */
  readonly body: Readable
}
export type UpstreamPage = {
  /** At most 16 MiB, not parsed. */
  readonly bytes: Buffer
  readonly mediaType: string | undefined
  /** Query of the `rel="next"` link, when it points to the same path at the same origin (T-6). */
  readonly next: URLSearchParams | undefined
  /** OCI-Filters-Applied as sent. */
  readonly filtersApplied: string | undefined
}
export type UpstreamHealth = {
  readonly state: 'closed' | 'half-open' | 'open'
  /** Epoch milliseconds; absent while reachable. */
  readonly unreachableSince: number | undefined
  /** Epoch milliseconds until which nothing is asked (Retry-After, breaker). */
  readonly blockedUntil: number | undefined
  readonly lastError: string | undefined
  /** Requests allowed and left, as it last said; absent where it says nothing. */
  readonly rateLimit?: RateLimit | undefined
}

/**
 * Why an upstream could not give what was asked.
 * - `notFound`: 404 or 410, which is information (P-100)
 * - `denied`: 401 or 403 after all that credentials can do: no information about existence
 * - `rateLimited`: 429, `retryAfterMs` says how long
 * - `unavailable`: network, DNS, TLS, timeouts, 5xx, an open breaker, offline
 * - `invalid`: an answer that cannot be used (HTML, an encoded body, a body over the limit, a wrong range)
 * - `refused`: Layover would not go there (a redirect or realm to where it must not, T-1, T-2)
 */
export type UpstreamFailure = 'notFound' | 'denied' | 'rateLimited' | 'unavailable' | 'invalid' | 'refused'

export class UpstreamError extends Error {
  override readonly name = 'UpstreamError'
  readonly failure: UpstreamFailure
  readonly upstream: string
  readonly status: number | undefined
  readonly retryAfterMs: number | undefined
  /** One word for metrics and logs: `http_503`, `timeout`, `reset`, `dns`, `tls`, `breaker_open`, `offline`, `too_large`, … */
  readonly reason: string

  constructor(
    failure: UpstreamFailure,
    upstream: string,
    reason: string,
    message: string,
    options: { cause?: unknown; status?: number; retryAfterMs?: number } = {},
  ) {
    super(message, { cause: options.cause })
    this.failure = failure
    this.upstream = upstream
    this.reason = reason
    this.status = options.status
    this.retryAfterMs = options.retryAfterMs
  }
}
