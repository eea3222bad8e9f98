import type { Hash } from 'node:crypto'
import type { FillConfig } from '../config/config.ts'
import type { FillEnded, Observer } from '../log/observer.ts'
import { algorithmOf, type Digest, finish, hasher } from '../oci/digest.ts'
import type { SpoolFile } from '../store/stores.ts'
import type { ByteRange } from '../oci/range.ts'
import { UpstreamError, type UpstreamBlob } from '../upstream/upstream.ts'
import type { BlobSource } from './blob-source.ts'
import { consume } from './consume.ts'
import { FillError } from './fill-error.ts'
import { FillReader } from './fill-reader.ts'
import { Landing } from './landing.ts'
import type { OriginKind } from './origin.ts'

export type FillDeps = {
  readonly digest: Digest
  /** What a manifest said; a source that says otherwise is refused before its first byte (P-60, F-8). */
  readonly expectedSize: number | undefined
  readonly source: BlobSource
  /** Room on disk, or undefined: the bytes then pass through memory and are not kept. */
  readonly createSpool: (size: number | undefined) => Promise<SpoolFile | undefined>
  /** Takes over the verified file. */
  readonly publish: (size: number, spool: SpoolFile) => Promise<void>
  /** Called for each chunk, with how many bytes have arrived in all. */
  readonly onReceived?: (received: number) => void
  readonly policy: FillConfig
  readonly observer: Observer
}

export type FillEnd = 'published' | 'uncached' | 'failed' | 'cancelled'

/**
 * One download of one blob, on behalf of everyone who wants it.
 *
 * Bytes come from a {@link BlobSource}, resumed where they broke off; they go to a spool file and to any number of readers, each at its own
 * pace. The last byte is withheld from every reader until size and digest are right. What fails, fails for all readers alike.
 * The download belongs to no client: when the last reader leaves, the policy decides whether it goes on.
 */
export class Fill {
  readonly digest: Digest
  /** Resolves when upstream began to answer: the blob's size, or undefined when upstream does not say. Rejects when it cannot be had. */
  readonly opened: Promise<number | undefined>
  /** Resolves when nothing more will happen to the bytes: published, or not. Never rejects. */
  readonly ended: Promise<FillEnd>

  readonly #deps: FillDeps
  readonly #landing: Landing
  readonly #readers = new Set<FillReader>()
  readonly #abort = new AbortController()
  readonly #hash: Hash
  readonly #startedAt = performance.now()
  readonly #opening = Promise.withResolvers<number | undefined>()
  #size: number | undefined
  #verified = false
  #failure: Error | undefined
  /** The bytes are wrong, and those who wait will hear of it. */
  #condemned = false
  #over = false
  #holds = 0
  #mostReaders = 0
  #wakers: (() => void)[] = []
  #lastLeft: (() => void) | undefined
  #abandonTimer: NodeJS.Timeout | undefined

  constructor(deps: FillDeps) {
    this.#deps = deps
    this.digest = deps.digest
    this.#hash = hasher(algorithmOf(deps.digest))
    this.#landing = new Landing({
      createSpool: deps.createSpool,
      observer: deps.observer,
      slowest: received => this.#slowest(received),
      onPassThrough: () => this.#consider(),
      onHeldUp: position => this.#letGo(position),
    })
    this.opened = this.#opening.promise
    // Everybody may have left before it is known; the error still reaches who asks later.
    this.opened.catch(() => undefined)
    this.ended = this.#run()
  }

  /** Bytes that have arrived without a gap from byte 0. */
  get received(): number {
    return this.#landing.received
  }

  get size(): number | undefined {
    return this.#size
  }

  /** Who reads along now. */
  get readers(): number {
    return this.#readers.size
  }

  /** True once size and digest were right. */
  get verified(): boolean {
    return this.#verified
  }

  /** False when a reader that starts at byte 0 can no longer be served from this download. */
  get joinable(): boolean {
    // Once over, its file is being closed, and what was published is in the store (F-21).
    if (this.#over || this.#condemned || this.#failure !== undefined || this.#abort.signal.aborted) return false
    return this.#landing.isWhole
  }

  /** Where its first bytes came from; undefined while nobody has answered. */
  get began(): OriginKind | undefined {
    return this.#deps.source.began
  }

  /** What every reader is told, once the download has failed. */
  get failure(): Error | undefined {
    return this.#failure
  }

  /** A reader of this download, from byte 0 unless it is aimed elsewhere. It must be closed. */
  join(): FillReader {
    this.#stopAbandonTimer()
    const reader = new FillReader(this)
    this.#readers.add(reader)
    this.#mostReaders = Math.max(this.#mostReaders, this.#readers.size)
    return reader
  }

  /** Keeps the download going without a reader (fetching ahead); gives the function that lets go. */
  hold(): () => void {
    this.#holds++
    this.#stopAbandonTimer()
    let held = true
    return () => {
      if (!held) return
      held = false
      this.#holds--
      this.#consider()
    }
  }

  /** Opens a range beside the download, where its bytes come from now. */
  openRange(range: ByteRange, signal: AbortSignal): Promise<UpstreamBlob> {
    return this.#deps.source.openRange(range, signal)
  }

  /** Ends the download now; every reader gets `reason`. */
  cancel(reason: Error): void {
    if (this.#over) return
    this.#abort.abort(reason)
    // What is verified is published all the same.
    if (!this.#verified) this.#landing.halt()
    this.#lastLeft?.()
  }

  /** Resolves at the next change: bytes arrived, verified, failed. */
  async changed(): Promise<void> {
    if (this.#over) return
    await new Promise<void>(resolve => this.#wakers.push(resolve))
  }

  /** Resolves when size and digest were right; throws what every reader is told when they were not. */
  async untilVerified(): Promise<void> {
    while (!this.#verified) {
      if (this.#failure) throw this.#failure
      await this.changed()
    }
  }

  /** See {@link BlobReader.read}. */
  read(position: number, length: number, buffer: () => Buffer): Promise<Uint8Array> | Uint8Array {
    if (this.#failure) throw this.#failure
    const available = Math.min(this.#visible() - position, length)
    if (available > 0) return this.#landing.read(position, available, buffer)
    if (this.#verified) return nothing
    return this.changed().then(() => this.read(position, length, buffer))
  }

  leave(reader: FillReader): void {
    if (!this.#readers.delete(reader)) return
    this.#landing.readersMoved()
    this.#consider()
    if (this.#readers.size > 0) return
    this.#lastLeft?.()
    if (this.#over) void this.#landing.close()
  }

  /** Called by readers when they move on. */
  moved(): void {
    if (this.#landing.passesThrough) this.#landing.readersMoved()
  }

  /** How much may be shown: everything once verified, all but the last byte before. */
  #visible(): number {
    return this.#verified ? this.received : Math.max(0, this.received - 1)
  }

  async #run(): Promise<FillEnd> {
    const { observer, source } = this.#deps
    observer.fillStarted(source.upstream)
    try {
      await this.#download()
      await this.#verify()
      this.#wake()
      return await this.#publish()
    } catch (error) {
      // Awaited: a spool that is still being created must be known before it is decided who closes it.
      return await this.#fail(error)
    } finally {
      this.#over = true
      this.#stopAbandonTimer()
      this.#landing.halt()
      this.#wake()
      if (this.#readers.size === 0) await this.#landing.close()
    }
  }

  /** Until the last byte is here: open the best source at the byte that is missing, take what comes, go on after a failure. */
  async #download(): Promise<void> {
    const { source, observer } = this.#deps
    while (!(await this.#receive())) {
      // That the shared store or another replica does not have it is how most downloads begin.
      if (this.received > 0 || source.lastKind === 'upstream') observer.fillResumed(source.upstream, source.lastReason)
    }
  }

  /** One connection. True when the body is complete; false when the next source should be tried; throws when there is none. */
  async #receive(): Promise<boolean> {
    const { source } = this.#deps
    const before = this.received
    try {
      const blob = await source.open(before, this.#abort.signal)
      const stop = (): void => void blob.body.destroy()
      this.#abort.signal.addEventListener('abort', stop, { once: true })
      try {
        this.#learnSize(blob.size)
        let skip = before - blob.offset
        await consume(blob.body, chunk => {
          if (skip >= chunk.length) {
            skip -= chunk.length
            return undefined
          }
          const fresh = skip > 0 ? chunk.subarray(skip) : chunk
          skip = 0
          return this.#take(fresh)
        })
      } finally {
        this.#abort.signal.removeEventListener('abort', stop)
        blob.body.destroy()
      }
      this.#abort.signal.throwIfAborted()
      if (this.#isComplete()) return true
      throw new FillError(
        'truncated',
        `upstream ended after ${this.received} of ${this.#size ?? 'an unknown number of'} bytes`,
      )
    } catch (error) {
      this.#abort.signal.throwIfAborted()
      // The next place is asked meanwhile.
      if (isWrongSize(error)) void this.#reject('size_mismatch')
      await source.afterFailure(error, {
        received: this.received,
        progress: this.received - before,
        signal: this.#abort.signal,
      })
      return false
    }
  }

  /** Without an announced size only the digest tells a whole body from one that was cut (F-4). */
  #isComplete(): boolean {
    if (this.#size !== undefined) return this.received === this.#size
    return finish(algorithmOf(this.digest), this.#hash.copy()) === this.digest
  }

  #learnSize(size: number | undefined): void {
    const known = this.#size ?? this.#deps.expectedSize
    if (size !== undefined && known !== undefined && size !== known)
      throw new FillError('size_mismatch', `upstream offers ${size} bytes, ${known} were expected`)
    // Blobs of no bytes are never downloaded. Refused here, because an answer of length 0 is complete with its headers (F-31).
    if (size === 0) throw new FillError('size_mismatch', 'upstream offers no bytes at all')
    if (size !== undefined && size < this.received)
      throw new FillError('size_mismatch', `upstream offers ${size} bytes, ${this.received} have arrived before`)
    this.#size = size ?? known
    this.#landing.prepare(this.#size)
    this.#opening.resolve(this.#size)
  }

  #take(chunk: Buffer): Promise<void> | undefined {
    if (this.#size !== undefined && this.received + chunk.length > this.#size)
      throw new FillError('size_mismatch', `upstream sent more than the ${this.#size} bytes it announced`)
    this.#hash.update(chunk)
    const room = this.#landing.push(chunk)
    this.#deps.onReceived?.(this.received)
    this.#wake()
    return room
  }

  #slowest(received: number): number {
    let slowest = received
    for (const reader of this.#readers) slowest = Math.min(slowest, reader.position)
    return slowest
  }

  /** Without a spool the slowest reader sets the pace; one that stands still is let go when others wait for it. */
  #letGo(position: number): void {
    const others = [...this.#readers].some(reader => reader.position > position)
    if (!others) return
    for (const reader of this.#readers)
      if (reader.position <= position)
        reader.fail(new FillError('slow_reader', 'too slow for a download that cannot be kept on disk'))
  }

  async #verify(): Promise<void> {
    const actual = finish(algorithmOf(this.digest), this.#hash)
    if (actual !== this.digest) {
      // Whoever is cut tries again at once, perhaps at another replica: by then the bytes must not be had any more where they came from.
      this.#condemned = true
      await this.#reject('digest_mismatch')
      throw new FillError('digest_mismatch', `upstream sent ${this.received} bytes that hash to ${actual}`)
    }
    this.#size = this.received
    this.#verified = true
  }

  /** Resolves when what can be done about it is done. Never rejects. */
  async #reject(reason: 'digest_mismatch' | 'size_mismatch'): Promise<void> {
    const { source, observer } = this.#deps
    const removed = source.reject(reason)
    observer.contentRejected({ upstream: source.upstream, kind: 'blob', digest: this.digest, reason })
    await removed
  }

  async #publish(): Promise<FillEnd> {
    const { observer } = this.#deps
    const spool = await this.#landing.settle()
    let end: FillEnd = 'uncached'
    try {
      if (spool) {
        await this.#deps.publish(this.received, spool)
        end = 'published'
      }
    } catch (error) {
      observer.storeFailed('publish', error)
    }
    if (end === 'uncached') await this.#landing.discard()
    observer.fillEnded(this.#endOf(end, undefined))
    // Readers without a file finish from memory; those with one keep it open.
    if (this.#landing.passesThrough) await this.#untilReadersLeft()
    return end
  }

  async #untilReadersLeft(): Promise<void> {
    if (this.#readers.size === 0 || this.#abort.signal.aborted) return
    await new Promise<void>(resolve => {
      this.#lastLeft = resolve
    })
  }

  async #fail(error: unknown): Promise<FillEnd> {
    const end = this.#abort.signal.aborted ? 'cancelled' : 'failed'
    const failure = error instanceof Error ? error : new FillError('unknown', String(error))
    this.#failure = failure
    this.#opening.reject(failure)
    this.#landing.halt()
    this.#wake()
    this.#deps.observer.fillEnded(this.#endOf(end, failure))
    await this.#landing.settle()
    await this.#landing.discard()
    return end
  }

  #endOf(outcome: FillEnd, error: Error | undefined): FillEnded {
    const { digest, source } = this.#deps
    const reason = error === undefined ? undefined : reasonOf(error)
    return {
      upstream: source.upstream,
      digest,
      outcome,
      reason,
      bytes: this.received,
      seconds: (performance.now() - this.#startedAt) / 1000,
      readers: this.#mostReaders,
      error,
    }
  }

  #wake(): void {
    const wakers = this.#wakers
    this.#wakers = []
    for (const wake of wakers) wake()
  }

  /** Nobody waits any more: now, or after a while in which somebody may come (back), decide whether it is worth going on. */
  #consider(): void {
    if (this.#over || this.#verified || this.#abandonTimer || this.#isWanted()) return
    const wait = this.#landing.passesThrough ? 0 : this.#deps.policy.abandonMs
    this.#abandonTimer = setTimeout(() => {
      this.#abandonTimer = undefined
      if (!this.#isWanted() && !this.#isWorthFinishing())
        this.cancel(new FillError('cancelled', 'every client left and too much was missing'))
    }, wait)
  }

  /** Fetching ahead is pointless where nothing can be kept. */
  #isWanted(): boolean {
    return this.#readers.size > 0 || (this.#holds > 0 && !this.#landing.passesThrough)
  }

  #isWorthFinishing(): boolean {
    const { finishWithinBytes, finishFromShare } = this.#deps.policy
    if (this.#landing.passesThrough || this.#size === undefined) return false
    return this.#size - this.received <= finishWithinBytes || this.received >= this.#size * finishFromShare
  }

  #stopAbandonTimer(): void {
    clearTimeout(this.#abandonTimer)
    this.#abandonTimer = undefined
  }
}

function isWrongSize(error: unknown): error is FillError {
  return error instanceof FillError && error.reason === 'size_mismatch'
}

/** One bounded word for a failure. */
export function reasonOf(error: unknown): string {
  if (error instanceof FillError || error instanceof UpstreamError) return error.reason
  return 'unknown'
}

const nothing = new Uint8Array(0)
