import { describe, expect, test } from 'vitest'
import type { PricingConfig } from '../../src/config/config.ts'
import { bucketPresets, linkPresets } from '../../src/config/price-presets.ts'
import { hoursAt } from '../../src/metrics/amounts.ts'
import { type SavingsParts, savingsOf } from '../../src/metrics/savings.ts'

const gibibyte = 1024 ** 3
const nat = linkPresets.get('aws-nat')
const internet = linkPresets.get('aws-internet')
if (!nat || !internet) throw new Error('no presets')

const since = Date.UTC(2026, 9, 1)
const until = Date.UTC(2026, 10, 28)
const parts = (rest: Partial<SavingsParts>): SavingsParts => {
  const entries = rest.entries ?? []
  return { months: entries, pricing: undefined, upstreams: ['docker.io'], since, until, ...rest, entries }
}
const inMonth = (period: string, amounts: Readonly<Record<string, number>>) =>
  Object.entries(amounts).map(([name, amount]) => ({ period, name, amount }))

describe('savings', () => {
  test('the example of docs/savings.md', () => {
    const pricing: PricingConfig = {
      currency: 'USD',
      links: { 'docker.io': nat },
      crossZone: linkPresets.get('aws-cross-zone'),
      bucket: bucketPresets.get('aws-s3'),
    }
    const entries = [
      ...inMonth('2026-11', {
        'served docker.io': 1000 * gibibyte,
        'fetched docker.io': 40 * gibibyte,
        'pulls docker.io': 20_000,
        'asked docker.io': 300,
        'requests docker.io': 200_000,
        'hits docker.io': 198_000,
        s3_writes: 10_000,
        s3_reads: 50_000,
        // Uploaded at the begin of the month, so there for 27 days.
        s3_bytes: 40 * gibibyte,
        s3_byte_hours: 40 * gibibyte * hoursAt(Date.UTC(2026, 10, 1)),
        peer_bytes: 100 * gibibyte,
      }),
    ]
    const { money, savedBytes, pullsAvoided, upstreams } = savingsOf(parts({ entries, pricing }))
    expect([savedBytes, pullsAvoided]).toEqual([960 * gibibyte, 19_700])
    expect(money?.gross).toBeCloseTo(960 * 0.045, 9)
    const own = 0.05 + 0.02 + ((40 * 27 * 24) / 730) * 0.023 + 100 * 0.02
    expect(money?.cost).toBeCloseTo(own, 9)
    expect(money?.net).toBeCloseTo(960 * 0.045 - own, 9)
    expect(upstreams[0]).toMatchObject({ link: 'aws-nat', requests: 200_000, hits: 198_000 })
  })

  test('may be below zero, in bytes and in money: what was prefetched and never asked for counts', () => {
    const entries = inMonth('2026-11', {
      'served docker.io': gibibyte,
      'fetched docker.io': 3 * gibibyte,
      'asked docker.io': 2,
    })
    const { money, savedBytes, pullsAvoided } = savingsOf(
      parts({ entries, pricing: { currency: 'EUR', links: { 'docker.io': nat } } }),
    )
    expect([savedBytes, pullsAvoided]).toEqual([-2 * gibibyte, -2])
    expect(money?.net).toBeCloseTo(-0.09, 9)
  })

  test('tiers and free bytes begin anew each month, and upstreams on one link share them', () => {
    const entries = [
      ...inMonth('2026-10', { 'served docker.io': 150 * gibibyte, 'fetched docker.io': 90 * gibibyte }),
      ...inMonth('2026-11', { 'served docker.io': 150 * gibibyte, 'served ghcr.io': 50 * gibibyte }),
    ]
    const pricing = { currency: 'USD', links: { 'docker.io': internet, 'ghcr.io': internet } }
    const { money, upstreams } = savingsOf(parts({ entries, pricing, upstreams: ['docker.io', 'ghcr.io'] }))
    // October: 50 GiB beyond what is free, and nothing paid for 90. November: 100 of 200, a quarter of them for ghcr.io.
    expect(money?.gross).toBeCloseTo(50 * 0.09 + 100 * 0.09, 9)
    expect(upstreams.map(({ gross }) => gross)).toEqual([
      expect.closeTo(50 * 0.09 + 75 * 0.09, 9),
      expect.closeTo(25 * 0.09, 9),
    ])
  })

  test('a part of a month costs its share of that month', () => {
    const months = inMonth('2026-11', { 'served docker.io': 200 * gibibyte })
    const entries = inMonth('2026-11-28', { 'served docker.io': 20 * gibibyte })
    const pricing = { currency: 'USD', links: { 'docker.io': internet } }
    expect(savingsOf(parts({ entries, months, pricing })).money?.gross).toBeCloseTo(20 * 0.045, 9)
  })

  test('what lay in the bucket before a period costs something in it, for the time of it alone', () => {
    const pricing = {
      currency: 'USD',
      links: { 'docker.io': nat },
      bucket: { writesPer1000: 0, readsPer1000: 0, perGiBMonth: 1 },
    }
    const old = Date.UTC(2026, 9, 1)
    const months = inMonth('2026-10', { s3_bytes: 730 * gibibyte, s3_byte_hours: 730 * gibibyte * hoursAt(old) })
    const last = savingsOf(parts({ entries: [], months, pricing, since: until - 24 * 3_600_000 }))
    expect(last.money?.cost).toBeCloseTo(24, 6)
    const whole = savingsOf(parts({ entries: months, months, pricing, since: old, until: old + 48 * 3_600_000 }))
    expect(whole.money?.cost).toBeCloseTo(48, 6)
  })

  test('without prices there is no money; an upstream without one has none; one that is gone is told of', () => {
    const entries = inMonth('2026-11', { 'served docker.io': 5, 'served quay.io': 7, garbage: 1, 'odd name': 2 })
    expect(savingsOf(parts({ entries })).money).toBeUndefined()
    const { upstreams, servedBytes } = savingsOf(
      parts({ entries, pricing: { currency: 'USD', links: { 'docker.io': nat } }, upstreams: ['docker.io'] }),
    )
    expect(servedBytes).toBe(12)
    expect(upstreams.map(({ upstream, link, gross }) => [upstream, link, gross !== undefined])).toEqual([
      ['docker.io', 'aws-nat', true],
      ['quay.io', undefined, false],
    ])
  })
})
