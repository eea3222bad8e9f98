import type { Clock } from '../clock.ts'
import { maxRetryAfterMs } from './retry-after.ts'

export type BreakerState = 'closed' | 'half-open' | 'open'
/** Why nothing is asked: upstream limits us, or it does not answer. */
export type BlockReason = 'rateLimited' | 'unavailable'

/** One call that was let through. Exactly one of the methods ends it; more calls do nothing. */
export interface Ticket {
  /** Upstream answered, whatever it said. */
  success(): void
  /** Upstream could not be reached or failed (5xx). `word` is kept for the status page. */
  failure(word: string): void
  /** No verdict: the caller left. */
  abandon(): void
}

/** Consecutive failures after which nothing is asked for a while. */
const threshold = 5
const firstPauseMs = 1000
const longestPauseMs = 60_000
const firstLimitMs = 2000

type Options = {
  readonly clock: Clock
  readonly onState?: (state: BreakerState) => void
  /** 0 ≤ x < 1, for jitter. */
  readonly random?: () => number
}

/**
 * Keeps Layover from asking a URL that does not answer or that asked to be left alone. After five consecutive failures it opens; when
 * the pause is over one probe goes through, whose outcome closes it or doubles the pause, up to a minute, jittered (F-28).
 * A Retry-After blocks everything until then, at most five minutes (P-102).
 */
export class Breaker {
  readonly #clock: Clock
  readonly #onState: (state: BreakerState) => void
  readonly #random: () => number
  #failures = 0
  #pauses = 0
  #limits = 0
  #blockedUntil = Number.NEGATIVE_INFINITY
  #blockReason: BlockReason = 'unavailable'
  #probing = false
  #unreachableSince: number | undefined
  #lastError: string | undefined
  #told: BreakerState = 'closed'

  constructor({ clock, onState = () => {}, random = Math.random }: Options) {
    this.#clock = clock
    this.#onState = onState
    this.#random = random
  }

  state(): BreakerState {
    if (this.#remainingMs() > 0) return 'open'
    return this.#failures >= threshold ? 'half-open' : 'closed'
  }

  /** Wall-clock figures for the status page. */
  health(): {
    readonly unreachableSince: number | undefined
    readonly blockedUntil: number | undefined
    readonly lastError: string | undefined
  } {
    const remaining = this.#remainingMs()
    return {
      unreachableSince: this.#unreachableSince,
      blockedUntil: remaining > 0 ? this.#clock.now() + remaining : undefined,
      lastError: this.#lastError,
    }
  }

  /** A ticket, or how long to stay away and why. */
  enter(): Ticket | { readonly blockedForMs: number; readonly reason: BlockReason } {
    const remaining = this.#remainingMs()
    if (remaining > 0) return { blockedForMs: remaining, reason: this.#blockReason }
    const isProbe = this.state() === 'half-open'
    if (isProbe && this.#probing) return { blockedForMs: firstPauseMs, reason: 'unavailable' }
    if (isProbe) this.#probing = true
    this.#tell()
    return this.#ticket(isProbe)
  }

  /** Nothing is asked for `ms`; without it for 2 s, doubling up to a minute while upstream goes on limiting. */
  block(reason: BlockReason, ms: number | undefined): void {
    if (reason === 'rateLimited') this.#limits++
    const wanted = ms ?? Math.min(firstLimitMs * 2 ** (this.#limits - 1), longestPauseMs)
    const until = this.#clock.monotonic() + Math.min(wanted, maxRetryAfterMs)
    if (until <= this.#blockedUntil) return
    this.#blockedUntil = until
    this.#blockReason = reason
    this.#tell()
  }

  #ticket(isProbe: boolean): Ticket {
    let isOpen = true
    const once = (act: () => void) => () => {
      if (!isOpen) return
      isOpen = false
      if (isProbe) this.#probing = false
      act()
      this.#tell()
    }
    return {
      success: once(() => this.#reachable()),
      failure: word => once(() => this.#unreachable(word, isProbe))(),
      abandon: once(() => {}),
    }
  }

  #reachable(): void {
    this.#failures = 0
    this.#pauses = 0
    this.#unreachableSince = undefined
    if (this.#remainingMs() === 0) this.#limits = 0
  }

  #unreachable(word: string, isProbe: boolean): void {
    this.#lastError = word
    this.#unreachableSince ??= this.#clock.now()
    // Calls that were already under way when it opened say nothing new.
    if (!isProbe && this.state() === 'open') return
    this.#failures++
    if (this.#failures < threshold) return
    const pause = Math.min(firstPauseMs * 2 ** this.#pauses, longestPauseMs)
    this.#pauses++
    this.block('unavailable', pause * (0.75 + this.#random() / 2))
  }

  #remainingMs(): number {
    return Math.max(0, this.#blockedUntil - this.#clock.monotonic())
  }

  #tell(): void {
    const state = this.state()
    if (state === this.#told) return
    this.#told = state
    this.#onState(state)
  }
}
