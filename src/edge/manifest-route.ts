import { LRUCache } from 'lru-cache'
import type { Manifests, ServedManifest } from '../cache/manifests.ts'
import { accepts, parseAccept } from '../oci/accept.ts'
import { manifestUnknown } from '../oci/errors.ts'
import { etagOf, matchesEtag } from '../oci/etag.ts'
import { type Reference, referenceText } from '../oci/reference.ts'
import type { Target } from '../routing/target.ts'
import { formatCacheStatus } from './cache-status.ts'
import type { Exchange } from './exchange.ts'
import { commonHeaders, type HeaderList, immutable } from './headers.ts'
import { replyBytes, replyEmpty } from './reply.ts'

export type ManifestRequest = {
  readonly exchange: Exchange
  readonly target: Target
  readonly reference: Reference
}

/**
 * `GET` and `HEAD /v2/<name>/manifests/<reference>`: the bytes as upstream sent them. Answers without waiting when the manifest is fresh in memory.
 */
export function serveManifest(manifests: Manifests, request: ManifestRequest): Promise<void> | undefined {
  const { exchange, target, reference } = request
  // The exchange has the signal, which is only made when somebody has to wait.
  const found = manifests.get(target, reference, exchange)
  if (found instanceof Promise) return found.then(manifest => reply(exchange, manifest, reference))
  reply(exchange, found, reference)
  return undefined
}

function reply(exchange: Exchange, manifest: ServedManifest, reference: Reference): void {
  exchange.outcome = manifest.outcome
  exchange.source = manifest.source
  exchange.staleReason = manifest.staleReason
  if (manifest.byTag) exchange.tagAgeMs = manifest.ageMs
  refuseUnaccepted(exchange, manifest, reference)
  const headers = manifestHeaders(exchange, manifest)
  if (matchesEtag(exchange.req.headers['if-none-match'], manifest.digest)) return replyEmpty(exchange, 304, headers)
  replyBytes(exchange, 200, headers, manifest.bytes)
}

/** Upstream was asked for every type; what the client cannot read is as good as not there (P-30). */
function refuseUnaccepted(exchange: Exchange, manifest: ServedManifest, reference: Reference): void {
  // Node joins several Accept lines with commas (P-31).
  const { accept } = exchange.req.headers
  if (accept === undefined || isAccepted(accept, manifest.mediaType)) return
  throw manifestUnknown(
    referenceText(reference),
    `it is a ${manifest.mediaType}, which the Accept header does not allow`,
  )
}

const acceptAnswers = new LRUCache<string, boolean>({ max: 512 })

/** Clients send the same few Accept headers over and over. */
function isAccepted(accept: string, mediaType: string): boolean {
  const key = `${mediaType} ${accept}`
  const known = acceptAnswers.get(key)
  if (known !== undefined) return known
  const answer = accepts(parseAccept(accept), mediaType)
  if (key.length <= 1024) acceptAnswers.set(key, answer)
  return answer
}

function manifestHeaders(exchange: Exchange, manifest: ServedManifest): HeaderList {
  const { byTag, outcome, ageMs } = manifest
  const headers = commonHeaders(exchange)
  const prepared = preparedOf(manifest)
  headers.push(...prepared.content, 'cache-control', byTag ? 'no-cache' : immutable)
  headers.push('cache-status', cacheStatusOf(manifest, prepared))
  if (byTag && outcome !== 'fill') headers.push('age', String(Math.max(0, Math.floor(ageMs / 1000))))
  for (const warning of manifest.warnings) headers.push('warning', warning)
  return headers
}

/** What stays the same for a manifest as long as it is in memory, and the last `Cache-Status`, which changes once a second. */
type Prepared = { readonly content: readonly string[]; statusKey: string; status: string }

function preparedOf({ slot, mediaType, digest }: ServedManifest): Prepared {
  const known = slot.headers
  if (isPrepared(known)) return known
  const content = ['content-type', mediaType, 'docker-content-digest', digest, 'etag', etagOf(digest), 'vary', 'Accept']
  const prepared: Prepared = { content, statusKey: '', status: '' }
  slot.headers = prepared
  return prepared
}

function isPrepared(value: unknown): value is Prepared {
  return typeof value === 'object' && value !== null && 'statusKey' in value
}

function cacheStatusOf({ outcome, digest, ageMs, ttlMs }: ServedManifest, prepared: Prepared): string {
  // What is left of the freshness, in whole seconds; negative when it is stale (RFC 9211 §2.2).
  const left = ttlMs === undefined ? undefined : Math.floor((ttlMs - ageMs) / 1000)
  const key = `${outcome} ${left}`
  if (prepared.statusKey !== key) {
    prepared.statusKey = key
    prepared.status = formatCacheStatus({
      outcome,
      key: digest,
      ...(left === undefined ? {} : { ttlMs: left * 1000 }),
    })
  }
  return prepared.status
}
