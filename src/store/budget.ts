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
/** Of what is announced, so much is taken and evicted for at a time, as the bytes come. */
export const announcedStep = 64 * 1024 * 1024

/** Bytes cannot be taken: neither by evicting nor otherwise. */
export class StorageFull extends Error {
  override readonly name = 'StorageFull'
  readonly code = 'STORAGE_FULL'
}

/**
 * Who may use how many bytes. Whether there is room for a download is decided before it begins; what must go for it goes as its bytes come, a step
 * ahead of them, so that a size that is only announced empties no cache (T-47). Reserved and published bytes together never exceed `maxBytes`, nor what
 * the disk takes.
 */
export class Budget {
  readonly #options: BudgetOptions
  readonly #turns = new Turns<'budget'>()
  #reserved = 0
  /** The part of the reservations that the disk does not know of yet. */
  #unwritten = 0
  /** What downloads that run have still to take, and nobody else may. */
  #promised = 0

  constructor(options: BudgetOptions) {
    this.#options = options
  }

  get reservedBytes(): number {
    return this.#reserved
  }

  get step(): number {
    return Math.max(smallestStep, Math.min(largestStep, Math.floor(this.#options.maxBytes / 64)))
  }

  /**
   * Takes room, evicting for the first step of it if need be. `undefined`: it cannot fit. `vouched` (default true): somebody else than who sends the
   * bytes says that there are so many, so the rest is kept free of others; else it is there as long as nobody takes it.
   */
  async reserve(
    bytes: number,
    { vouched = true }: { readonly vouched?: boolean } = {},
  ): Promise<Reservation | undefined> {
    const first = Math.min(bytes, announcedStep)
    const later = bytes - first
    const promised = vouched ? later : 0
    if (!(await this.#take(first, { later, promised }))) return undefined
    return new Reservation(first, {
      later,
      promised,
      take: (more, kept) => this.#take(more, { promised: -kept }),
      wrote: written => {
        this.#unwritten -= written
      },
      release: (reserved, unwritten) => {
        this.#reserved -= reserved
        this.#unwritten -= unwritten
      },
      forgo: kept => {
        this.#promised -= kept
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

  /** `later`: must fit too, without being taken. `promised`: by how much the promises change when it is taken. */
  #take(
    bytes: number,
    { later = 0, promised }: { readonly later?: number; readonly promised: number },
  ): Promise<boolean> {
    return this.#turns.run('budget', async () => {
      const writable = await this.#options.writable()
      const shortOfDisk = writable === undefined ? Number.NEGATIVE_INFINITY : this.#unwritten + bytes - writable
      // Nothing is evicted for what cannot fit in the end.
      const evictable = this.#options.published() - this.#options.inUse()
      const inTheEnd = this.#promised + Math.min(0, promised) + later
      if (Math.max(shortOfDisk, this.#shortOfBudget(bytes)) + inTheEnd > Math.max(0, evictable)) return false
      if (!(await this.#makeRoom(bytes, shortOfDisk))) return false
      this.#reserved += bytes
      this.#unwritten += bytes
      this.#promised += promised
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
  /** Expected beyond what is taken at first. */
  readonly later: number
  /** The part of that which nobody else may take. */
  readonly promised: number
  /** `kept`: so much of it was promised. */
  readonly take: (bytes: number, kept: number) => Promise<boolean>
  readonly wrote: (bytes: number) => void
  readonly release: (reserved: number, unwritten: number) => void
  /** Others may take what was promised. */
  readonly forgo: (kept: number) => void
  readonly step: number
}

/** Room that was taken for one file. Ends with `release`, which is safe to repeat. */
export class Reservation {
  readonly #account: Account
  #bytes: number
  #later: number
  #promised: number
  #written = 0
  #released = false

  constructor(bytes: number, account: Account) {
    this.#bytes = bytes
    this.#account = account
    this.#later = account.later
    this.#promised = account.promised
  }

  /** Makes it at least `bytes` big, a step more where there is room. False: there is none. */
  async growTo(bytes: number): Promise<boolean> {
    if (bytes <= this.#bytes) return true
    const needed = bytes - this.#bytes
    const step = this.#later > 0 ? Math.min(this.#later, announcedStep) : this.#account.step
    return (await this.#grow(Math.max(needed, step))) || (await this.#grow(needed))
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
    this.#account.forgo(this.#promised)
  }

  async #grow(bytes: number): Promise<boolean> {
    // Not told of twice, should it be released meanwhile.
    const kept = Math.min(this.#promised, bytes)
    this.#promised -= kept
    const isTaken = await this.#account.take(bytes, kept)
    if (isTaken && this.#released) this.#account.release(bytes, bytes)
    else if (isTaken) {
      this.#bytes += bytes
      this.#later = Math.max(0, this.#later - bytes)
    } else if (this.#released) this.#account.forgo(kept)
    else this.#promised += kept
    return isTaken && !this.#released
  }
}
