import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  ageOf,
  backOffMs,
  isFresh,
  mayServeStale,
  momentOf,
  momentOfRecord,
  nextQuestionAfterMs,
  staleWarning,
} from '../../src/cache/freshness.ts'
import { FakeClock } from '../fakes/clock.ts'

describe('freshness', () => {
  it('P-47: ends exactly when the time to live is over; 0 asks every time', () => {
    expect(isFresh(59_999, 60_000)).toBe(true)
    expect(isFresh(60_000, 60_000)).toBe(false)
    expect(isFresh(0, 0)).toBe(false)
  })

  it('F-27: is extended up to and including maxStale when upstream cannot be asked; 0 means not at all', () => {
    expect(mayServeStale(1000, 1000)).toBe(true)
    expect(mayServeStale(1001, 1000)).toBe(false)
    expect(mayServeStale(1, 0)).toBe(false)
  })

  it('F-42: is measured on the clock that does not jump', () => {
    const clock = new FakeClock()
    const moment = momentOf(clock)
    clock.jump(86_400_000)
    clock.advance(1000)
    expect(ageOf(moment, clock)).toBe(1000)
    clock.jump(-2 * 86_400_000)
    expect(ageOf(moment, clock)).toBe(1000)
  })

  it('of a stored record counts from when upstream confirmed it', () => {
    const clock = new FakeClock()
    const moment = momentOfRecord(clock.now() - 5000, 60_000, clock)
    expect(ageOf(moment, clock)).toBe(5000)
    clock.advance(1)
    expect(ageOf(moment, clock)).toBe(5001)
  })

  it('F-42, T-60: of a record from the future is over, and not longer than that', () => {
    const clock = new FakeClock()
    const moment = momentOfRecord(clock.now() + 86_400_000, 60_000, clock)
    expect(ageOf(moment, clock)).toBe(60_000)
    expect(isFresh(ageOf(moment, clock), 60_000)).toBe(false)
    expect(mayServeStale(ageOf(moment, clock), 3_600_000)).toBe(true)
  })
})

describe('the next question after a failure', () => {
  it('F-28: is spread, never sooner than about the back-off and never later than about a minute', () => {
    const retryAfter = fc.option(fc.double({ min: 0, max: 1e12, noNaN: true }), { nil: undefined })
    const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
    fc.assert(
      fc.property(retryAfter, random, (ms, chance) => {
        const wait = nextQuestionAfterMs(ms, chance)
        expect(wait).toBeGreaterThanOrEqual(backOffMs * 0.9)
        expect(wait).toBeLessThanOrEqual(66_000)
      }),
    )
    expect(nextQuestionAfterMs(undefined, 0)).not.toBe(nextQuestionAfterMs(undefined, 0.9))
  })
})

describe('the warning of a stale answer', () => {
  it('P-103: has the exact form that clients parse, whatever is in it', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (upstream, why) => {
        const value = staleWarning(upstream, why, 1234)
        expect(value).toMatch(/^299 - "(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"$/)
        expect(value.length).toBeLessThanOrEqual(4096)
      }),
    )
    expect(staleWarning('docker.io', 'http_503', 61_400)).toBe(
      '299 - "stale: docker.io cannot be asked (http_503), last checked 61 s ago"',
    )
  })
})
