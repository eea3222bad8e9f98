import type { ServerResponse } from 'node:http'
import type { BlobReader } from '../cache/blob-reader.ts'
import type { ByteRange } from '../oci/range.ts'
import type { Exchange } from './exchange.ts'

/**
 * Buffers by what a client has taken so far: large ones cost less CPU per byte, small ones less memory for clients that stop reading. Clients stop
 * early, when the system's buffers are full, or not at all.
 */
const steps = [
  { from: 0, bytes: 32 * 1024 },
  { from: 2 * 1024 * 1024, bytes: 128 * 1024 },
  { from: 8 * 1024 * 1024, bytes: 512 * 1024 },
] as const
/** All buffers above the first step together: a thousand clients that stop reading later hold no more than this. */
const maxLentBytes = 64 * 1024 * 1024
/** What a client must take within `stallMs`, so as not to be disconnected. */
const leastBytes = 64 * 1024

export type Sending = {
  readonly exchange: Exchange
  readonly reader: BlobReader
  /** Absent: to the end, wherever that is. */
  readonly range: ByteRange | undefined
  readonly watch: WriteWatch
}

/** The client left, or was disconnected for taking nothing. */
export class ClientGone extends Error {
  override readonly name = 'ClientGone'
}

/**
 * Copies bytes from a reader to the response, one chunk at a time and never faster than the client takes them.
 * Throws {@link ClientGone}, or what the reader throws; the response is then neither ended nor appended to. Does not end the response.
 *
 * Written on the Node response with one reused buffer: web streams cost about twice the CPU per byte.
 */
export async function sendBytes({ exchange, reader, range, watch }: Sending): Promise<void> {
  const { res } = exchange
  const writer = new Writer(res, watch)
  const lender = new BufferLender()
  const end = range?.end ?? Number.MAX_SAFE_INTEGER
  let position = range?.start ?? 0
  const from = position
  try {
    while (position <= end) {
      lender.taken(position - from)
      let bytes = reader.read(position, end - position + 1, lender.buffer)
      if (bytes instanceof Promise) bytes = await writer.unlessGone(bytes)
      if (bytes.length === 0) break
      exchange.wrote(bytes.length)
      await writer.write(bytes)
      position += bytes.length
    }
  } finally {
    lender.release()
    writer.close()
  }
  if (range && position <= end) throw new Error(`the blob ended at byte ${position}, ${end + 1} were promised`)
}

/** The buffer of one response: none until it is needed, larger for who has shown to be fast. */
class BufferLender {
  static #lent = 0
  #buffer: Buffer | undefined
  #step: (typeof steps)[number] = steps[0]
  #borrowed = 0

  readonly buffer = (): Buffer => {
    this.#buffer ??= Buffer.allocUnsafeSlow(this.#step.bytes)
    return this.#buffer
  }

  /** The client has taken so many bytes. */
  taken(bytes: number): void {
    const step = steps.findLast(({ from }) => from <= bytes) ?? steps[0]
    if (step === this.#step || BufferLender.#lent - this.#borrowed + step.bytes > maxLentBytes) return
    BufferLender.#lent += step.bytes - this.#borrowed
    this.#borrowed = step.bytes
    this.#step = step
    this.#buffer = undefined
  }

  release(): void {
    BufferLender.#lent -= this.#borrowed
    this.#borrowed = 0
    this.#step = steps[0]
    this.#buffer = undefined
  }
}

/** Writes to a response and waits until the kernel took the bytes, so that the buffer can be used again. */
class Writer {
  readonly #res: ServerResponse
  readonly #watch: WriteWatch
  #isGone = false
  /** Rejects what is being waited for. One at a time: racing every chunk against one long-lived promise would pile up its reactions. */
  #interrupt: ((gone: ClientGone) => void) | undefined
  readonly #onClose = (): void => {
    this.#isGone = true
    this.#interrupt?.(new ClientGone('the client left'))
  }

  constructor(res: ServerResponse, watch: WriteWatch) {
    this.#res = res
    this.#watch = watch
    res.once('close', this.#onClose)
    if (res.destroyed || res.socket === null) this.#isGone = true
  }

  async write(bytes: Uint8Array): Promise<void> {
    const { promise: flushed, resolve } = Promise.withResolvers<void>()
    // What write() returns says nothing here: one chunk never fills Node's buffer, however long the client has taken nothing.
    this.#res.write(bytes, () => resolve())
    const waiting = this.#watch.start(this.#res, bytes.length)
    try {
      await this.unlessGone(flushed)
    } finally {
      this.#watch.stop(waiting)
    }
  }

  /** Waits for `work`; throws {@link ClientGone} as soon as the client has left. */
  unlessGone<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#isGone) reject(new ClientGone('the client left'))
      this.#interrupt = reject
      work.then(resolve, reject)
    })
  }

  close(): void {
    this.#interrupt = undefined
    this.#res.off('close', this.#onClose)
  }
}

type Waiting = { readonly res: ServerResponse; readonly deadline: number }

/**
 * Disconnects clients that take no bytes (T-34, F-44): one timer for all of them. The time allowed grows with the size of the chunk, so that
 * it is a least rate of about 64 KiB per `stallMs`.
 */
export class WriteWatch {
  readonly #stallMs: number
  readonly #waiting = new Set<Waiting>()
  readonly #timer: NodeJS.Timeout

  constructor(stallMs: number) {
    this.#stallMs = stallMs
    this.#timer = setInterval(() => this.#sweep(), Math.max(50, Math.min(5_000, stallMs / 4)))
    this.#timer.unref()
  }

  /** A write of so many bytes waits for the client. */
  start(res: ServerResponse, bytes: number): Waiting {
    const waiting = { res, deadline: performance.now() + this.#stallMs * Math.max(1, bytes / leastBytes) }
    this.#waiting.add(waiting)
    return waiting
  }

  stop(waiting: Waiting): void {
    this.#waiting.delete(waiting)
  }

  close(): void {
    clearInterval(this.#timer)
  }

  #sweep(): void {
    const now = performance.now()
    for (const { res, deadline } of this.#waiting) if (deadline < now) res.destroy()
  }
}
