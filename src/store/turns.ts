/** Lets work on the same key happen one after the other, and work on different keys at the same time. */
export class Turns<Key> {
  readonly #last = new Map<Key, Promise<unknown>>()

  /** True while work on `key` runs or waits. */
  isBusy(key: Key): boolean {
    return this.#last.has(key)
  }

  /** Runs `work` when all earlier work on `key` is done, whether that succeeded or not. Gives what `work` gives. */
  run<Result>(key: Key, work: () => Promise<Result>): Promise<Result> {
    const earlier = this.#last.get(key)
    const mine = earlier === undefined ? work() : earlier.then(work, work)
    this.#last.set(key, mine)
    const leave = (): void => {
      if (this.#last.get(key) === mine) this.#last.delete(key)
    }
    mine.then(leave, leave)
    return mine
  }

  /** Resolves when nothing runs and nothing waits. */
  async idle(): Promise<void> {
    while (this.#last.size > 0) await Promise.allSettled(this.#last.values())
  }
}
