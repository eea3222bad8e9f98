import type { Clock } from '../clock.ts'
import type { Digest } from '../oci/digest.ts'
import { S3Error } from './s3-error.ts'
import type { PendingUpload, S3Queue } from './s3-queue.ts'
import type { UploadOutcome } from './s3-upload.ts'

export type Pauses = { readonly firstMs: number; readonly longestMs: number }

export type UploaderDeps = {
  readonly queue: S3Queue
  /** Uploads at once. */
  readonly parallel: number
  /** How many may wait; more are not taken on. */
  readonly maxPending: number
  /** Between attempts: doubled from the first to the longest, spread by half. */
  readonly pauses: Pauses
  readonly clock: Clock
  readonly upload: (digest: Digest, signal: AbortSignal) => Promise<UploadOutcome>
  readonly done: (upload: PendingUpload, outcome: UploadOutcome) => void
  /** Told of each failed attempt; `final`: it was given up. */
  readonly failed: (upload: PendingUpload, error: unknown, final: boolean) => void
  /** An attempt is over, however it went: there may be room for more. */
  readonly ended: () => void
  /** The file of the queue could not be written: the upload is still tried, but does not survive a restart. */
  readonly unsaved: (error: unknown) => void
}

type Item = PendingUpload & { attempts: number }

/** Attempts for a blob that the service refuses for what it is. An outage is waited for however long it takes. */
const maxAttempts = 8

/**
 * Works through the uploads that wait, oldest first. When the endpoint as a whole fails (503 SlowDown, unreachable, denied), everything pauses, and one upload
 * at a time tries until one succeeds: a service that asks for less gets less (F-47). A blob that fails by itself waits alone.
 */
export class S3Uploader {
  readonly #deps: UploaderDeps
  readonly #waiting = new Map<Digest, Item>()
  readonly #delayed = new Map<Digest, { readonly item: Item; readonly timer: NodeJS.Timeout }>()
  readonly #running = new Map<Digest, { readonly item: Item; readonly stop: AbortController }>()
  readonly #work = new Set<Promise<void>>()
  #idle: PromiseWithResolvers<void> | undefined
  #bytes = 0
  #outages = 0
  #pausedUntil = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(deps: UploaderDeps) {
    this.#deps = deps
  }

  /** Takes on an upload. Gives false when it was not: the queue is full or closed. One that is under way already is not doubled. */
  add(upload: PendingUpload, options: { readonly saved?: boolean } = {}): boolean {
    const { queue, maxPending, unsaved } = this.#deps
    if (this.isPending(upload.digest)) return true
    if (this.#closed || this.pending().uploads >= maxPending) return false
    this.#bytes += upload.size
    this.#waiting.set(upload.digest, { ...upload, attempts: 0 })
    if (options.saved !== true) this.#own(queue.add(upload).catch(unsaved))
    this.#pump()
    return true
  }

  isPending(digest: Digest): boolean {
    return this.#waiting.has(digest) || this.#running.has(digest) || this.#delayed.has(digest)
  }

  pending(): { readonly uploads: number; readonly bytes: number } {
    return { uploads: this.#waiting.size + this.#running.size + this.#delayed.size, bytes: this.#bytes }
  }

  /** Gives up an upload, because its blob is to go. */
  cancel(digest: Digest): void {
    this.#running.get(digest)?.stop.abort()
    const delayed = this.#delayed.get(digest)
    clearTimeout(delayed?.timer)
    this.#delayed.delete(digest)
    const item = this.#waiting.get(digest) ?? delayed?.item
    if (item === undefined) return
    this.#waiting.delete(digest)
    this.#forget(item)
  }

  /** Resolves when nothing waits and nothing runs, and the queue on disk says so too. */
  async idle(): Promise<void> {
    this.#idle ??= Promise.withResolvers()
    const { promise } = this.#idle
    this.#settle()
    await promise
    await this.#deps.queue.idle()
  }

  /** Stops what runs; its files stay in the queue. Safe to repeat. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    for (const { timer } of this.#delayed.values()) clearTimeout(timer)
    for (const { stop } of this.#running.values()) stop.abort()
    while (this.#work.size > 0) await Promise.allSettled(this.#work)
    await this.#deps.queue.idle()
  }

  #pump(): void {
    if (this.#closed || this.#isPaused()) return
    const limit = this.#outages > 0 ? 1 : this.#deps.parallel
    for (const item of this.#waiting.values()) {
      if (this.#running.size >= limit) return
      this.#waiting.delete(item.digest)
      this.#own(this.#run(item))
    }
  }

  #isPaused(): boolean {
    const remaining = this.#pausedUntil - this.#deps.clock.monotonic()
    if (remaining <= 0) return false
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      // The pause was measured by the system's timer just now, whatever the clock says.
      this.#pausedUntil = Number.NEGATIVE_INFINITY
      this.#pump()
    }, remaining).unref()
    return true
  }

  async #run(item: Item): Promise<void> {
    const { upload, done } = this.#deps
    const stop = new AbortController()
    this.#running.set(item.digest, { item, stop })
    try {
      const outcome = await upload(item.digest, stop.signal)
      this.#running.delete(item.digest)
      this.#outages = 0
      this.#forget(item)
      done(item, outcome)
    } catch (error) {
      this.#running.delete(item.digest)
      if (!this.#closed) this.#afterFailure(item, error, stop.signal)
    }
    this.#settle()
    this.#pump()
    if (!this.#closed) this.#deps.ended()
  }

  #afterFailure(item: Item, error: unknown, signal: AbortSignal): void {
    const { failed, clock } = this.#deps
    if (signal.aborted) {
      this.#forget(item)
      return
    }
    if (error instanceof S3Error && error.isOutage) {
      failed(item, error, false)
      // To the end: one blob that always fails must not keep the others waiting.
      this.#waiting.set(item.digest, item)
      this.#pausedUntil = Math.max(this.#pausedUntil, clock.monotonic() + this.#pauseMs(this.#outages))
      this.#outages += 1
      return
    }
    item.attempts += 1
    const final = item.attempts >= maxAttempts
    failed(item, error, final)
    if (final) this.#forget(item)
    else this.#delay(item)
  }

  #delay(item: Item): void {
    const timer = setTimeout(
      () => {
        this.#delayed.delete(item.digest)
        this.#waiting.set(item.digest, item)
        this.#pump()
      },
      this.#pauseMs(item.attempts - 1),
    ).unref()
    this.#delayed.set(item.digest, { item, timer })
  }

  #pauseMs(earlier: number): number {
    const { firstMs, longestMs } = this.#deps.pauses
    return Math.min(firstMs * 2 ** Math.min(earlier, 30), longestMs) * (0.75 + Math.random() / 2)
  }

  #forget(item: Item): void {
    this.#bytes -= item.size
    this.#own(this.#deps.queue.remove(item).catch(this.#deps.unsaved))
    this.#settle()
  }

  /** Work in the background that `close` waits for. */
  #own(work: Promise<void>): void {
    const owned = work.finally(() => this.#work.delete(owned))
    this.#work.add(owned)
  }

  #settle(): void {
    if (this.#idle === undefined || this.pending().uploads > 0) return
    this.#idle.resolve()
    this.#idle = undefined
  }
}
