import type { Outcome } from '../log/outcome.ts'

export type CacheStatus = {
  readonly outcome: Outcome
  /** The digest or the tag that was looked up. */
  readonly key?: string
  /** How long it stays fresh; negative when it is stale. */
  readonly ttlMs?: number
  readonly detail?: string
}

/**
 * What RFC 9211 can say of an outcome; the rest is said in `detail`.
 * Never `stored`: the headers leave before the last byte is here, and a full disk or a wrong digest may keep it from being stored.
 */
const parameters: Record<Outcome, readonly string[]> = {
  hit: ['hit'],
  joined: ['fwd=uri-miss', 'collapsed'],
  fill: ['fwd=uri-miss'],
  // fwd-status is what upstream said of the tag: unchanged, whether it spoke by HEAD or by 304.
  revalidated: ['fwd=stale', 'fwd-status=304'],
  stale: ['hit'],
  redirected: ['hit'],
  denied: [],
  error: [],
}
const needsDetail: ReadonlySet<Outcome> = new Set(['stale', 'redirected', 'denied', 'error'])

/**
 * The value of `Cache-Status`: `Layover; hit; ttl=240; key="sha256:…"`.
 * https://www.rfc-editor.org/rfc/rfc9211
 */
export function formatCacheStatus({ outcome, key, ttlMs, detail }: CacheStatus): string {
  const said = detail ?? (needsDetail.has(outcome) ? outcome : undefined)
  return [
    'Layover',
    ...parameters[outcome],
    ...(ttlMs === undefined ? [] : [`ttl=${Math.trunc(ttlMs / 1000)}`]),
    ...(key === undefined ? [] : [`key=${quoted(key)}`]),
    ...(said === undefined ? [] : [`detail=${quoted(said)}`]),
  ].join('; ')
}

// sf-string (RFC 8941 §3.3.3) carries printable ASCII only.
function quoted(text: string): string {
  const printable = text.slice(0, 512).replace(/[^\x20-\x7e]/g, '?')
  return `"${printable.replace(/["\\]/g, '\\$&')}"`
}
