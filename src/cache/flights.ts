/**
 * The same work asked twice at the same time is done once. Everybody who asked gets the same value or the same error (F-20).
 *
 * The work belongs to the flight, not to who started it: `signal` ends the waiting of one caller, never the work (F-17).
 * A flight is forgotten when it settles, so the map holds no more keys than there is work under way.
 */
export interface Flights<T> {
  /** Starts `work`, or waits for the one that runs under this key. `joined` says which. Rejects with `signal.reason` when the signal fires first. */
  share(key: string, work: () => Promise<T>, signal?: AbortSignal): Promise<Shared<T>>
  /** How many are in the air. */
  readonly size: number
}

export type Shared<T> = { readonly value: T; readonly joined: boolean }

export function createFlights<T>(): Flights<T> {
  const running = new Map<string, Promise<T>>()

  const start = (key: string, work: () => Promise<T>): Promise<T> => {
    // `work` may throw before its first await: the wrapper makes that a rejection that everybody sees.
    const flight = (async () => work())().finally(() => running.delete(key))
    // All callers may have left by the time it fails; that is nobody's unhandled rejection.
    flight.catch(() => undefined)
    running.set(key, flight)
    return flight
  }

  return {
    async share(key, work, signal) {
      signal?.throwIfAborted()
      const existing = running.get(key)
      const value = await untilAborted(existing ?? start(key, work), signal)
      return { value, joined: existing !== undefined }
    },
    get size() {
      return running.size
    },
  }
}

/** Settles as `promise` does, or rejects with `signal.reason` as soon as the signal fires; the promise itself goes on. */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise
  signal.throwIfAborted()
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const leave = (): void => reject(signal.reason)
  signal.addEventListener('abort', leave, { once: true })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', leave)
  }
}
