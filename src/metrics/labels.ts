import type { EvictionReason, LeaseResult, RevalidationResult } from '../log/observer.ts'
import type { Outcome, ServedSource } from '../log/outcome.ts'
import type { ManifestRefusal } from '../oci/manifest.ts'

/**
 * The closed vocabularies of label values. A value from outside, or one that nobody thought of, becomes `other`:
 * the number of series is decided here and in the configuration, never by who asks or by what an upstream answers (T-50).
 */
export type RequestKind = 'manifest_tag' | 'manifest_digest' | Exclude<RouteKind, 'manifest'>

/** What a path asks for. */
export type RouteKind = 'manifest' | 'blob' | 'tags' | 'referrers' | 'base' | 'other'

/** Stands in for every value outside of a vocabulary. */
export const other = 'other'

/** The upstream of a request that belongs to no upstream: `/v2/`, a malformed path. */
export const noUpstream = 'none'

export const outcomes: readonly Outcome[] = [
  'hit',
  'joined',
  'fill',
  'revalidated',
  'stale',
  'redirected',
  'denied',
  'error',
]

export const requestKinds: readonly RequestKind[] = [
  'manifest_tag',
  'manifest_digest',
  'blob',
  'tags',
  'referrers',
  'base',
  'other',
]

export const servedSources: readonly ServedSource[] = ['memory', 'disk', 's3', 'peer', 'fill', 'redirect']

export const revalidationResults: readonly RevalidationResult[] = ['same', 'changed', 'gone', 'failed']

export const evictionReasons: readonly EvictionReason[] = ['budget', 'disk']

export const leaseResults: readonly LeaseResult[] = ['owner', 'follower', 'alone']

/** Of commands to Redis: done, not answered, not reached, and the first words of its errors. */
export const redisOutcomes = [
  'ok',
  'timeout',
  'unavailable',
  'oom',
  'readonly',
  'noperm',
  'noauth',
  'wrongpass',
  'misconf',
  'loading',
  'clusterdown',
  'noreplicas',
  'wrongtype',
  'err',
  other,
] as const

export const upstreamKinds = ['manifest', 'blob', 'tags', 'referrers', 'token', 'ping'] as const

export const sharedOperations = ['head', 'get', 'put', 'delete', other] as const

export const fillOutcomes = ['published', 'uncached', 'failed', 'cancelled'] as const

/** Bytes that are not those that were asked for, by what was asked for. An alert looks at each, so each is a series from the start. */
export const wrongBytes = [
  ['manifest', 'digest_mismatch'],
  ['blob', 'digest_mismatch'],
  ['blob', 'size_mismatch'],
] as const

const manifestRefusals: Readonly<Record<ManifestRefusal, true>> = {
  syntax: true,
  error_body: true,
  schema_1: true,
  media_type: true,
  media_type_mismatch: true,
  ambiguous: true,
  structure: true,
}

/** Why content was refused. */
export const rejections: readonly string[] = [
  ...new Set(wrongBytes.map(([, reason]) => reason)),
  ...Object.keys(manifestRefusals),
]

/** Why a download is broken beyond doubt, or breaks often: each is a series from the start, so that the first event shows as an increase. */
export const frequentReasons = [
  'connect',
  'digest_mismatch',
  'dns',
  'reset',
  'size_mismatch',
  'timeout',
  'tls',
  'truncated',
] as const

const rareReasons = [
  'abandoned',
  'absent',
  'aborted',
  'address',
  'bad_credentials',
  'bad_http',
  'bad_redirect',
  'bearer',
  'blocked',
  'breaker_open',
  'cancelled',
  'connection',
  'conflict',
  'credentials',
  'denied',
  'encoded',
  'exists',
  'gone',
  'hedged',
  'html',
  'idle',
  'invalid',
  'invalid_answer',
  'manifest_refused',
  'mismatch',
  'network',
  'no_bucket',
  'no_owner',
  'no_source',
  'no_space',
  'not_a_tag_list',
  'not_an_index',
  'not_found',
  'offline',
  'ok',
  'peer_broke',
  'plain_http',
  'proxy',
  'quarantined',
  'range_ignored',
  'rate_limited',
  'realm',
  'redirect',
  'refused',
  'schema_1',
  'scope',
  'server',
  'shared_broke',
  'shared_store',
  'shutdown',
  'slow_down',
  'slow_reader',
  'spool',
  'spool_short',
  'store',
  'too_large',
  'too_many_redirects',
  'unavailable',
  'unknown',
  'unsupported',
  'utf8',
]

const statuses = [
  200, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 410, 416, 429, 451, 500, 501,
  502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 530,
]

/** Takes any text, gives it back when it is in the vocabulary and {@link other} when it is not. */
export type Bounded = (value: string) => string

export function bounded(vocabulary: Iterable<string>): Bounded {
  const known = new Set(vocabulary)
  return value => (known.has(value) ? value : other)
}

const knownReasons = new Set<string>([
  ...frequentReasons,
  ...rareReasons,
  ...statuses.flatMap(code => [`${code}`, `http_${code}`]),
])
const reasonForm = /^(redirect_|token_)?(?:(http_)?([1-5])\d\d|(.+))$/

/**
 * The same for reasons: a word of the lists above, or a status code with or without `http_` in front; either may be that of a
 * redirect's target (`redirect_timeout`) or of a token service (`token_http_429`). A status that registries do not use becomes its class, `4xx`.
 */
export const boundedReason: Bounded = reason => {
  if (knownReasons.has(reason)) return reason
  const [, origin = '', http = '', hundreds] = reasonForm.exec(reason) ?? []
  const bare = reason.slice(origin.length)
  if (knownReasons.has(bare)) return reason
  return hundreds === undefined ? `${origin}${other}` : `${origin}${http}${hundreds}xx`
}

/** Words that the code itself chooses, for which a list would only go out of date: the first `max` different ones, then {@link other}. */
export function firstWords(max: number): Bounded {
  const seen = new Set<string>()
  const word = /^[a-zA-Z][a-zA-Z0-9_.-]{0,39}$/
  return value => {
    if (seen.has(value)) return value
    if (seen.size >= max || !word.test(value)) return other
    seen.add(value)
    return value
  }
}
