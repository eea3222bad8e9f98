import { describe, expect, it } from 'vitest'
import { createFlights, untilAborted } from '../../src/cache/flights.ts'

describe('flights', () => {
  it('does the same work once, and tells who joined', async () => {
    const flights = createFlights<number>()
    const { promise, resolve } = Promise.withResolvers<number>()
    let started = 0
    const work = () => {
      started++
      return promise
    }
    const all = [flights.share('a', work), flights.share('a', work), flights.share('b', work)]
    expect(flights.size).toBe(2)
    resolve(7)
    expect(await Promise.all(all)).toEqual([
      { value: 7, joined: false },
      { value: 7, joined: true },
      { value: 7, joined: false },
    ])
    expect(started).toBe(2)
    expect(flights.size).toBe(0)
  })

  it('F-20: gives the same error to everybody, and starts afresh after it', async () => {
    const flights = createFlights<string>()
    const failure = new Error('upstream is down')
    const all = await Promise.allSettled(
      Array.from({ length: 5 }, () => flights.share('a', () => Promise.reject(failure))),
    )
    expect(all.map(result => result.status === 'rejected' && result.reason === failure)).toEqual(Array(5).fill(true))
    expect(await flights.share('a', async () => 'again')).toEqual({ value: 'again', joined: false })
  })

  it('makes a rejection of what is thrown at once', async () => {
    const flights = createFlights<string>()
    const work = (): Promise<string> => {
      throw new Error('at once')
    }
    await expect(flights.share('a', work)).rejects.toThrow('at once')
    expect(flights.size).toBe(0)
  })

  it('F-17: goes on for the others when the one who started it leaves', async () => {
    const flights = createFlights<string>()
    const { promise, resolve } = Promise.withResolvers<string>()
    const leaver = new AbortController()
    const leaving = flights.share('a', () => promise, leaver.signal)
    const staying = flights.share('a', () => promise)
    leaver.abort(new Error('gone'))
    await expect(leaving).rejects.toThrow('gone')
    resolve('done')
    expect(await staying).toEqual({ value: 'done', joined: true })
  })

  it('F-18, F-43: fails quietly when all who waited have left', async () => {
    const flights = createFlights<string>()
    const { promise, reject } = Promise.withResolvers<string>()
    const leaver = new AbortController()
    const leaving = flights.share('a', () => promise, leaver.signal)
    leaver.abort(new Error('gone'))
    await expect(leaving).rejects.toThrow('gone')
    reject(new Error('nobody is there to hear it'))
    await expect(promise).rejects.toThrow('nobody')
    expect(flights.size).toBe(0)
  })

  it('starts nothing for a client that has already left', async () => {
    const flights = createFlights<string>()
    let started = false
    const asked = flights.share('a', async () => String((started = true)), AbortSignal.abort(new Error('gone')))
    await expect(asked).rejects.toThrow('gone')
    expect(started).toBe(false)
  })
})

describe('waiting', () => {
  it('leaves no listener on the signal of a client that stays', async () => {
    const { signal } = new AbortController()
    let listeners = 0
    signal.addEventListener = () => void listeners++
    signal.removeEventListener = () => void listeners--
    expect(await untilAborted(Promise.resolve(1), signal)).toBe(1)
    expect(listeners).toBe(0)
  })
})
