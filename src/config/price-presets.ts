import type { BucketPrice, LinkPrice } from './config.ts'

const gibibyte = 1024 ** 3
const tebibyte = 1024 * gibibyte
const pebibyte = 1024 * tebibyte

/**
 * List prices of AWS in us-east-1, in USD per GB, which AWS counts as 2^30 bytes. docs/savings.md has the sources and says what is in them and what is not.
 * They are a start, not a bill: other regions and negotiated prices are written as numbers.
 */
export const linkPresets: ReadonlyMap<string, LinkPrice> = byName([
  { name: 'aws-nat', freeBytes: 0, tiers: [{ fromBytes: 0, perGiB: 0.045 }] },
  { name: 'aws-cross-region', freeBytes: 0, tiers: [{ fromBytes: 0, perGiB: 0.02 }] },
  {
    name: 'aws-internet',
    freeBytes: 100 * gibibyte,
    tiers: [
      { fromBytes: 0, perGiB: 0.09 },
      { fromBytes: 10 * tebibyte, perGiB: 0.085 },
      { fromBytes: 50 * tebibyte, perGiB: 0.07 },
      { fromBytes: 150 * tebibyte, perGiB: 0.05 },
    ],
  },
  {
    name: 'aws-interface-endpoint',
    freeBytes: 0,
    tiers: [
      { fromBytes: 0, perGiB: 0.01 },
      { fromBytes: pebibyte, perGiB: 0.006 },
      { fromBytes: 5 * pebibyte, perGiB: 0.004 },
    ],
  },
  // A cent on each side.
  { name: 'aws-cross-zone', freeBytes: 0, tiers: [{ fromBytes: 0, perGiB: 0.02 }] },
])

export const bucketPresets: ReadonlyMap<string, BucketPrice> = new Map([
  ['aws-s3', { writesPer1000: 0.005, readsPer1000: 0.0004, perGiBMonth: 0.023 }],
])

function byName(prices: readonly LinkPrice[]): ReadonlyMap<string, LinkPrice> {
  return new Map(prices.map(price => [price.name, price]))
}
