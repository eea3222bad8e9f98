import type { LinkPrice } from '../config/config.ts'

const gibibyte = 1024 ** 3

/** What `bytes` over one link cost in one calendar month. */
export function costOf({ freeBytes, tiers }: LinkPrice, bytes: number): number {
  return tiers.reduce((sum, { fromBytes, perGiB }, index) => {
    const from = Math.max(fromBytes, freeBytes)
    const end = Math.min(bytes, tiers[index + 1]?.fromBytes ?? bytes)
    return end > from ? sum + ((end - from) / gibibyte) * perGiB : sum
  }, 0)
}

/** What one more byte costs on average, after `before` bytes in the same month and together with `bytes` others. */
export function marginalPrice(price: LinkPrice, before: number, bytes: number): number {
  return bytes > 0 ? (costOf(price, before + bytes) - costOf(price, before)) / bytes : 0
}
