import { describe, expect, onTestFinished, test } from 'vitest'
import { TrafficHistory } from '../../src/metrics/history.ts'
import { FakeClock } from '../fakes/clock.ts'

const minute = 60_000

function createHistory() {
  const clock = new FakeClock()
  const counters = { servedBytes: 0, upstreamBytes: 0 }
  const history = new TrafficHistory({ clock, read: () => ({ ...counters }) })
  onTestFinished(() => history.close())
  const serve = (servedBytes: number, upstreamBytes = 0): void => {
    counters.servedBytes += servedBytes
    counters.upstreamBytes += upstreamBytes
    history.sample()
  }
  return { clock, history, serve }
}

describe('the history of traffic', () => {
  test('has stretches without gaps, the last of which is not over', () => {
    const { history, clock } = createHistory()
    clock.advance(10_000)
    const { slots, slotMs } = history.hour()
    expect([slots.length, slotMs]).toEqual([120, 30_000])
    expect(slots.every((slot, index) => index === 0 || slot.at === (slots[index - 1]?.at ?? 0) + slotMs)).toBe(true)
    expect(slots.at(-1)).toMatchObject({ at: Date.UTC(2026, 0, 1), seconds: 10 })
    expect(slots.at(-2)?.seconds).toBe(30)
    expect(history.day().slots).toHaveLength(144)
  })

  test('puts what the counters have grown by where it happened', () => {
    const { history, clock, serve } = createHistory()
    serve(100, 10)
    clock.advance(5 * minute)
    serve(50, 0)
    serve(1, 2)
    const { slots } = history.hour()
    expect(slots.at(-11)).toMatchObject({ servedBytes: 100, upstreamBytes: 10 })
    expect(slots.at(-1)).toMatchObject({ servedBytes: 51, upstreamBytes: 2 })
    expect(slots.reduce((sum, slot) => sum + slot.servedBytes, 0)).toBe(151)
  })

  test('forgets what is older, and nothing of it comes back when its place is used again', () => {
    const { history, clock, serve } = createHistory()
    serve(100)
    clock.advance(61 * minute)
    expect(history.hour().slots.some(slot => slot.servedBytes > 0)).toBe(false)
    expect(history.day().slots.reduce((sum, slot) => sum + slot.servedBytes, 0)).toBe(100)
    clock.advance(59 * minute)
    serve(1)
    expect(history.hour().slots.reduce((sum, slot) => sum + slot.servedBytes, 0)).toBe(1)
    clock.advance(25 * 60 * minute)
    expect(history.day().slots.some(slot => slot.servedBytes > 0)).toBe(false)
  })

  test('tells no traffic from not having run', () => {
    const { history, clock } = createHistory()
    clock.advance(15 * minute)
    const { slots } = history.hour()
    expect(slots.filter(slot => slot.known)).toHaveLength(31)
    expect(slots.findLastIndex(slot => !slot.known)).toBe(120 - 31 - 1)
  })

  test('F-42: a clock that is set back loses nothing that comes after', () => {
    const { history, clock, serve } = createHistory()
    serve(100)
    clock.jump(-10 * minute)
    serve(7)
    expect(history.hour().slots.at(-1)).toMatchObject({ servedBytes: 7 })
  })
})
