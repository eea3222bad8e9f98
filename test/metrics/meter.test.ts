import { expect, onTestFinished, test } from 'vitest'
import type { PricingConfig } from '../../src/config/config.ts'
import { linkPresets } from '../../src/config/price-presets.ts'
import { hoursAt } from '../../src/metrics/amounts.ts'
import { SavingsMeter } from '../../src/metrics/meter.ts'
import type { Totals } from '../../src/store/totals.ts'
import { FakeClock } from '../fakes/clock.ts'
import { opened } from '../store/opened.ts'

const gibibyte = 1024 ** 3
const hour = 3_600_000
const internet = linkPresets.get('aws-internet')
if (!internet) throw new Error('no preset')

async function room({ pricing, leads = true }: { pricing?: PricingConfig; leads?: boolean } = {}) {
  const { totals: stored } = await opened()
  const totals: Totals = {
    add: batch => stored.add(batch),
    read: (...args) => stored.read(...args),
    leads: () => Promise.resolve(leads),
  }
  const clock = new FakeClock()
  const counters = new Map<string, number>()
  const meter = new SavingsMeter({
    totals,
    read: () => counters,
    pricing,
    upstreams: ['docker.io', 'ghcr.io'],
    clock,
    failed: () => undefined,
  })
  onTestFinished(() => meter.close())
  /** What was there before this process. */
  const before = (amounts: Readonly<Record<string, number>>): Promise<void> =>
    stored.add({ number: 1, began: 5, at: clock.now(), amounts: new Map(Object.entries(amounts)) })
  return { meter, clock, counters, before }
}

test('the metrics tell of this process, and of all time only for upstreams that are configured', async () => {
  const { meter, counters, before } = await room()
  await before({ 'served docker.io': 100, 'fetched docker.io': 40, 'pulls docker.io': 5, 'served gone.example': 9 })
  await meter.start()
  counters.set('served docker.io', 7).set('asked docker.io', 1)
  const { upstreams, lifetime, costs } = meter.reading()
  expect(upstreams[0]).toMatchObject({
    upstream: 'docker.io',
    link: 'none',
    servedBytes: 7,
    fetchedBytes: 0,
    pullsAvoided: -1,
  })
  expect(lifetime.upstreams).toEqual([
    { upstream: 'docker.io', servedBytes: 107, upstreamBytes: 40, pullsAvoided: 4 },
    { upstream: 'ghcr.io', servedBytes: 0, upstreamBytes: 0, pullsAvoided: 0 },
  ])
  expect(costs).toBeUndefined()
  const report = meter.report()
  expect([report.since, report.servedBytes, report.upstreams.map(({ upstream }) => upstream)]).toEqual([
    5,
    116,
    ['docker.io', 'ghcr.io', 'gone.example'],
  ])
})

test('money of this process goes on in the tiers where the month has come to', async () => {
  const pricing = { currency: 'USD', links: { 'docker.io': internet, 'ghcr.io': internet } }
  const { meter, clock, counters, before } = await room({ pricing })
  await before({ 'served docker.io': 90 * gibibyte })
  await meter.start()
  const gross = (): readonly number[] => meter.reading().upstreams.map(({ grossMoney }) => grossMoney)
  counters.set('served ghcr.io', 10 * gibibyte)
  expect(gross()).toEqual([0, 0])
  counters.set('served ghcr.io', 20 * gibibyte).set('served docker.io', 10 * gibibyte)
  expect(gross()).toEqual([expect.closeTo(0.9, 9), expect.closeTo(0.9, 9)])
  // The next month begins with what is free.
  await meter.flush()
  clock.advance(40 * 24 * hour)
  counters.set('served ghcr.io', 50 * gibibyte)
  expect(gross()).toEqual([expect.closeTo(0.9, 9), expect.closeTo(0.9, 9)])
})

test('what lies in the bucket is counted by the hour, by one of the replicas', async () => {
  const pricing = { currency: 'USD', links: {}, bucket: { writesPer1000: 5, readsPer1000: 1, perGiBMonth: 0.73 } }
  for (const [leads, storage] of [
    [true, 1],
    [false, 0],
  ] as const) {
    const { meter, clock, counters, before } = await room({ pricing, leads })
    await before({ s3_bytes: 100 * gibibyte, s3_byte_hours: 100 * gibibyte * hoursAt(clock.now()) })
    await meter.start()
    meter.reading()
    clock.advance(10 * hour)
    counters.set('s3_writes', 100).set('s3_reads', 500)
    const { costs } = meter.reading()
    expect(costs?.s3_storage).toBeCloseTo(storage, 9)
    expect(costs?.s3_requests).toBe(1)
    // The report is of all replicas, whoever is asked.
    expect(meter.report().money).toBeUndefined()
  }
})

test('what was saved since a time that is not yet is nothing, however late it is', async () => {
  const { meter, clock, before } = await room()
  await before({ 'served docker.io': 100 })
  await meter.start()
  for (const moment of [clock.now() + 24 * hour, Date.UTC(10_000, 0), 8.64e15]) {
    const { servedBytes, since } = await meter.since(moment)
    expect([servedBytes, since >= clock.now()]).toEqual([0, true])
  }
})
