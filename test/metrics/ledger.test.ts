import { expect, onTestFinished, test } from 'vitest'
import { Ledger } from '../../src/metrics/ledger.ts'
import type { Totals, TotalsBatch } from '../../src/store/totals.ts'
import { FakeClock } from '../fakes/clock.ts'
import { opened } from '../store/opened.ts'

/** Totals that can be away, and that can do what they are asked without saying so. */
class Flaky implements Totals {
  state: 'up' | 'away' | 'mute' = 'up'
  readonly batches: TotalsBatch[] = []
  readonly #totals: Totals

  constructor(totals: Totals) {
    this.#totals = totals
  }

  async add(batch: TotalsBatch): Promise<void> {
    if (this.state === 'away') throw new Error('away')
    this.batches.push(batch)
    await this.#totals.add(batch)
    if (this.state === 'mute') throw new Error('no answer')
  }

  async read(...args: Parameters<Totals['read']>): ReturnType<Totals['read']> {
    if (this.state !== 'up') throw new Error('away')
    return this.#totals.read(...args)
  }

  leads(): Promise<boolean> {
    return Promise.resolve(this.state === 'up')
  }
}

async function room() {
  const stores = await opened()
  const totals = new Flaky(stores.totals)
  const counters = new Map<string, number>()
  const clock = new FakeClock()
  const failures: unknown[] = []
  const start = (): Ledger => {
    const read = () => counters
    const ledger = new Ledger({ totals, read, clock, failed: error => failures.push(error), everyMs: 3_600_000 })
    onTestFinished(() => ledger.close())
    return ledger
  }
  const month = (ledger: Ledger): Readonly<Record<string, number>> =>
    Object.fromEntries(ledger.months().entries.map(({ name, amount }) => [name, amount]))
  return { totals, counters, clock, failures, start, month, stored: stores.totals }
}

test('tells what is stored and what is not yet, and writes only what is new', async () => {
  const { totals, counters, start, month } = await room()
  const ledger = start()
  counters.set('a', 5).set('b', 0)
  expect(month(ledger)).toEqual({ a: 5 })
  await ledger.flush()
  expect(month(ledger)).toEqual({ a: 5 })
  counters.set('a', 7).set('b', 1)
  expect(month(ledger)).toEqual({ a: 7, b: 1 })
  await ledger.flush()
  await ledger.flush()
  expect(totals.batches.map(({ amounts }) => Object.fromEntries(amounts))).toEqual([{ a: 5 }, { a: 2, b: 1 }])
})

test('F-59: while the store is away everything is kept, told once, and written when it is back', async () => {
  const { totals, counters, failures, start, month, stored } = await room()
  const ledger = start()
  totals.state = 'away'
  for (let step = 1; step <= 5; step++) {
    counters.set('a', step)
    await ledger.flush()
    expect(month(ledger)).toEqual({ a: step })
  }
  expect(failures).toHaveLength(1)
  totals.state = 'up'
  await ledger.flush()
  expect((await stored.read('months')).entries.map(({ amount }) => amount)).toEqual([5])
  expect(month(ledger)).toEqual({ a: 5 })
  totals.state = 'away'
  await ledger.flush()
  expect(failures).toHaveLength(2)
})

test('what was written without an answer is given again as it was, and counts once', async () => {
  const { totals, counters, start, month, stored } = await room()
  const ledger = start()
  totals.state = 'mute'
  counters.set('a', 3)
  await ledger.flush()
  counters.set('a', 4)
  await ledger.flush()
  totals.state = 'up'
  await ledger.flush()
  expect(totals.batches.map(({ number, amounts }) => [number, amounts.get('a')])).toEqual([
    [1, 3],
    [1, 3],
    [1, 3],
    [2, 1],
  ])
  expect((await stored.read('months')).entries.map(({ amount }) => amount)).toEqual([4])
  expect(month(ledger)).toEqual({ a: 4 })
})

test('the end writes the last of it, and the next process goes on from there', async () => {
  const { counters, clock, start, month } = await room()
  const first = start()
  await first.flush()
  counters.set('a', 9)
  const began = clock.now()
  clock.advance(60_000)
  await first.close()
  counters.set('a', 0)
  const second = start()
  await second.flush()
  counters.set('a', 2)
  expect(month(second)).toEqual({ a: 11 })
  expect(second.months().began).toBe(began)
})

test('a period has what was stored in it, and what is new', async () => {
  const { counters, clock, start } = await room()
  const ledger = start()
  counters.set('a', 1)
  await ledger.flush()
  clock.advance(3_600_000)
  counters.set('a', 3)
  const entries = await ledger.since('hours', clock.now() - 3_600_000)
  expect(entries.map(({ amount }) => amount)).toEqual([1, 2])
  expect((await ledger.since('hours', clock.now())).map(({ amount }) => amount)).toEqual([2])
})

test('sums of all months and of this one have what is stored, what waits and what is new', async () => {
  const { totals, counters, clock, start } = await room()
  const ledger = start()
  counters.set('a', 1)
  await ledger.flush()
  clock.advance(32 * 24 * 3_600_000)
  expect([ledger.lifetime().get('a'), ledger.thisMonth().get('a')]).toEqual([1, undefined])
  totals.state = 'away'
  counters.set('a', 3)
  await ledger.flush()
  counters.set('a', 7)
  expect([ledger.lifetime().get('a'), ledger.thisMonth().get('a')]).toEqual([7, 6])
  totals.state = 'up'
  await ledger.flush()
  expect([ledger.lifetime().get('a'), ledger.thisMonth().get('a')]).toEqual([7, 6])
})
