import { describe, expect, it } from 'vitest'
import { formatCacheStatus } from '../../src/edge/cache-status.ts'

describe('Cache-Status', () => {
  it.each([
    [{ outcome: 'hit', key: 'sha256:aa' }, 'Layover; hit; key="sha256:aa"'],
    [{ outcome: 'joined' }, 'Layover; fwd=uri-miss; collapsed'],
    [{ outcome: 'fill' }, 'Layover; fwd=uri-miss'],
    [{ outcome: 'revalidated', ttlMs: 299_900 }, 'Layover; fwd=stale; fwd-status=304; ttl=299'],
    [{ outcome: 'stale', ttlMs: -61_000 }, 'Layover; hit; ttl=-61; detail="stale"'],
    [{ outcome: 'stale', detail: 'upstream http_503' }, 'Layover; hit; detail="upstream http_503"'],
    [{ outcome: 'redirected' }, 'Layover; hit; detail="redirected"'],
    [{ outcome: 'denied' }, 'Layover; detail="denied"'],
    [{ outcome: 'error', detail: 'a"b\\c\r\né' }, 'Layover; detail="a\\"b\\\\c???"'],
  ] as const)('P-106, T-33: %j', (status, expected) => {
    expect(formatCacheStatus(status)).toBe(expected)
  })
})
