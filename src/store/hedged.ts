import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves after so many milliseconds; rejects when the signal fires. */
export type Wait = (ms: number, signal: AbortSignal) => Promise<void>

export const systemWait: Wait = (ms, signal) => sleep(ms, undefined, { signal })

export type HedgeOptions<T> = {
  /** After this long without an answer the same is asked once more, on another connection. */
  readonly againMs: number
  /** After this long in all both are given up. */
  readonly giveUpMs: number
  readonly signal: AbortSignal | undefined
  readonly wait: Wait
  /** Told when it is asked once more. */
  readonly onAgain: () => void
  /** Lets go of an answer that came second. */
  readonly discard: (answer: T) => void
  /** What it rejects with when it is given up. */
  readonly late: () => Error
}

/**
 * Asks, and asks once more when no answer comes for a while: whichever answers first counts, the other is ended (F-48). One connection that is stuck costs
 * `againMs`, not the whole time-out. Rejects as the attempts do, when none is left that could still answer.
 */
export async function hedged<T>(attempt: (signal: AbortSignal) => Promise<T>, options: HedgeOptions<T>): Promise<T> {
  const race = new Race(attempt, options)
  try {
    race.start()
    void race.watch()
    return await race.result
  } finally {
    race.end()
  }
}

class Race<T> {
  readonly #attempt: (signal: AbortSignal) => Promise<T>
  readonly #options: HedgeOptions<T>
  readonly #outcome = Promise.withResolvers<T>()
  readonly #running = new Set<AbortController>()
  readonly #over = new AbortController()

  constructor(attempt: (signal: AbortSignal) => Promise<T>, options: HedgeOptions<T>) {
    this.#attempt = attempt
    this.#options = options
  }

  get result(): Promise<T> {
    return this.#outcome.promise
  }

  start(): void {
    const own = new AbortController()
    const { signal } = this.#options
    this.#running.add(own)
    this.#attempt(signal ? AbortSignal.any([signal, own.signal]) : own.signal).then(
      answer => {
        this.#running.delete(own)
        if (this.#over.signal.aborted) return this.#options.discard(answer)
        this.#outcome.resolve(answer)
        this.end()
      },
      (error: unknown) => {
        this.#running.delete(own)
        if (this.#running.size === 0) this.#outcome.reject(error)
      },
    )
  }

  /** Never rejects. */
  async watch(): Promise<void> {
    const { againMs, giveUpMs, wait, onAgain, late } = this.#options
    try {
      await wait(againMs, this.#over.signal)
      if (this.#running.size === 0) return
      onAgain()
      this.start()
      await wait(giveUpMs - againMs, this.#over.signal)
      this.#outcome.reject(late())
      // At once: what answers from now on is let go.
      this.end()
    } catch {
      // It was decided before.
    }
  }

  /** Ends what still runs. */
  end(): void {
    this.#over.abort()
    for (const own of this.#running) own.abort()
  }
}
