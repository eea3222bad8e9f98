import { S3Error } from './s3-error.ts'
import type { Archive, ArchivedObject } from './archive.ts'

/** `ensure` writes only what is not there yet. */
export type ArchiveWrite =
  | { readonly kind: 'put' | 'ensure'; readonly object: ArchivedObject; readonly done?: () => void }
  | { readonly kind: 'delete' }

export type ArchiveQueueOptions = {
  readonly archive: Archive
  /** Objects that may wait. */
  readonly maxPending: number
  /** What they may take of memory. */
  readonly maxPendingBytes: number
  readonly parallel: number
  /** After a failure that would meet every object nothing is written for the first pause, then for twice that, up to the longest. */
  readonly pauses: { readonly firstMs: number; readonly longestMs: number }
  /** A write failed; `final`: it is not tried again. */
  readonly failed: (key: string, error: unknown, final: boolean) => void
}

type Entry = { readonly write: ArchiveWrite; readonly attempts: number }

/** An object that fails by itself so often is given up. */
const maxAttempts = 4

/**
 * Writes to the archive that nobody waits for: at most one per key waits, the last one wins, a few run at once. It lives in memory; what a
 * process leaves behind is written again by whoever next sees that it is missing.
 */
export class ArchiveQueue {
  readonly #options: ArchiveQueueOptions
  readonly #waiting = new Map<string, Entry>()
  readonly #running = new Map<string, Entry>()
  readonly #idle = new Set<() => void>()
  #bytes = 0
  #failuresInRow = 0
  #pause: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(options: ArchiveQueueOptions) {
    this.#options = options
  }

  /** False: there is no room, the write is forgotten. Never waits. */
  add(key: string, write: ArchiveWrite): boolean {
    if (this.#isClosed) return false
    const before = this.#waiting.get(key)
    const bytes = this.#bytes + sizeOf(write) - sizeOf(before?.write)
    const isFull = bytes > this.#options.maxPendingBytes || this.#waiting.size >= this.#options.maxPending
    if (isFull && !(before && bytes <= this.#bytes)) return false
    this.#wait(key, { write, attempts: 0 })
    this.#pump()
    return true
  }

  /** What will be written under `key`; undefined: nothing is under way. */
  pending(key: string): ArchiveWrite | undefined {
    return (this.#waiting.get(key) ?? this.#running.get(key))?.write
  }

  /** Keys under way that begin with `prefix`, each with what happens to it. */
  pendingUnder(prefix: string): ReadonlyMap<string, ArchiveWrite['kind']> {
    const found = [...this.#running, ...this.#waiting].filter(([key]) => key.startsWith(prefix))
    return new Map(found.map(([key, { write }]) => [key, write.kind]))
  }

  /** True after a failure, until something was written again. */
  get isFailing(): boolean {
    return this.#failuresInRow > 0
  }

  get size(): number {
    return this.#waiting.size + this.#running.size
  }

  /** Resolves when nothing waits or runs. */
  async idle(): Promise<void> {
    if (this.size > 0) await new Promise<void>(resolve => this.#idle.add(resolve))
  }

  /** Takes nothing on any more and forgets what waits; gives how many that were. */
  close(): number {
    this.#isClosed = true
    clearTimeout(this.#pause)
    const left = this.size
    this.#waiting.clear()
    this.#bytes = 0
    return left
  }

  #wait(key: string, entry: Entry): void {
    this.#bytes += sizeOf(entry.write) - sizeOf(this.#waiting.get(key)?.write)
    this.#waiting.set(key, entry)
  }

  #pump(): void {
    if (this.#pause !== undefined || this.#isClosed) return
    for (const [key, entry] of this.#waiting) {
      if (this.#running.size >= this.#options.parallel) return
      // Two writes of one key do not overtake each other.
      if (this.#running.has(key)) continue
      this.#waiting.delete(key)
      this.#bytes -= sizeOf(entry.write)
      this.#running.set(key, entry)
      // It never rejects, and whoever waits for it waits for `idle`.
      void this.#run(key, entry)
    }
  }

  async #run(key: string, entry: Entry): Promise<void> {
    try {
      await this.#write(key, entry.write)
      this.#failuresInRow = 0
      this.#running.delete(key)
      if (entry.write.kind !== 'delete') entry.write.done?.()
    } catch (error) {
      this.#running.delete(key)
      this.#retry(key, entry, error)
    }
    this.#pump()
    if (this.size > 0) return
    for (const resolve of this.#idle) resolve()
    this.#idle.clear()
  }

  async #write(key: string, write: ArchiveWrite): Promise<void> {
    const { archive } = this.#options
    if (write.kind === 'delete') await archive.delete(key)
    else if (write.kind === 'put' || !(await archive.has(key))) await archive.put(key, write.object)
  }

  #retry(key: string, { write, attempts }: Entry, error: unknown): void {
    if (this.#isClosed) return
    const isOutage = error instanceof S3Error && error.isOutage
    const final = !isOutage && attempts + 1 >= maxAttempts
    this.#options.failed(key, error, final)
    if (!final && !this.#waiting.has(key)) this.#wait(key, { write, attempts: isOutage ? attempts : attempts + 1 })
    this.#rest()
  }

  #rest(): void {
    if (this.#pause !== undefined) return
    const { firstMs, longestMs } = this.#options.pauses
    const pauseMs = Math.min(firstMs * 2 ** this.#failuresInRow, longestMs)
    this.#failuresInRow += 1
    this.#pause = setTimeout(
      () => {
        this.#pause = undefined
        this.#pump()
      },
      pauseMs * (0.75 + Math.random() / 2),
    )
    // What waits here does not keep a process alive.
    this.#pause.unref()
  }
}

/** A key and what surrounds it cost something too. */
const sizeOf = (write: ArchiveWrite | undefined): number =>
  write === undefined ? 0 : 512 + (write.kind === 'delete' ? 0 : write.object.bytes.byteLength)
