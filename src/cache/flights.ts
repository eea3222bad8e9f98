/**
 * The same work asked twice at the same time is done once. Everybody who asked gets the same value or the same error (F-20).
 *
 * The work belongs to the flight, not to who started it: `signal` ends the waiting of one caller, never the work of the others (F-17). Work
 * that nobody has waited for during some seconds is told to stop, so that clients who ask and leave cannot pile up questions (T-35).
 * A flight is forgotten when it settles or is told to stop, so the map holds no more keys than there is work under way.
 */
export interface Flights<T> {
  /**
   * Starts `work`, or waits for the one that runs under this key. `joined` says which. Rejects with `signal.reason` when the signal fires first.
   * Whoever waits without a signal waits to the end.
   */
  share(key: string, work: (abandoned: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<Shared<T>>
  /** How many are in the air. */
  readonly size: number
}

export type Shared<T> = { readonly value: T; readonly joined: boolean }

type Flight<T> = {
  readonly landing: Promise<T>
  readonly controller: AbortController
  waiting: number
  timer: NodeJS.Timeout | undefined
}

/** A client that comes back, or another, still finds the work under way. */
const abandonedMs = 3_000

export function createFlights<T>(): Flights<T> {
  const running = new Map<string, Flight<T>>()

  const start = (key: string, work: (abandoned: AbortSignal) => Promise<T>): Flight<T> => {
    const controller = new AbortController()
    // `work` may throw before its first await: the wrapper makes that a rejection that everybody sees.
    const landing = (async () => work(controller.signal))().finally(() => {
      clearTimeout(flight.timer)
      forget(key, flight)
    })
    const flight: Flight<T> = { landing, controller, waiting: 0, timer: undefined }
    // All callers may have left by the time it fails; that is nobody's unhandled rejection.
    landing.catch(() => undefined)
    running.set(key, flight)
    return flight
  }

  const forget = (key: string, flight: Flight<T>): void => {
    if (running.get(key) === flight) running.delete(key)
  }

  const abandon = (key: string, flight: Flight<T>): void => {
    // Forgotten first: who comes now starts afresh.
    forget(key, flight)
    flight.controller.abort(new Error('nobody waits any more'))
  }

  return {
    async share(key, work, signal) {
      signal?.throwIfAborted()
      const existing = running.get(key)
      const flight = existing ?? start(key, work)
      flight.waiting++
      clearTimeout(flight.timer)
      try {
        return { value: await untilAborted(flight.landing, signal), joined: existing !== undefined }
      } finally {
        flight.waiting--
        if (flight.waiting === 0 && running.get(key) === flight)
          flight.timer = setTimeout(() => abandon(key, flight), abandonedMs).unref()
      }
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
