import { describe, expect, test } from 'vitest'
import { Breaker, type BreakerState, type Ticket } from '../../src/upstream/breaker.ts'
import { Limiter } from '../../src/upstream/limiter.ts'
import { fakeClock } from './setup.ts'

function setUp(): {
  breaker: Breaker
  clock: ReturnType<typeof fakeClock>
  states: BreakerState[]
  enter: () => Ticket
  fail: (times: number) => void
} {
  const clock = fakeClock()
  const states: BreakerState[] = []
  // random 0.5 is no jitter.
  const breaker = new Breaker({ clock, onState: state => states.push(state), random: () => 0.5 })
  const enter = (): Ticket => {
    const ticket = breaker.enter()
    if ('blockedForMs' in ticket) throw new Error(`blocked for ${ticket.blockedForMs}`)
    return ticket
  }
  const fail = (times: number): void => {
    for (let call = 0; call < times; call++) enter().failure('timeout')
  }
  return { breaker, clock, states, enter, fail }
}

describe('the breaker', () => {
  test('opens after five failures in a row, and a success in between starts again', () => {
    const { breaker, enter, fail } = setUp()
    fail(4)
    enter().success()
    fail(4)
    expect(breaker.state()).toBe('closed')
    fail(1)
    expect(breaker.state()).toBe('open')
    expect(breaker.enter()).toEqual({ blockedForMs: 1000, reason: 'unavailable' })
  })

  test('F-28: lets one probe through, closes on its success', () => {
    const { breaker, clock, states, enter, fail } = setUp()
    fail(5)
    clock.advance(1000)
    expect(breaker.state()).toBe('half-open')
    const probe = enter()
    expect(breaker.enter()).toMatchObject({ reason: 'unavailable' })
    probe.success()
    expect(breaker.state()).toBe('closed')
    expect(states).toEqual(['open', 'half-open', 'closed'])
  })

  test('doubles the pause with every failed probe, up to a minute', () => {
    const { breaker, clock, enter, fail } = setUp()
    fail(5)
    const pauses: number[] = []
    for (let probe = 0; probe < 8; probe++) {
      const blocked = breaker.enter()
      const pause = 'blockedForMs' in blocked ? blocked.blockedForMs : 0
      pauses.push(pause)
      clock.advance(pause)
      enter().failure('connect')
    }
    expect(pauses).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000])
  })

  test('a probe whose caller leaves gives the next one a chance', () => {
    const { clock, enter, fail } = setUp()
    fail(5)
    clock.advance(1000)
    enter().abandon()
    expect(() => enter().success()).not.toThrow()
  })

  test('calls that were under way when it opened do not lengthen the pause', () => {
    const { breaker, enter } = setUp()
    const running = Array.from({ length: 20 }, () => enter())
    for (const ticket of running) ticket.failure('timeout')
    expect(breaker.enter()).toEqual({ blockedForMs: 1000, reason: 'unavailable' })
  })

  test('P-102: a limit blocks until then, at most five minutes; without a time 2 s and more each time', () => {
    const { breaker, clock } = setUp()
    breaker.block('rateLimited', 3_600_000)
    expect(breaker.enter()).toEqual({ blockedForMs: 300_000, reason: 'rateLimited' })
    clock.advance(300_000)
    expect(breaker.state()).toBe('closed')
    const other = setUp()
    other.breaker.block('rateLimited', undefined)
    expect(other.breaker.enter()).toEqual({ blockedForMs: 2000, reason: 'rateLimited' })
    other.clock.advance(2000)
    other.breaker.block('rateLimited', undefined)
    expect(other.breaker.enter()).toEqual({ blockedForMs: 4000, reason: 'rateLimited' })
  })

  test('says since when it fails and with what', () => {
    const { breaker, clock, enter, fail } = setUp()
    const start = clock.now()
    fail(1)
    clock.advance(500)
    fail(1)
    expect(breaker.health()).toEqual({ unreachableSince: start, blockedUntil: undefined, lastError: 'timeout' })
    enter().success()
    expect(breaker.health().unreachableSince).toBeUndefined()
  })
})

describe('the limiter', () => {
  test('admits in order, background last, and a slot that is given back twice counts once', async () => {
    const limiter = new Limiter(1)
    const order: string[] = []
    const first = await limiter.acquire()
    const join = async (name: string, background: boolean): Promise<void> => {
      const release = await limiter.acquire({ background })
      order.push(name)
      release()
      release()
    }
    const all = [join('background', true), join('one', false), join('two', false)]
    first()
    await Promise.all(all)
    expect(order).toEqual(['one', 'two', 'background'])
    const again = await limiter.acquire()
    const waiting = join('late', false)
    expect(order).toHaveLength(3)
    again()
    await waiting
  })

  test('who leaves the queue does not keep the slot', async () => {
    const limiter = new Limiter(1)
    const first = await limiter.acquire()
    const controller = new AbortController()
    const reason = new Error('left')
    const leaving = limiter.acquire({ signal: controller.signal })
    controller.abort(reason)
    await expect(leaving).rejects.toBe(reason)
    first()
    const next = await limiter.acquire()
    next()
    await expect(limiter.acquire({ signal: controller.signal })).rejects.toBe(reason)
  })
})
