import type { RunningFill } from '../../cache/running-fill.ts'

type Seen = { readonly received: number; readonly at: number; readonly rate: number }

/** Closer looks than this are two viewers, not a measurement. */
const leastMs = 250
/** How much a new look weighs: enough to follow, not enough to flicker. */
const weight = 0.4

/** How fast downloads run: bytes per second between looks, smoothed; at the first look the mean since the start. Forgets what has ended. */
export class FillRates {
  #seen = new Map<string, Seen>()

  update(fills: readonly RunningFill[], now: number): ReadonlyMap<string, number> {
    this.#seen = new Map(fills.map(fill => [fill.digest, this.#look(fill, now)]))
    return new Map([...this.#seen].map(([digest, { rate }]) => [digest, rate]))
  }

  #look({ digest, received, startedAt }: RunningFill, now: number): Seen {
    const before = this.#seen.get(digest)
    if (before === undefined || received < before.received)
      return { received, at: now, rate: received / Math.max(1, (now - startedAt) / 1000) }
    if (now - before.at < leastMs) return before
    const rate = (received - before.received) / ((now - before.at) / 1000)
    return { received, at: now, rate: before.rate + weight * (rate - before.rate) }
  }
}
