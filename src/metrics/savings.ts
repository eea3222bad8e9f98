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
