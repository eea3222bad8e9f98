import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'

/** How long upstream's 404 is believed. */
const absenceMs = 5_000
const rememberedAbsences = 10_000

/**
 * What upstream said a moment ago that it does not have: 404 and 410 only, for seconds, dropped by a success (P-100).
 * In memory, bounded, and never shared, so that nobody can make an absence last.
 */
export interface Absences {
  has(key: string): boolean
  add(key: string): void
  remove(key: string): void
}

export function createAbsences(clock: Clock): Absences {
  const until = new LRUCache<string, number>({ max: rememberedAbsences })
  return {
    has: key => (until.get(key) ?? Number.NEGATIVE_INFINITY) > clock.monotonic(),
    add: key => void until.set(key, clock.monotonic() + absenceMs),
    remove: key => void until.delete(key),
  }
}
