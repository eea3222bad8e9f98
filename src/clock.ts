/**
 * Time as a value that can be handed in, so that freshness, tokens and breakers are tested without waiting.
 *
 * `now` is wall-clock milliseconds since the epoch (what is written to disk); `monotonic` is milliseconds from an arbitrary start
 * that never jumps (what durations inside the process are measured with, F-42).
 */
export interface Clock {
  now(): number
  monotonic(): number
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
}
