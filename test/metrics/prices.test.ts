import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { LinkPrice } from '../../src/config/config.ts'
import { linkPresets } from '../../src/config/price-presets.ts'
import { costOf, marginalPrice } from '../../src/metrics/prices.ts'

const gibibyte = 1024 ** 3
const tebibyte = 1024 * gibibyte
const preset = (name: string): LinkPrice => {
  const found = linkPresets.get(name)
  if (!found) throw new Error(name)
  return found
}

describe('what a month costs', () => {
  test.each([
    ['aws-nat', 100 * gibibyte, 4.5],
    ['aws-cross-region', 100 * gibibyte, 2],
    ['aws-internet', 0, 0],
    ['aws-internet', 100 * gibibyte, 0],
    ['aws-internet', 101 * gibibyte, 0.09],
    // What is free counts towards the first tier.
    ['aws-internet', 10 * tebibyte, (10_240 - 100) * 0.09],
    ['aws-internet', 11 * tebibyte, (10_240 - 100) * 0.09 + 1024 * 0.085],
    ['aws-internet', 200 * tebibyte, 10_140 * 0.09 + 40_960 * 0.085 + 102_400 * 0.07 + 51_200 * 0.05],
    ['aws-interface-endpoint', tebibyte, 10.24],
    ['aws-interface-endpoint', 6 * 1024 * tebibyte, 1024 * 1024 * (0.01 + 4 * 0.006 + 0.004)],
  ])('%s, %d bytes', (name, bytes, money) => {
    expect(costOf(preset(name), bytes)).toBeCloseTo(money, 6)
  })

  test('free bytes beyond the first tier are free at the price of none', () => {
    const price: LinkPrice = {
      name: 'custom',
      freeBytes: 5 * gibibyte,
      tiers: [
        { fromBytes: 0, perGiB: 1 },
        { fromBytes: 2 * gibibyte, perGiB: 0.5 },
      ],
    }
    expect(costOf(price, 4 * gibibyte)).toBe(0)
    expect(costOf(price, 7 * gibibyte)).toBe(1)
  })

  test('in whatever parts bytes come, together they cost what they cost at once', () => {
    const part = fc.nat({ max: 40 * 1024 })
    fc.assert(
      fc.property(fc.constantFrom(...linkPresets.values()), fc.array(part, { maxLength: 12 }), (price, parts) => {
        let volume = 0
        let money = 0
        for (const bytes of parts.map(size => size * gibibyte)) {
          money += bytes * marginalPrice(price, volume, bytes)
          volume += bytes
        }
        expect(money).toBeCloseTo(costOf(price, volume), 4)
      }),
    )
  })
})
