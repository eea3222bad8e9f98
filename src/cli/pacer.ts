import { setTimeout as delay } from 'node:timers/promises'

/** Resolves when `size` more bytes may pass. */
export type Pacer = (size: number) => Promise<void>

// A timer on a busy machine is late by this much at times: the rate must hold all the same.
const burstMs = 5

/** One rate for all who share it, as on a link; whoever asks first goes first. Absent: no limit. A function is asked each time: the rate may change. */
export function createPacer(bytesPerSecond: number | (() => number) | undefined): Pacer {
  if (bytesPerSecond === undefined) return () => Promise.resolve()
  const rate = typeof bytesPerSecond === 'number' ? () => bytesPerSecond : bytesPerSecond
  let free = performance.now()
  return async size => {
    free = Math.max(free, performance.now() - burstMs) + (size / rate()) * 1000
    const wait = free - performance.now()
    if (wait >= 1) await delay(wait)
  }
}
