import type { EvictionReason } from '../log/observer.ts'
import { Turns } from './turns.ts'

export type BudgetOptions = {
  readonly maxBytes: number
  /** Bytes of everything that is published now. */
  readonly published: () => number
  /** Published bytes that cannot be evicted now, because someone reads them. */
  readonly inUse: () => number
  /** Removes the least recently used until about `bytes` are free; gives how many were freed, 0 when nothing is left to remove. */
  readonly evict: (bytes: number, reason: EvictionReason) => Promise<number>
  /** Bytes that the disk still takes; undefined: not known. */
  readonly writable: () => Promise<number | undefined>
}

/** Reservations grow in steps of this, so that a download of unknown size asks seldom. */
const largestStep = 16 * 1024 * 1024
const smallestStep = 64 * 1024

/** Bytes cannot be taken: neither by evicting nor otherwise. */
export class StorageFull extends Error {
  override readonly name = 'StorageFull'
  readonly code = 'STORAGE_FULL'
}

/**
 * Who may use how many bytes. Room is reserved before anything is downloaded; reserved and published bytes together never exceed
 * `maxBytes`, nor what the disk takes.
 */
export class Budget {
  readonly #options: BudgetOptions
  readonly #turns = new Turns<'budget'>()
  #reserved = 0
  /** The part of the reservations that the disk does not know of yet. */
  #unwritten = 0

  constructor(options: BudgetOptions) {
    this.#options = options
  }

  get reservedBytes(): number {
    return this.#reserved
  }

  get step(): number {
    return Math.max(smallestStep, Math.min(largestStep, Math.floor(this.#options.maxBytes / 64)))
  }

  /** Takes room, evicting for it if need be. `undefined`: it cannot fit. */
  async reserve(bytes: number): Promise<Reservation | undefined> {
    if (!(await this.#take(bytes))) return undefined
    return new Reservation(bytes, {
      take: more => this.#take(more),
      wrote: written => {
        this.#unwritten -= written
      },
      release: (reserved, unwritten) => {
        this.#reserved -= reserved
        this.#unwritten -= unwritten
      },
      step: this.step,
    })
  }

  /** Evicts down to the budget: after it was made smaller, or blobs were found that nobody had counted. */
  trim(): Promise<void> {
    return this.#turns.run('budget', async () => {
      await this.#makeRoom(0, 0)
    })
  }

  #take(bytes: number): Promise<boolean> {
    return this.#turns.run('budget', async () => {
      const writable = await this.#options.writable()
      const shortOfDisk = writable === undefined ? 0 : this.#unwritten + bytes - writable
      // Nothing is evicted for what cannot fit in the end.
      const evictable = this.#options.published() - this.#options.inUse()
      if (Math.max(shortOfDisk, this.#shortOfBudget(bytes)) > evictable) return false
      if (!(await this.#makeRoom(bytes, shortOfDisk))) return false
      this.#reserved += bytes
      this.#unwritten += bytes
      return true
    })
  }

  #shortOfBudget(bytes: number): number {
    return this.#options.published() + this.#reserved + bytes - this.#options.maxBytes
  }

  async #makeRoom(bytes: number, shortOfDisk: number): Promise<boolean> {
    let disk = shortOfDisk
    for (;;) {
      const overBudget = this.#shortOfBudget(bytes)
      const wanted = Math.max(disk, overBudget)
      if (wanted <= 0) return true
      const freed = await this.#options.evict(wanted, disk > overBudget ? 'disk' : 'budget')
      if (freed === 0) return false
      // Not asked again: some file systems tell of freed blocks late, and the whole cache would go meanwhile.
      disk -= freed
    }
  }
}

type Account = {
  readonly take: (bytes: number) => Promise<boolean>
  readonly wrote: (bytes: number) => void
  readonly release: (reserved: number, unwritten: number) => void
  readonly step: number
}

/** Room that was taken for one file. Ends with `release`, which is safe to repeat. */
export class Reservation {
  readonly #account: Account
  #bytes: number
  #written = 0
  #released = false

  constructor(bytes: number, account: Account) {
    this.#bytes = bytes
    this.#account = account
  }

  /** Makes it at least `bytes` big, a step more where there is room. False: there is none. */
  async growTo(bytes: number): Promise<boolean> {
    if (bytes <= this.#bytes) return true
    const needed = bytes - this.#bytes
    return (await this.#grow(Math.max(needed, this.#account.step))) || (await this.#grow(needed))
  }

  /** The file is `size` bytes long now. */
  wroteUpTo(size: number): void {
    if (this.#released || size <= this.#written) return
    this.#account.wrote(size - this.#written)
    this.#written = size
  }

  release(): void {
    if (this.#released) return
    this.#released = true
    this.#account.release(this.#bytes, this.#bytes - this.#written)
  }

  async #grow(bytes: number): Promise<boolean> {
    if (!(await this.#account.take(bytes))) return false
    if (this.#released) {
      this.#account.release(bytes, bytes)
      return false
    }
    this.#bytes += bytes
    return true
  }
}
