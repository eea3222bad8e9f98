import type { Outcome } from '../log/outcome.ts'

export type CacheStatus = {
  readonly outcome: Outcome
  /** The digest or the tag that was looked up. */
  readonly key?: string
  /** How long it stays fresh; negative when it is stale. */
  readonly ttlMs?: number
  readonly detail?: string
}

const parameters: Record<Outcome, string> = {
  hit: 'hit',
  joined: 'fwd=uri-miss; collapsed',
  fill: 'fwd=uri-miss; stored',
  // fwd-status is what upstream said of the tag: unchanged, whether it spoke by HEAD or by 304.
  revalidated: 'fwd=stale; fwd-status=304',
  stale: 'hit; detail="stale"',
  redirected: 'hit; detail="redirected"',
  denied: 'detail="denied"',
  error: 'detail="error"',
}

/**
 * The value of `Cache-Status`: `Layover; hit; ttl=240; key="sha256:…"`.
 * https://www.rfc-editor.org/rfc/rfc9211
 */
export function formatCacheStatus({ outcome, key, ttlMs, detail }: CacheStatus): string {
  const words = detail === undefined ? parameters[outcome] : parameters[outcome].replace(/(?:^|; )detail="[a-z]+"$/, '')
  return [
    'Layover',
    words,
    ttlMs === undefined ? '' : `ttl=${Math.trunc(ttlMs / 1000)}`,
    key === undefined ? '' : `key=${quoted(key)}`,
    detail === undefined ? '' : `detail=${quoted(detail)}`,
  ]
    .filter(part => part !== '')
    .join('; ')
}

// sf-string (RFC 8941 §3.3.3) carries printable ASCII only.
function quoted(text: string): string {
  const printable = text.slice(0, 512).replace(/[^\x20-\x7e]/g, '?')
  return `"${printable.replace(/["\\]/g, '\\$&')}"`
}
