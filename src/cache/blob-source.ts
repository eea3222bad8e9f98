import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../clock.ts'
import type { Digest } from '../oci/digest.ts'
import { type Upstream, UpstreamError, type UpstreamBlob } from '../upstream/upstream.ts'
import { FillError } from './fill-error.ts'
import type { Quarantine } from './quarantine.ts'

export type BlobSourceDeps = {
  readonly upstream: Upstream
  readonly repository: string
  readonly digest: Digest
  readonly quarantine: Quarantine
  readonly maxAttempts: number
  readonly clock: Clock
  readonly background: boolean
  /** Called once, when upstream first gave bytes for this repository. */
  readonly onConfirmed: () => void
}

export type Progress = { readonly received: number; readonly progress: number; readonly signal: AbortSignal }

/** A connection that brought at least this much counts as progress: the attempts start again. */
const progressBytes = 64 * 1024
/** Whatever the progress, an end. */
const maxConnections = 200
const maxWaitMs = 10_000
/** Nobody has a byte yet: a client is better off with an error in time to go elsewhere (containerd gives up on headers after 30 s, F-12). */
const firstByteBudgetMs = 8_000
const firstByteWaitMs = 2_000

/**
 * Where the bytes of one blob can be had: the upstream's own URL and its mirrors, in that order. A source that fails is followed by the next,
 * at the byte that is missing; a source that said something wrong about this blob is not asked again for a while.
 */
export class BlobSource {
  readonly #deps: BlobSourceDeps
  readonly #excluded = new Set<number>()
  readonly #startedAt: number
  #current = 0
  #attempts = 0
  #connections = 0
  #confirmed = false
  #lastReason = 'unknown'

  constructor(deps: BlobSourceDeps) {
    this.#deps = deps
    this.#startedAt = deps.clock.monotonic()
  }

  get upstream(): string {
    return this.#deps.upstream.name
  }

  /** Why the last connection ended, one word. */
  get lastReason(): string {
    return this.#lastReason
  }

  /** Opens the bytes from `offset` at the current source. */
  async open(offset: number, signal: AbortSignal): Promise<UpstreamBlob> {
    const { upstream, repository, digest, background } = this.#deps
    this.#current = this.#usable(this.#current)
    this.#connections++
    const blob = await upstream.getBlob(repository, digest, { offset, source: this.#current, signal, background })
    if (!this.#confirmed) {
      this.#confirmed = true
      this.#deps.onConfirmed()
    }
    return blob
  }

  /** The current source gave wrong bytes or a wrong size: do not ask it for this blob for a while. */
  reject(reason: string): void {
    this.#lastReason = reason
    this.#deps.quarantine.add(this.#deps.digest, this.#suspect(this.#current, reason))
    this.#excluded.add(this.#current)
  }

  /** Decides what follows a failed connection: resolves when the next may be opened, throws when there is no point. */
  async afterFailure(error: unknown, { received, progress, signal }: Progress): Promise<void> {
    this.#lastReason = error instanceof UpstreamError || error instanceof FillError ? error.reason : 'unknown'
    if (progress >= progressBytes) this.#attempts = 0
    this.#attempts++
    if (this.#connections >= maxConnections) throw error
    const final = isFinal(error)
    if (final && this.#current === 0 && received === 0 && isInformation(error)) throw error
    if (final) this.#excluded.add(this.#current)
    const next = this.#next(this.#current + 1)
    if (next === undefined) throw error
    if (this.#attempts >= this.#deps.maxAttempts) throw error
    const wait = this.#waitMs(error, next)
    if (received === 0 && next === this.#current && isBlocked(error)) throw error
    if (wait > maxWaitMs) throw error
    const elapsed = this.#deps.clock.monotonic() - this.#startedAt
    if (received === 0 && (wait > firstByteWaitMs || (wait > 0 && elapsed + wait > firstByteBudgetMs))) throw error
    this.#current = next
    if (wait > 0) await sleep(wait, undefined, { signal })
  }

  #waitMs(error: unknown, next: number): number {
    if (next !== this.#current && next > this.#current) return 0
    const asked = error instanceof UpstreamError ? (error.retryAfterMs ?? 0) : 0
    // 0.1 s, 0.2 s … 3.2 s, spread by half so that many downloads do not return at once.
    const backOff = 100 * 2 ** Math.min(5, this.#attempts - 1) * (0.75 + Math.random() / 2)
    return Math.max(asked, backOff)
  }

  #usable(wanted: number): number {
    const { upstream, quarantine, digest } = this.#deps
    for (let source = 0; source < upstream.sources; source++)
      if (['size_mismatch', 'digest_mismatch'].some(reason => quarantine.has(digest, this.#suspect(source, reason))))
        this.#excluded.add(source)
    const usable = this.#next(wanted)
    if (usable !== undefined) return usable
    throw new UpstreamError(
      'invalid',
      upstream.name,
      'quarantined',
      `${upstream.name} sent wrong bytes for this blob a moment ago`,
    )
  }

  /** Which size is right is said by a repository's own manifests: no manifest can hide a blob from the others (T-23). */
  #suspect(source: number, reason: string): string {
    return `${this.upstream}#${source} ${reason === 'size_mismatch' ? this.#deps.repository : ''}`
  }

  #next(from: number): number | undefined {
    const { sources } = this.#deps.upstream
    for (let step = 0; step < sources; step++) {
      const candidate = (from + step) % sources
      if (!this.#excluded.has(candidate)) return candidate
    }
    return undefined
  }
}

/** Asking the same source again cannot help. */
function isFinal(error: unknown): boolean {
  if (error instanceof FillError) return error.reason === 'size_mismatch'
  return error instanceof UpstreamError && !(error.failure === 'unavailable' || error.failure === 'rateLimited')
}

/** The registry itself said that this repository does not hold the blob, or that we may not have it: its mirrors are not asked then. */
function isInformation(error: unknown): boolean {
  return error instanceof UpstreamError && (error.failure === 'notFound' || error.failure === 'denied')
}

/** Known beforehand to fail for a while. */
function isBlocked(error: unknown): boolean {
  return (
    error instanceof UpstreamError &&
    (error.reason === 'breaker_open' || error.reason === 'offline' || error.failure === 'rateLimited')
  )
}
