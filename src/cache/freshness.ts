import type { Clock } from '../clock.ts'
import { formatWarning } from '../oci/warning.ts'

/** How long a failed question is not asked again for one tag or list; the old answer is served meanwhile (F-28). */
export const backOffMs = 10_000
/** No upstream can keep us from asking about one tag for longer than this. Its breaker may still wait longer. */
const maxBackOffMs = 60_000

/**
 * A point in time on the clock that never jumps.
 * Ages are measured on it, so that a corrected wall clock neither revives nor kills what is cached (F-42).
 */
export type Moment = number & { readonly __moment: true }

export function momentOf(clock: Clock): Moment {
  return clock.monotonic() as Moment
}

/** When a question was put: what comes back is at least as new as that, however long it took (RFC 9111, section 4.2.3). */
export type Asked = { readonly wall: number; readonly moment: Moment }

export function askedNow(clock: Clock): Asked {
  return { wall: clock.now(), moment: momentOf(clock) }
}

/** Clocks of machines that are kept in time differ by less: what another replica wrote just now is not from the future. */
const skewMs = 2_000

/**
 * When a record read from a store was last confirmed, on the monotonic clock.
 * `checkedAt` in the future means that a clock jumped: its age is unknown, and it counts as having just expired.
 */
export function momentOfRecord(checkedAt: number, ttlMs: number, clock: Clock): Moment {
  const ageMs = clock.now() - checkedAt
  return (clock.monotonic() - (ageMs >= -skewMs ? Math.max(0, ageMs) : ttlMs)) as Moment
}

/** Milliseconds since `moment`. */
export function ageOf(moment: Moment, clock: Clock): number {
  return Math.max(0, clock.monotonic() - moment)
}

/** Fresh: served without asking upstream. A time to live of 0 asks every time (P-47). */
export function isFresh(ageMs: number, ttlMs: number): boolean {
  return ageMs < ttlMs
}

/** When upstream cannot be asked, the last answer is good for `maxStaleMs` from when upstream confirmed it (F-27). */
export function mayServeStale(ageMs: number, maxStaleMs: number): boolean {
  return ageMs <= maxStaleMs
}

/**
 * How long to wait before the next question after a failure: what upstream asked for within bounds, at least {@link backOffMs},
 * spread by up to a fifth so that the tags of one image do not all come back in the same instant (F-28). `random` is in [0, 1).
 */
export function nextQuestionAfterMs(retryAfterMs: number | undefined, random: number): number {
  const wanted = Math.min(Math.max(retryAfterMs ?? 0, backOffMs), maxBackOffMs)
  return wanted * (0.9 + random * 0.2)
}

/**
 * The warning on an answer that upstream did not confirm (P-103). `why` is a reason word such as `timeout`;
 * `gone` means that upstream was asked, and no longer has it.
 */
export function staleWarning(upstream: string, why: string, ageMs: number): string {
  const trouble = why === 'gone' ? `${upstream} no longer has this` : `${upstream} cannot be asked (${why})`
  return formatWarning(`stale: ${trouble}, last checked ${Math.round(ageMs / 1000)} s ago`)
}
