import { describe, expect, it } from 'vitest'
import type { Span, Totals, TotalsEntry } from '../../src/store/totals.ts'

const at = Date.UTC(2026, 10, 28, 16, 20)
const hour = 3_600_000
const day = 24 * hour

/** Opens the same totals again and again, as a process does that restarts, or its replicas. The clock of the store stands at `now`. */
export type OpenTotals = (now: () => number) => Promise<() => Promise<Totals>>

/** What every Totals must do. */
export function describeTotals(name: string, open: OpenTotals): void {
  const fresh = async (now = at): Promise<Totals> => (await open(() => now))()
  const amounts = (entries: Readonly<Record<string, number>>): ReadonlyMap<string, number> =>
    new Map(Object.entries(entries))
  const read = async (totals: Totals, span: Span, since?: number): Promise<readonly TotalsEntry[]> =>
    [...(await totals.read(span, since)).entries].sort((a, b) =>
      compare(`${a.period} ${a.name}`, `${b.period} ${b.name}`),
    )

  describe(`${name} as Totals`, () => {
    it('knows nothing at first', async () => {
      const totals = await fresh()
      expect(await totals.read('months')).toEqual({ began: undefined, entries: [] })
      expect(await read(totals, 'hours')).toEqual([])
    })

    it('adds up by hour, by day and by month in UTC, and remembers when it began', async () => {
      const totals = await fresh(at + hour)
      await totals.add({
        number: 1,
        began: at,
        at,
        amounts: amounts({ 'served docker.io': 10, 'fetched docker.io': 4 }),
      })
      await totals.add({ number: 2, began: at + hour, at: at + hour, amounts: amounts({ 'served docker.io': 5 }) })
      expect(await read(totals, 'months')).toEqual([
        { period: '2026-11', name: 'fetched docker.io', amount: 4 },
        { period: '2026-11', name: 'served docker.io', amount: 15 },
      ])
      expect(await read(totals, 'days')).toEqual([
        { period: '2026-11-28', name: 'fetched docker.io', amount: 4 },
        { period: '2026-11-28', name: 'served docker.io', amount: 15 },
      ])
      expect(await read(totals, 'hours')).toEqual([
        { period: '2026-11-28T16', name: 'fetched docker.io', amount: 4 },
        { period: '2026-11-28T16', name: 'served docker.io', amount: 10 },
        { period: '2026-11-28T17', name: 'served docker.io', amount: 5 },
      ])
      expect((await totals.read('months')).began).toBe(at)
    })

    it('gives the periods from the one on that holds a moment', async () => {
      const totals = await fresh(at)
      for (const [number, before] of [70 * day, 40 * day, 2 * day, day, 0].entries())
        await totals.add({ number: number + 1, began: at, at: at - before, amounts: amounts({ a: 1 }) })
      expect((await read(totals, 'days', at - day)).map(({ period }) => period)).toEqual(['2026-11-27', '2026-11-28'])
      expect((await read(totals, 'hours', at - day)).map(({ period }) => period)).toEqual([
        '2026-11-27T16',
        '2026-11-28T16',
      ])
      expect((await read(totals, 'days', at - 60 * day)).map(({ period }) => period)).toEqual([
        '2026-10-19',
        '2026-11-26',
        '2026-11-27',
        '2026-11-28',
      ])
      expect((await read(totals, 'months')).map(({ period, amount }) => [period, amount])).toEqual([
        ['2026-09', 1],
        ['2026-10', 1],
        ['2026-11', 3],
      ])
    })

    it('counts a batch once, however often it is given', async () => {
      const totals = await fresh()
      const batch = { number: 1, began: at, at, amounts: amounts({ a: 7 }) }
      await totals.add(batch)
      await totals.add(batch)
      await totals.add({ number: 2, began: at, at, amounts: amounts({ a: 1 }) })
      await totals.add(batch)
      expect(await read(totals, 'months')).toEqual([{ period: '2026-11', name: 'a', amount: 8 }])
    })

    it('keeps bytes exact where floating point still can, and halves', async () => {
      const totals = await fresh()
      const large = 2 ** 52
      await totals.add({ number: 1, began: at, at, amounts: amounts({ bytes: large, hours: 0.5 }) })
      await totals.add({ number: 2, began: at, at, amounts: amounts({ bytes: 1, hours: 0.25 }) })
      expect(await read(totals, 'months')).toEqual([
        { period: '2026-11', name: 'bytes', amount: large + 1 },
        { period: '2026-11', name: 'hours', amount: 0.75 },
      ])
    })

    it('outlives the process, which counts its batches from 1 again', async () => {
      const reopen = await open(() => at)
      const first = await reopen()
      await first.add({ number: 1, began: at, at, amounts: amounts({ a: 2 }) })
      await first.add({ number: 2, began: at, at, amounts: amounts({ a: 2 }) })
      const second = await reopen()
      await second.add({ number: 1, began: at + 1, at: at + 1, amounts: amounts({ a: 3 }) })
      expect(await read(second, 'months')).toEqual([{ period: '2026-11', name: 'a', amount: 7 }])
      expect((await second.read('months')).began).toBe(at)
    })

    it('has one that counts what is counted once', async () => {
      expect(await (await fresh()).leads()).toBe(true)
    })
  })
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
