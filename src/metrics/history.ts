import type { Clock } from '../clock.ts'

/** Bytes on both sides of Layover. */
export type LinkBytes = { readonly servedBytes: number; readonly upstreamBytes: number }

/** What went over both links in one stretch of time. */
export type TrafficSlot = LinkBytes & {
  /** Epoch milliseconds of its beginning. */
  readonly at: number
  /** How much of it has passed: all of it but for the last one. */
  readonly seconds: number
  /** False: this process did not run then, so nobody knows. */
  readonly known: boolean
}

/** Stretches of equal length, without gaps, oldest first; the last one is not over yet. */
export type TrafficPeriod = { readonly slotMs: number; readonly slots: readonly TrafficSlot[] }

export type TrafficHistoryOptions = {
  readonly clock: Clock
  /** The counters since the start. */
  readonly read: () => LinkBytes
  /** How often the counters are looked at; at most as long as a stretch of the shorter period. */
  readonly everyMs?: number
}

/**
 * Traffic of the last hour and of the last day, from the counters that `/metrics` shows: two rings of fixed size in this process, empty when it
 * starts. Prometheus is where history is kept for longer.
 */
export class TrafficHistory {
  readonly #options: TrafficHistoryOptions
  readonly #startedAt: number
  readonly #hour = new Ring(30_000, 120)
  readonly #day = new Ring(600_000, 144)
  readonly #timer: NodeJS.Timeout
  #before: LinkBytes

  constructor(options: TrafficHistoryOptions) {
    this.#options = options
    this.#startedAt = options.clock.now()
    this.#before = options.read()
    // Fixed and rare: what it costs does not grow with traffic.
    this.#timer = setInterval(() => this.sample(), options.everyMs ?? 10_000).unref()
  }

  /** Takes what the counters have grown by into the stretch that runs now. */
  sample(): void {
    const now = this.#options.clock.now()
    const read = this.#options.read()
    const grown = {
      servedBytes: Math.max(0, read.servedBytes - this.#before.servedBytes),
      upstreamBytes: Math.max(0, read.upstreamBytes - this.#before.upstreamBytes),
    }
    this.#before = read
    this.#hour.add(now, grown)
    this.#day.add(now, grown)
  }

  /** 120 stretches of 30 seconds. */
  hour(): TrafficPeriod {
    return this.#hour.view(this.#options.clock.now(), this.#startedAt)
  }

  /** 144 stretches of 10 minutes. */
  day(): TrafficPeriod {
    return this.#day.view(this.#options.clock.now(), this.#startedAt)
  }

  close(): void {
    clearInterval(this.#timer)
  }
}

/** The last `count` stretches of `slotMs`, numbered from the epoch; a place is reused when its number comes round. */
class Ring {
  readonly #slotMs: number
  readonly #count: number
  readonly #numbers: Float64Array
  readonly #served: Float64Array
  readonly #upstream: Float64Array

  constructor(slotMs: number, count: number) {
    this.#slotMs = slotMs
    this.#count = count
    this.#numbers = new Float64Array(count).fill(-1)
    this.#served = new Float64Array(count)
    this.#upstream = new Float64Array(count)
  }

  add(now: number, { servedBytes, upstreamBytes }: LinkBytes): void {
    const number = Math.floor(now / this.#slotMs)
    const place = number % this.#count
    if (this.#numbers[place] !== number) {
      this.#numbers[place] = number
      this.#served[place] = 0
      this.#upstream[place] = 0
    }
    this.#served[place] = (this.#served[place] ?? 0) + servedBytes
    this.#upstream[place] = (this.#upstream[place] ?? 0) + upstreamBytes
  }

  view(now: number, startedAt: number): TrafficPeriod {
    const last = Math.floor(now / this.#slotMs)
    const first = last - this.#count + 1
    return {
      slotMs: this.#slotMs,
      slots: Array.from({ length: this.#count }, (_, index) => this.#slot(first + index, now, startedAt)),
    }
  }

  #slot(number: number, now: number, startedAt: number): TrafficSlot {
    const at = number * this.#slotMs
    const place = number % this.#count
    const here = this.#numbers[place] === number
    return {
      at,
      seconds: Math.min(this.#slotMs, now - at) / 1000,
      servedBytes: here ? (this.#served[place] ?? 0) : 0,
      upstreamBytes: here ? (this.#upstream[place] ?? 0) : 0,
      known: at + this.#slotMs > startedAt,
    }
  }
}
