import type { Clock } from '../clock.ts'
import { S3Error, type S3Reason } from './s3-error.ts'

/** Failures that come quickly may be chance; a time-out has cost somebody seconds and is enough by itself. */
const threshold = 3
const firstPauseMs = 3_000
const longestPauseMs = 15_000

/**
 * Keeps reads from a bucket that does not answer: after one time-out or three quick failures in a row nothing is asked for 3 s, then one request
 * tries; as long as that fails the pause doubles up to 15 s, spread by half. Pulls go to the next source meanwhile (F-55).
 */
export class S3Breaker {
  readonly #clock: Clock
  #failures = 0
  #pauses = 0
  #blockedUntil = Number.NEGATIVE_INFINITY
  #trying = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get isOpen(): boolean {
    return this.#clock.monotonic() < this.#blockedUntil
  }

  /** Runs `work`, or rejects at once with the reason `blocked`. An answer closes the breaker, whatever it says. */
  async run<Result>(work: () => Promise<Result>): Promise<Result> {
    const isTrial = this.#pauses > 0
    if (this.isOpen || (isTrial && this.#trying))
      throw new S3Error('blocked', 'the bucket is not asked: it did not answer a moment ago')
    if (isTrial) this.#trying = true
    try {
      const result = await work()
      this.#close()
      return result
    } catch (error) {
      this.#judge(error, isTrial)
      throw error
    } finally {
      if (isTrial) this.#trying = false
    }
  }

  /** A body that stalled after its head came: the request that opened it had looked fine. */
  report(error: S3Error): void {
    if (error.reason === 'timeout') this.#judge(error, false)
  }

  #judge(error: unknown, isTrial: boolean): void {
    // Whoever left has learnt nothing.
    if (!(error instanceof S3Error) || error.reason === 'cancelled') return
    if (!error.isOutage) this.#close()
    // What was under way when it opened says nothing new.
    else if (!this.isOpen) this.#count(error.reason, isTrial)
  }

  #count(reason: S3Reason, isTrial: boolean): void {
    this.#failures += 1
    if (!isTrial && reason !== 'timeout' && this.#failures < threshold) return
    const pause = Math.min(firstPauseMs * 2 ** this.#pauses, longestPauseMs)
    this.#pauses += 1
    this.#blockedUntil = this.#clock.monotonic() + pause * (0.75 + Math.random() / 2)
  }

  #close(): void {
    this.#failures = 0
    this.#pauses = 0
    this.#blockedUntil = Number.NEGATIVE_INFINITY
  }
}
