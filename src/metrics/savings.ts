import type { LinkPrice, PricingConfig } from '../config/config.ts'
import type { TotalsEntry } from '../store/totals.ts'
import { type CacheAmount, partsOf, storedByteHours, type UpstreamAmount } from './amounts.ts'
import { costOf } from './prices.ts'

/** What the cache saved since its totals began. Every figure is arithmetic on counters that anyone can check; docs/savings.md shows it. */
export type SavingsReport = {
  /** Epoch milliseconds at which the totals began: the first start on these stores, or of this process where nothing keeps them. */
  readonly since: number
  /** ISO 4217, as configured: `USD`. */
  readonly currency: string
  /** Body bytes that clients got. */
  readonly servedBytes: number
  /** Body bytes that came over the links to upstreams: wasted, repeated and prefetched ones included. */
  readonly upstreamBytes: number
  /** `servedBytes − upstreamBytes`; below 0 when more was fetched than anyone asked for. */
  readonly savedBytes: number
  /** Manifest requests that did not become a pull at upstream, which is what registries limit. */
  readonly pullsAvoided: number
  /** Undefined: no link has a price. */
  readonly money: Money | undefined
  readonly upstreams: readonly UpstreamSavings[]
}

/** In `currency`; not rounded. */
export type Money = {
  /** What the saved bytes would have cost. Below 0 when more was fetched than served. */
  readonly gross: number
  /** What Layover itself causes: requests to the bucket, bytes stored there, traffic between zones. */
  readonly cost: number
  /** `gross − cost`. */
  readonly net: number
}

export type UpstreamSavings = {
  readonly upstream: string
  /** The configured link, such as `aws-nat`; undefined: this upstream has no price. */
  readonly link: string | undefined
  readonly servedBytes: number
  readonly upstreamBytes: number
  readonly savedBytes: number
  readonly pullsAvoided: number
  readonly gross: number | undefined
}

/** The same of a period, with what `layover stats` shows beside it. */
export type SavingsStats = Omit<SavingsReport, 'upstreams'> & {
  /** Epoch milliseconds of the end. */
  readonly until: number
  readonly upstreams: readonly UpstreamStats[]
}

export type UpstreamStats = UpstreamSavings & {
  /** Answers with content. */
  readonly requests: number
  /** Those of them that began no download. */
  readonly hits: number
}

export type SavingsParts = {
  /** What to tell of, by month or in finer periods. */
  readonly entries: readonly TotalsEntry[]
  /** All there is, by month: prices depend on the volume of a month. */
  readonly months: readonly TotalsEntry[]
  readonly pricing: PricingConfig | undefined
  /** The configured ones; those that totals remember are told of too. */
  readonly upstreams: readonly string[]
  readonly since: number
  readonly until: number
}

const hoursPerMonth = 730
const gibibyte = 1024 ** 3

/** Arithmetic on counters, nothing else: docs/savings.md works an example. */
export function savingsOf({ entries, months, pricing, upstreams, since, until }: SavingsParts): SavingsStats {
  const amounts = amountsByUpstream(entries)
  const rates = monthlyRates(months, pricing)
  const names = [...new Set([...upstreams, ...amounts.keys()])]
  const rows = names.map(upstream => rowOf(upstream, amounts.get(upstream) ?? [], pricing?.links[upstream], rates))
  const isPriced = pricing !== undefined && Object.keys(pricing.links).length > 0
  const gross = sum(rows.map(row => row.gross ?? 0))
  const cost = pricing ? sum(Object.values(ownCosts({ entries, months, pricing, since, until }))) : 0
  const total = (key: 'servedBytes' | 'upstreamBytes' | 'savedBytes' | 'pullsAvoided'): number =>
    sum(rows.map(row => row[key]))
  return {
    since,
    until,
    currency: pricing?.currency ?? 'USD',
    servedBytes: total('servedBytes'),
    upstreamBytes: total('upstreamBytes'),
    savedBytes: total('savedBytes'),
    pullsAvoided: total('pullsAvoided'),
    money: isPriced ? { gross, cost, net: gross - cost } : undefined,
    upstreams: rows,
  }
}

export type OwnCosts = {
  readonly s3Requests: number
  readonly s3Storage: number
  readonly crossZone: number
}

/** What Layover itself causes. What has no price costs nothing here. */
export function ownCosts({
  entries,
  months,
  pricing: { bucket, crossZone },
  since,
  until,
}: Pick<SavingsParts, 'entries' | 'months' | 'since' | 'until'> & { readonly pricing: PricingConfig }): OwnCosts {
  const of = cacheSums(entries)
  const all = cacheSums(months)
  const before = { bytes: all.s3_bytes - of.s3_bytes, byteHours: all.s3_byte_hours - of.s3_byte_hours }
  const stored = storedByteHours({ bytes: all.s3_bytes, byteHours: all.s3_byte_hours }, until)
  // What was stored before the period cost something before it, too.
  const byteHours = stored - storedByteHours(before, since)
  return {
    s3Requests: bucket ? (of.s3_writes * bucket.writesPer1000 + of.s3_reads * bucket.readsPer1000) / 1000 : 0,
    s3Storage: bucket ? (Math.max(0, byteHours) / gibibyte / hoursPerMonth) * bucket.perGiBMonth : 0,
    crossZone: crossZone ? costByMonth(entries, months, crossZone) : 0,
  }
}

type Entry = { readonly month: string; readonly amount: UpstreamAmount; readonly value: number }

function amountsByUpstream(entries: readonly TotalsEntry[]): ReadonlyMap<string, readonly Entry[]> {
  const found = new Map<string, Entry[]>()
  for (const { period, name, amount: value } of entries) {
    const parts = partsOf(name)
    if (!parts) continue
    const list = found.get(parts.upstream) ?? []
    list.push({ month: monthOf(period), amount: parts.amount, value })
    found.set(parts.upstream, list)
  }
  return found
}

function rowOf(upstream: string, entries: readonly Entry[], price: LinkPrice | undefined, rates: Rates): UpstreamStats {
  const of = (amount: UpstreamAmount): number =>
    sum(entries.filter(entry => entry.amount === amount).map(({ value }) => value))
  const [servedBytes, upstreamBytes] = [of('served'), of('fetched')]
  const money = (amount: 'served' | 'fetched'): number =>
    sum(
      entries
        .filter(entry => entry.amount === amount)
        .map(({ month, value }) => (price ? value * rates(price, month, amount) : 0)),
    )
  return {
    upstream,
    link: price?.name,
    servedBytes,
    upstreamBytes,
    savedBytes: servedBytes - upstreamBytes,
    pullsAvoided: of('pulls') - of('asked'),
    gross: price ? money('served') - money('fetched') : undefined,
    requests: of('requests'),
    hits: of('hits'),
  }
}

/** The average price of a byte in a month. */
type Rates = (price: LinkPrice, month: string, amount: 'served' | 'fetched') => number

/** Upstreams with the same price share its tiers and its free allowance: it is one link, and one line of the bill. */
function monthlyRates(months: readonly TotalsEntry[], pricing: PricingConfig | undefined): Rates {
  const volumes = new Map<LinkPrice, Map<string, number>>()
  for (const { period, name, amount: value } of months) {
    const parts = partsOf(name)
    const price = parts && pricing?.links[parts.upstream]
    if (!price) continue
    const key = `${parts.amount} ${period}`
    const volume = volumes.get(price) ?? new Map<string, number>()
    volume.set(key, (volume.get(key) ?? 0) + value)
    volumes.set(price, volume)
  }
  return (price, month, amount) => {
    const volume = volumes.get(price)?.get(`${amount} ${month}`) ?? 0
    return volume > 0 ? costOf(price, volume) / volume : 0
  }
}

function costByMonth(entries: readonly TotalsEntry[], months: readonly TotalsEntry[], price: LinkPrice): number {
  const volumes = new Map(months.filter(({ name }) => name === 'peer_bytes').map(entry => [entry.period, entry.amount]))
  const peers = entries.filter(({ name }) => name === 'peer_bytes')
  return sum(
    peers.map(({ period, amount }) => {
      const volume = volumes.get(monthOf(period)) ?? 0
      return volume > 0 ? (amount * costOf(price, volume)) / volume : 0
    }),
  )
}

function cacheSums(entries: readonly TotalsEntry[]): Readonly<Record<CacheAmount, number>> {
  const sums = { s3_writes: 0, s3_reads: 0, s3_bytes: 0, s3_byte_hours: 0, peer_bytes: 0 }
  for (const { name, amount } of entries) if (isCacheAmount(name, sums)) sums[name] += amount
  return sums
}

const isCacheAmount = (name: string, sums: Readonly<Record<CacheAmount, number>>): name is CacheAmount =>
  Object.hasOwn(sums, name)
const monthOf = (period: string): string => period.slice(0, 7)
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
