/** Longest time that an upstream can keep us away by Retry-After: five minutes. */
export const maxRetryAfterMs = 5 * 60_000

/**
 * Milliseconds to wait, from a `Retry-After` in seconds or as an HTTP-date, between 0 and five minutes. Undefined when absent or
 * malformed (P-102). `now` is wall-clock milliseconds, because that is what a date is about.
 * https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
 */
export function parseRetryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined
  const text = value.trim()
  if (/^\d{1,10}$/.test(text)) return Math.min(Number(text) * 1000, maxRetryAfterMs)
  // All three date forms of RFC 9110 begin with a day name; Date.parse alone would also take "5" or "-1".
  const date = /^[A-Z][a-z]{2,8},? /.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(date) ? undefined : Math.min(Math.max(0, date - now), maxRetryAfterMs)
}
