/**
 * When things were last used, gathered in memory and written in batches: a hit costs no write.
 * What is lost by a crash is a second of the order in which things are evicted.
 */
export class Touches {
  readonly #pending = new Map<string, number>()
  readonly #write: (used: ReadonlyMap<string, number>) => void
  readonly #failed: (error: unknown) => void
  #timer: NodeJS.Timeout | undefined

  constructor(write: (used: ReadonlyMap<string, number>) => void, failed: (error: unknown) => void) {
    this.#write = write
    this.#failed = failed
  }

  note(digest: string, now: number): void {
    this.#pending.set(digest, now)
    this.#timer ??= setTimeout(() => this.flush(), 1000).unref()
  }

  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#pending.size === 0) return
    try {
      this.#write(this.#pending)
    } catch (error) {
      this.#failed(error)
    }
    this.#pending.clear()
  }
}
