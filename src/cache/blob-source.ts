import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../clock.ts'
import type { Digest } from '../oci/digest.ts'
import type { ByteRange } from '../oci/range.ts'
import { UpstreamError, type UpstreamBlob } from '../upstream/upstream.ts'
import { FillError } from './fill-error.ts'
import type { Origin, OriginKind } from './origin.ts'
import type { Quarantine } from './quarantine.ts'

export type BlobSourceDeps = {
  /** Whose blob it is: the configured name. */
  readonly upstream: string
  readonly repository: string
  readonly digest: Digest
  /** Where it can be had, best first; those of kind `upstream` come last, the upstream's own URL first of them. */
  readonly origins: readonly Origin[]
  /** Why upstream is not among the origins, for whoever waits when the others do not have it either. */
  readonly withoutUpstream: Error | undefined
  readonly quarantine: Quarantine
  readonly maxAttempts: number
  readonly clock: Clock
  /** Called once, when upstream first gave bytes for this repository. */
  readonly onConfirmed: () => void
  /**
   * This origin is to blame for bytes that are not those of the digest: what it has should be removed where that can be done. Readers are told when it
   * resolves, so it is bounded; it never rejects.
   */
  readonly onWrongBytes: (origin: Origin) => Promise<void>
}

export type Progress = { readonly received: number; readonly progress: number; readonly signal: AbortSignal }

/** A connection that brought at least this much counts as progress: the attempts start again. */
const progressBytes = 64 * 1024
/** How often a place before upstream that breaks is asked for the rest: one that does so all the time is slower than upstream. */
const maxRetakes = 3
/** Whatever the progress, an end. */
const maxConnections = 200
const maxWaitMs = 10_000
/** Nobody has a byte yet: a client is better off with an error in time to go elsewhere (containerd gives up on headers after 30 s, F-12). */
const firstByteBudgetMs = 8_000
const firstByteWaitMs = 2_000

/**
 * Where the bytes of one blob can be had: the shared store, the replica that downloads it, the upstream's own URL and its mirrors, in that order.
 * An origin that fails is followed by the next, at the byte that is missing; one that said something wrong about this blob is not asked again for a
 * while. What the origins before upstream do not have or cannot say costs no attempt and is no error of its own.
 */
export class BlobSource {
  readonly #deps: BlobSourceDeps
  readonly #excluded = new Set<Origin>()
  /** Whose bytes are in what was received. */
  readonly #contributors = new Set<Origin>()
  readonly #startedAt: number
  #current = 0
  #attempts = 0
  #retakes = 0
  #connections = 0
  #began: OriginKind | undefined
  #confirmed = false
  #offeredWrongSize = false
  #upstreamError: unknown
  #lastReason = 'unknown'
  #lastKind: OriginKind = 'upstream'

  constructor(deps: BlobSourceDeps) {
    this.#deps = deps
    this.#startedAt = deps.clock.monotonic()
  }

  get upstream(): string {
    return this.#deps.upstream
  }

  /** Where the first bytes came from; undefined while nobody has answered. */
  get began(): OriginKind | undefined {
    return this.#began
  }

  /** True when upstream gave bytes for it. */
  get confirmed(): boolean {
    return this.#confirmed
  }

  /** True when the shared store offered another size than was expected: what it has is wrong if the download comes out right. */
  get sharedOfferedWrongSize(): boolean {
    return this.#offeredWrongSize
  }

  /** Why the last connection ended, one word. */
  get lastReason(): string {
    return this.#lastReason
  }

  /** Which kind of origin the last connection was to. */
  get lastKind(): OriginKind {
    return this.#lastKind
  }

  /** Opens the bytes from `offset` at the current origin. */
  async open(offset: number, signal: AbortSignal): Promise<UpstreamBlob> {
    const origin = this.#usable()
    this.#connections++
    const blob = await origin.open(offset, signal)
    this.#began ??= origin.kind
    if (origin.kind === 'upstream' && !this.#confirmed) {
      this.#confirmed = true
      this.#deps.onConfirmed()
    }
    return blob
  }

  /** Opens a range beside the download, at the origin that serves it now. */
  async openRange({ start, end }: ByteRange, signal: AbortSignal): Promise<UpstreamBlob> {
    const origin = this.#origin(this.#current)
    if (!origin || this.#excluded.has(origin)) throw new FillError('no_source', 'no origin serves this download now')
    return await origin.open(start, signal, end)
  }

  /**
   * What came has wrong bytes or a wrong size: who is to blame is not asked for this blob for a while, from now on. Resolves when it is removed, or cannot be.
   */
  async reject(reason: 'digest_mismatch' | 'size_mismatch'): Promise<void> {
    this.#lastReason = reason
    const removals: Promise<void>[] = []
    const { quarantine, digest, onWrongBytes } = this.#deps
    for (const origin of this.#suspects()) {
      quarantine.add(digest, this.#suspicion(origin, reason))
      this.#excluded.add(origin)
      // The size is a manifest's word, which may be wrong itself: nothing is removed for it alone.
      if (reason === 'digest_mismatch' || this.#contributors.has(origin)) removals.push(onWrongBytes(origin))
      else if (origin.kind === 'shared') this.#offeredWrongSize = true
    }
    await Promise.all(removals)
  }

  /** Decides what follows a failed connection: resolves when the next may be opened, throws when there is no point. */
  async afterFailure(error: unknown, { received, progress, signal }: Progress): Promise<void> {
    const origin = this.#origin(this.#current)
    this.#lastKind = origin?.kind ?? 'upstream'
    const unnamed = this.#lastKind === 'upstream' ? 'unknown' : `${this.#lastKind}_broke`
    this.#lastReason = error instanceof UpstreamError || error instanceof FillError ? error.reason : unnamed
    if (progress > 0 && origin) this.#contributors.add(origin)
    const next =
      this.#lastKind === 'upstream' ? this.#afterUpstream(error, received, progress) : this.#afterOther(error, progress)
    if (next === undefined || this.#connections >= maxConnections) throw this.#lastWord(error)
    const wait = this.#waitMs(error, next)
    const elapsed = this.#deps.clock.monotonic() - this.#startedAt
    const isLate = received === 0 && (wait > firstByteWaitMs || (wait > 0 && elapsed + wait > firstByteBudgetMs))
    if (wait > maxWaitMs || isLate) throw this.#lastWord(error)
    this.#current = next
    if (wait > 0) await sleep(wait, undefined, { signal })
  }

  /** What upstream says is information: it may end the download. */
  #afterUpstream(error: unknown, received: number, progress: number): number | undefined {
    this.#upstreamError = error
    if (progress >= progressBytes) this.#attempts = 0
    this.#attempts++
    const final = isFinal(error)
    const origin = this.#origin(this.#current)
    if (final && received === 0 && isInformation(error) && origin === this.#primary()) return undefined
    if (final && origin) this.#excluded.add(origin)
    if (this.#attempts >= this.#deps.maxAttempts) return undefined
    // Before the first byte the places before upstream have had their turn.
    const next = this.#next(this.#current + 1, received === 0 ? 'upstream' : undefined)
    return received === 0 && next === this.#current && isBlocked(error) ? undefined : next
  }

  /** A connection that broke is taken up again where it brought something; otherwise the next in line is asked at once. */
  #afterOther(error: unknown, progress: number): number | undefined {
    const origin = this.#origin(this.#current)
    if (isFinal(error) && origin) this.#excluded.add(origin)
    const isWorthIt = progress >= progressBytes && this.#retakes < maxRetakes
    if (isWorthIt && origin && !this.#excluded.has(origin)) {
      this.#retakes++
      return this.#current
    }
    const next = this.#next(this.#current + 1)
    if (next === undefined || next > this.#current) return next
    // Nobody after it is left to ask: from here on it is one that fails like any other.
    if (progress >= progressBytes) this.#attempts = 0
    this.#attempts++
    return this.#attempts >= this.#deps.maxAttempts ? undefined : next
  }

  /** What is told to who waits: upstream's own answer where there was one, never what a place before it lacks. */
  #lastWord(error: unknown): unknown {
    if (this.#lastKind === 'upstream' || error instanceof FillError) return error
    return this.#upstreamError ?? this.#notAsked()
  }

  #waitMs(error: unknown, next: number): number {
    if (next > this.#current) return 0
    const asked = error instanceof UpstreamError ? (error.retryAfterMs ?? 0) : 0
    // 0.1 s, 0.2 s … 3.2 s, spread by half so that many downloads do not return at once.
    const backOff = 100 * 2 ** Math.min(5, this.#attempts - 1) * (0.75 + Math.random() / 2)
    return Math.max(asked, backOff)
  }

  /** The origin to ask now. */
  #usable(): Origin {
    const { origins, quarantine, digest } = this.#deps
    for (const origin of origins)
      if (rejections.some(reason => quarantine.has(digest, this.#suspicion(origin, reason)))) this.#excluded.add(origin)
    const usable = this.#next(this.#current)
    const origin = usable === undefined ? undefined : this.#origin(usable)
    if (usable !== undefined && origin) {
      this.#current = usable
      return origin
    }
    throw this.#notAsked()
  }

  /** Why upstream was not asked. */
  #notAsked(): Error {
    const { upstream, withoutUpstream } = this.#deps
    const quarantined = `${upstream} sent wrong bytes for this blob a moment ago`
    return withoutUpstream ?? new UpstreamError('invalid', upstream, 'quarantined', quarantined)
  }

  /**
   * Who may be to blame. Where bytes of several are mixed, those that upstream did not send: upstream is then asked for the whole,
   * and shows by itself whether it is right.
   */
  #suspects(): readonly Origin[] {
    const current = this.#origin(this.#current)
    const involved = new Set([...this.#contributors, ...(current ? [current] : [])])
    const others = [...involved].filter(({ kind }) => kind !== 'upstream')
    return others.length > 0 || !current ? others : [current]
  }

  /** Which size is right is said by a repository's own manifests: no manifest can hide a blob from the others (T-23). */
  #suspicion(origin: Origin, reason: (typeof rejections)[number]): string {
    return `${origin.name} ${reason === 'size_mismatch' ? `${this.upstream} ${this.#deps.repository}` : ''}`
  }

  #origin(index: number): Origin | undefined {
    return this.#deps.origins[index]
  }

  /** The upstream's own URL. */
  #primary(): Origin | undefined {
    return this.#deps.origins.find(({ kind }) => kind === 'upstream')
  }

  #next(from: number, only?: OriginKind): number | undefined {
    const { origins } = this.#deps
    for (let step = 0; step < origins.length; step++) {
      const index = (from + step) % origins.length
      const candidate = origins[index]
      if (candidate && !this.#excluded.has(candidate) && (only ?? candidate.kind) === candidate.kind) return index
    }
    return undefined
  }
}

const rejections = ['size_mismatch', 'digest_mismatch'] as const

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
