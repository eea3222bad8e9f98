import { describe, expect, it } from 'vitest'
import { hedged, type Wait } from '../../src/store/hedged.ts'

/** Attempts and waits that settle when the test says so. */
function inHand() {
  const attempts: { resolve(answer: string): void; reject(error: Error): void; readonly signal: AbortSignal }[] = []
  const waits: { readonly ms: number; pass(): void }[] = []
  const discarded: string[] = []
  const wait: Wait = (ms, signal) =>
    new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(new Error('decided')), { once: true })
      waits.push({ ms, pass: resolve })
    })
  const left = new AbortController()
  let again = 0
  const result = hedged(
    signal => {
      const { promise, resolve, reject } = Promise.withResolvers<string>()
      attempts.push({ resolve, reject, signal })
      signal.addEventListener('abort', () => reject(new Error('ended')), { once: true })
      return promise
    },
    {
      againMs: 2,
      giveUpMs: 5,
      signal: left.signal,
      wait,
      onAgain: () => (again += 1),
      discard: answer => void discarded.push(answer),
      late: () => new Error('late'),
    },
  )
  result.catch(() => undefined)
  const passed = async (index: number): Promise<void> => {
    await expect.poll(() => waits.length).toBeGreaterThan(index)
    waits[index]?.pass()
  }
  const asked = (count: number): Promise<void> => expect.poll(() => attempts.length).toBe(count)
  return { result, attempts, waits, discarded, left, again: () => again, passed, asked }
}

describe('F-48: asking once more', () => {
  it('does not happen when the answer comes in time, and the answer stays usable', async () => {
    const { result, attempts, again } = inHand()
    attempts[0]?.resolve('first')
    expect(await result).toBe('first')
    expect([attempts.length, again(), attempts[0]?.signal.aborted]).toEqual([1, 0, false])
  })

  it('takes the second answer when the first is stuck, and ends the first', async () => {
    const { result, attempts, passed, asked, waits } = inHand()
    await passed(0)
    await asked(2)
    attempts[1]?.resolve('second')
    expect(await result).toBe('second')
    expect(attempts.map(({ signal }) => signal.aborted)).toEqual([true, false])
    expect(waits.map(({ ms }) => ms)).toEqual([2, 3])
  })

  it('takes the first answer when it comes after all, and ends the second', async () => {
    const { result, attempts, passed, asked } = inHand()
    await passed(0)
    await asked(2)
    attempts[0]?.resolve('first')
    expect(await result).toBe('first')
    expect(attempts.map(({ signal }) => signal.aborted)).toEqual([false, true])
  })

  it('lets go of an answer that came at the same moment', async () => {
    const { result, attempts, passed, asked, discarded } = inHand()
    await passed(0)
    await asked(2)
    attempts[0]?.resolve('first')
    attempts[1]?.resolve('second')
    expect(await result).toBe('first')
    await expect.poll(() => discarded).toEqual(['second'])
  })

  it('fails at once when the only attempt fails, and waits for the second when the first of two does', async () => {
    const alone = inHand()
    alone.attempts[0]?.reject(new Error('refused'))
    await expect(alone.result).rejects.toThrow('refused')
    const { result, attempts, passed, asked } = inHand()
    await passed(0)
    await asked(2)
    attempts[0]?.reject(new Error('broke'))
    attempts[1]?.resolve('second')
    expect(await result).toBe('second')
  })

  it('gives up both after a while', async () => {
    const { result, attempts, passed, asked } = inHand()
    await passed(0)
    await asked(2)
    await passed(1)
    await expect(result).rejects.toThrow('late')
    expect(attempts.every(({ signal }) => signal.aborted)).toBe(true)
  })

  it('lets go of an answer that came at the moment both were given up', async () => {
    const { result, attempts, waits, passed, asked, discarded } = inHand()
    await passed(0)
    await asked(2)
    await expect.poll(() => waits.length).toBe(2)
    waits[1]?.pass()
    attempts[1]?.resolve('second')
    await expect(result).rejects.toThrow('late')
    await expect.poll(() => discarded).toEqual(['second'])
  })

  it('ends with who asked', async () => {
    const { result, attempts, left } = inHand()
    left.abort()
    await expect(result).rejects.toThrow('ended')
    expect(attempts[0]?.signal.aborted).toBe(true)
  })
})
