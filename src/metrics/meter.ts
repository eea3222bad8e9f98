import type { Clock } from '../clock.ts'
import type { LinkPrice, PricingConfig } from '../config/config.ts'
import { startOf, type Totals } from '../store/totals.ts'
import { type Amounts, nameOf, type UpstreamAmount } from './amounts.ts'
import { Ledger } from './ledger.ts'
import { marginalPrice } from './prices.ts'
import { type SavingsStats, savingsOf, type UpstreamSavings } from './savings.ts'

export type MeterOptions = {
  readonly totals: Totals
  /** The counters since the start of this process. */
  readonly read: () => Amounts
  readonly pricing: PricingConfig | undefined
  readonly upstreams: readonly string[]
  readonly clock: Clock
  /** Told when the totals cannot be kept. */
  readonly failed: (error: unknown) => void
}

/** What the counters of savings show: of this process, and of all that share the totals. */
export type MeterReading = {
  readonly currency: string
  readonly upstreams: readonly {
    readonly upstream: string
    /** `none`: it has no price. */
    readonly link: string
    readonly servedBytes: number
    readonly fetchedBytes: number
    readonly grossMoney: number
    /** Below 0 when more was fetched than was asked for. */
    readonly pullsAvoided: number
  }[]
  /** By cause; without prices there are none. */
  readonly costs: Readonly<Record<CostCause, number>> | undefined
  readonly lifetime: {
    readonly upstreams: readonly Pick<UpstreamSavings, 'upstream' | 'servedBytes' | 'upstreamBytes' | 'pullsAvoided'>[]
  }
}

export const costCauses = ['upstream', 's3_requests', 's3_storage', 'cross_zone'] as const
export type CostCause = (typeof costCauses)[number]

const dayMs = 86_400_000
/** The last year of four digits: periods are compared as text. */
const latest = Date.UTC(9999, 11, 31)

/** What was saved: the counters of this process as money, and the totals that outlive it. */
export class SavingsMeter {
  readonly #options: MeterOptions
  readonly #ledger: Ledger
  readonly #startedAt: number
  readonly #money = new Map<string, number>()
  readonly #costs = { upstream: 0, s3_requests: 0, s3_storage: 0, cross_zone: 0 }
  /** What has been turned into money. */
  #priced: Amounts = new Map()
  #storedUntil: number

  constructor(options: MeterOptions) {
    const { totals, read, clock, failed } = options
    this.#options = options
    this.#startedAt = clock.now()
    this.#storedUntil = this.#startedAt
    this.#ledger = new Ledger({ totals, read, clock, failed })
  }

  /** Reads what was counted before this process. Never rejects. */
  start(): Promise<void> {
    return this.#ledger.flush()
  }

  /** Of the whole time. */
  report(): SavingsStats {
    const { began = this.#startedAt, entries } = this.#ledger.months()
    return this.#savings(entries, entries, began)
  }

  /** Since a moment, or since the hour or the day that holds it: finer figures are not kept. Rejects when the store cannot tell. */
  async since(moment: number): Promise<SavingsStats> {
    const since = Math.min(Math.max(0, moment), latest)
    const age = this.#options.clock.now() - since
    const span = age <= 3 * dayMs ? 'hours' : age <= 400 * dayMs ? 'days' : 'months'
    const entries = await this.#ledger.since(span, since)
    const { began = this.#startedAt, entries: months } = this.#ledger.months()
    const first = startOf(new Date(since).toISOString().slice(0, { hours: 13, days: 10, months: 7 }[span]))
    return this.#savings(entries, months, Math.max(first, began))
  }

  /** The figures of now, for the metrics. */
  reading(): MeterReading {
    const { pricing, upstreams } = this.#options
    const now = this.#options.read()
    this.#price(now)
    return {
      currency: pricing?.currency ?? 'USD',
      upstreams: upstreams.map(upstream => ({
        upstream,
        link: pricing?.links[upstream]?.name ?? 'none',
        servedBytes: now.get(nameOf('served', upstream)) ?? 0,
        fetchedBytes: now.get(nameOf('fetched', upstream)) ?? 0,
        grossMoney: this.#money.get(upstream) ?? 0,
        pullsAvoided: (now.get(nameOf('pulls', upstream)) ?? 0) - (now.get(nameOf('asked', upstream)) ?? 0),
      })),
      costs: pricing && this.#costs,
      lifetime: { upstreams: this.#lifetime() },
    }
  }

  /** Writes what is new to the store. Never rejects. */
  flush(): Promise<void> {
    return this.#ledger.flush()
  }

  /** Writes the last of it. Whoever counts has stopped; the store is still open. */
  close(): Promise<void> {
    return this.#ledger.close()
  }

  #lifetime(): MeterReading['lifetime']['upstreams'] {
    const sums = this.#ledger.lifetime()
    return this.#options.upstreams.map(upstream => {
      const of = (amount: UpstreamAmount): number => sums.get(nameOf(amount, upstream)) ?? 0
      const pullsAvoided = of('pulls') - of('asked')
      return { upstream, servedBytes: of('served'), upstreamBytes: of('fetched'), pullsAvoided }
    })
  }

  #savings(
    entries: Parameters<typeof savingsOf>[0]['entries'],
    months: Parameters<typeof savingsOf>[0]['months'],
    since: number,
  ): SavingsStats {
    const { pricing, upstreams, clock } = this.#options
    return savingsOf({ entries, months, pricing, upstreams, since, until: clock.now() })
  }

  /** Turns what has come since the last time into money, at the price that the volume of this month makes. */
  #price(now: Amounts): void {
    const { pricing, clock } = this.#options
    if (!pricing) return
    const grown = (name: string): number => Math.max(0, (now.get(name) ?? 0) - (this.#priced.get(name) ?? 0))
    const volumes = this.#ledger.thisMonth()
    for (const price of new Set(Object.values(pricing.links))) {
      const sharing = this.#options.upstreams.filter(upstream => pricing.links[upstream] === price)
      for (const amount of ['served', 'fetched'] as const) {
        const names = sharing.map(upstream => nameOf(amount, upstream))
        const rate = rateOf(
          price,
          total(names, grown),
          total(names, name => volumes.get(name) ?? 0),
        )
        for (const [index, upstream] of sharing.entries()) {
          const money = grown(names[index] ?? '') * rate
          if (amount === 'fetched') this.#costs.upstream += money
          else this.#money.set(upstream, (this.#money.get(upstream) ?? 0) + money)
        }
      }
    }
    const { bucket, crossZone } = pricing
    if (bucket)
      this.#costs.s3_requests +=
        (grown('s3_writes') * bucket.writesPer1000 + grown('s3_reads') * bucket.readsPer1000) / 1000
    if (crossZone) {
      const bytes = grown('peer_bytes')
      this.#costs.cross_zone += bytes * rateOf(crossZone, bytes, volumes.get('peer_bytes') ?? 0)
    }
    if (bucket) this.#priceStorage(bucket.perGiBMonth, clock.now())
    this.#priced = new Map(now)
  }

  /** What lies in the bucket costs by the hour, and is counted by one of the replicas. */
  #priceStorage(perGiBMonth: number, now: number): void {
    const hours = Math.max(0, now - this.#storedUntil) / 3_600_000
    this.#storedUntil = now
    if (!this.#ledger.leads) return
    const bytes = this.#ledger.lifetime().get('s3_bytes') ?? 0
    this.#costs.s3_storage += ((bytes * hours) / 730 / 1024 ** 3) * perGiBMonth
  }
}

/** `volume` includes `bytes`. */
function rateOf(price: LinkPrice, bytes: number, volume: number): number {
  return marginalPrice(price, Math.max(0, volume - bytes), bytes)
}

function total<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((sum, item) => sum + of(item), 0)
}
