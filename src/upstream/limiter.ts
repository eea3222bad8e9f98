type Waiter = { readonly admit: () => void }

/** Gives a slot back. Safe to call twice. */
export type Release = () => void

/** At most `slots` at a time; who waits in the background is admitted only when nobody else waits. */
export class Limiter {
  #free: number
  readonly #foreground = new Set<Waiter>()
  readonly #background = new Set<Waiter>()

  constructor(slots: number) {
    this.#free = slots
  }

  /** Resolves when there is a slot, or rejects with the signal's reason. */
  async acquire(
    options: { readonly background?: boolean; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Release> {
    options.signal?.throwIfAborted()
    if (this.#free > 0) this.#free--
    else await this.#wait(options.background === true ? this.#background : this.#foreground, options.signal)
    let isHeld = true
    return () => {
      if (isHeld) this.#release()
      isHeld = false
    }
  }

  #wait(queue: Set<Waiter>, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        queue.delete(waiter)
        reject(signal?.reason)
      }
      const waiter: Waiter = {
        admit: () => {
          queue.delete(waiter)
          signal?.removeEventListener('abort', leave)
          resolve()
        },
      }
      queue.add(waiter)
      signal?.addEventListener('abort', leave, { once: true })
    })
  }

  #release(): void {
    const [next] = this.#foreground.size > 0 ? this.#foreground : this.#background
    if (next === undefined) this.#free++
    else next.admit()
  }
}
