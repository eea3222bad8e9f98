import type { Observer } from '../log/observer.ts'
import type { SpoolFile } from '../store/stores.ts'
import { FillError } from './fill-error.ts'
import { Window } from './window.ts'

export type LandingDeps = {
  /** Room on disk, or undefined: the bytes then pass through memory and are not kept. */
  readonly createSpool: (size: number | undefined) => Promise<SpoolFile | undefined>
  readonly observer: Observer
  /** The first byte that some reader still needs; `received` when nobody needs any. */
  readonly slowest: (received: number) => number
  /** There is no room on disk (any more). */
  readonly onPassThrough: () => void
  /** Without a spool: the slowest reader has been holding up the download for a while. Readers at or before `position` may be let go. */
  readonly onHeldUp: (position: number) => void
}

/** Received and not yet on disk: upstream waits above this. */
const maxUnwrittenBytes = 8 * 1024 * 1024
/** Kept in memory behind the disk, so that readers close to the download share chunks instead of reading the file. */
const sharedBytes = 2 * 1024 * 1024
/** Without a spool: how far the fastest reader may be ahead of the slowest. */
const passThroughBytes = 4 * 1024 * 1024
/** Without a spool: how long the slowest reader may hold up the others. */
const patienceMs = 5_000
const writeBytes = 1024 * 1024
/** Less than this waits for more: a write for each chunk costs a thread's waking for each. All of it is still in memory, where readers find it. */
const worthWritingBytes = 512 * 1024

/**
 * Where the bytes of a download land: in memory, and behind it in a spool file. Disk trouble is not client trouble: without a file, or when writing
 * fails, the bytes pass through memory at the pace of the slowest reader, and nothing is kept.
 */
export class Landing {
  readonly #deps: LandingDeps
  readonly #window = new Window()
  #spool: SpoolFile | undefined
  /** Settles when it is known whether there is a spool. */
  #spoolReady: Promise<void> | undefined
  #passThrough = false
  #written = 0
  #halted = false
  #writing: Promise<void> | undefined
  #room: (() => void) | undefined
  #patience: NodeJS.Timeout | undefined

  constructor(deps: LandingDeps) {
    this.#deps = deps
  }

  /** Bytes that have arrived without a gap from byte 0. */
  get received(): number {
    return this.#window.end
  }

  /** True when nothing is (to be) kept. */
  get passesThrough(): boolean {
    return this.#passThrough
  }

  /** False when bytes from the start on are no longer held. */
  get isWhole(): boolean {
    return this.#window.start <= this.#written || this.#window.start === 0
  }

  /** Asks for room on disk, once. */
  prepare(size: number | undefined): void {
    this.#spoolReady ??= this.#deps.createSpool(size).then(
      spool => {
        this.#spool = spool
        if (!spool) this.#stopSpooling(undefined)
      },
      error => this.#stopSpooling(error),
    )
  }

  /** Takes the next bytes. A promise: too many wait to be written or read, and the next should come when it has resolved. */
  push(chunk: Buffer): Promise<void> | undefined {
    this.#window.push(chunk)
    if (this.received - this.#written >= worthWritingBytes) this.#writing ??= this.#write(worthWritingBytes)
    return this.#isFull() ? this.#untilRoom() : undefined
  }

  /** Bytes that have been received, at least one of `length`; shared ones, or read from the file into `buffer()`. Throws for bytes that are not held. */
  read(position: number, length: number, buffer: () => Buffer): Promise<Uint8Array> | Uint8Array {
    const shared = this.#window.at(position)
    if (shared) return shared.length > length ? shared.subarray(0, length) : shared
    return this.#readSpool(position, Math.min(length, this.#written - position), buffer)
  }

  /** A reader moved on or left. */
  readersMoved(): void {
    if (this.#passThrough) this.#trim()
    this.#makeRoom()
  }

  /** Nothing more is written. */
  halt(): void {
    this.#halted = true
    clearTimeout(this.#patience)
    this.#makeRoom()
  }

  /** Resolves when everything is on disk, or will never be; with the file that holds all bytes, if there is one. */
  async settle(): Promise<SpoolFile | undefined> {
    await this.#writing
    this.#writing ??= this.#write(1)
    await this.#writing
    await this.#spoolReady
    return this.#passThrough || this.#written < this.received ? undefined : this.#spool
  }

  /** Gives the room back. What is open stays readable until `close`. Never rejects. */
  async discard(): Promise<void> {
    await this.#tolerate('discard', this.#spool?.discard())
  }

  /** Never rejects. */
  async close(): Promise<void> {
    const spool = this.#spool
    this.#spool = undefined
    await this.#tolerate('close', spool?.close())
  }

  async #readSpool(position: number, length: number, buffer: () => Buffer): Promise<Uint8Array> {
    if (!this.#spool || length <= 0) throw new FillError('slow_reader', 'the bytes are no longer held')
    const into = buffer()
    const count = await this.#spool.read(into, position, Math.min(length, into.length))
    if (count === 0) throw new FillError('spool_short', 'the spool file ends before the bytes that were written to it')
    return into.subarray(0, count)
  }

  #isFull(): boolean {
    if (this.#halted) return false
    if (!this.#passThrough) return this.received - this.#written > maxUnwrittenBytes
    return this.received - this.#deps.slowest(this.received) > passThroughBytes
  }

  async #untilRoom(): Promise<void> {
    if (this.#passThrough) this.#armPatience()
    while (this.#isFull())
      await new Promise<void>(resolve => {
        this.#room = resolve
      })
    clearTimeout(this.#patience)
    this.#patience = undefined
  }

  #makeRoom(): void {
    const room = this.#room
    this.#room = undefined
    room?.()
  }

  #armPatience(): void {
    this.#patience ??= setTimeout(() => {
      this.#patience = undefined
      this.#deps.onHeldUp(this.received - passThroughBytes)
      if (this.#isFull()) this.#armPatience()
    }, patienceMs)
  }

  /** Moves what is in memory to the spool, as long as there are so many bytes. */
  async #write(atLeast: number): Promise<void> {
    try {
      await this.#spoolReady
      while (this.#spool && !this.#passThrough && !this.#halted && this.received - this.#written >= atLeast) {
        const chunks = this.#window.from(this.#written, writeBytes)
        await this.#spool.write(chunks, this.#written)
        this.#written += chunks.reduce((sum, chunk) => sum + chunk.length, 0)
        this.#trim()
        this.#makeRoom()
      }
    } catch (error) {
      this.#stopSpooling(error)
    } finally {
      this.#writing = undefined
    }
  }

  #trim(): void {
    const { received } = this
    const keep = this.#passThrough ? this.#deps.slowest(received) : Math.min(this.#written, received - sharedBytes)
    this.#window.dropBefore(keep)
  }

  #stopSpooling(error: unknown): void {
    this.#passThrough = true
    if (error !== undefined) this.#deps.observer.storeFailed('spool', error)
    this.readersMoved()
    this.#deps.onPassThrough()
  }

  async #tolerate(operation: string, work: Promise<void> | undefined): Promise<void> {
    try {
      await work
    } catch (error) {
      this.#deps.observer.storeFailed(operation, error)
    }
  }
}
