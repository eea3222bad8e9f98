import type { Referrers } from '../cache/referrers.ts'
import type { TagLists } from '../cache/tag-lists.ts'
import type { Digest } from '../oci/digest.ts'
import { formatNextLink } from '../oci/link.ts'
import { ociIndex } from '../oci/media-types.ts'
import type { Target } from '../routing/target.ts'
import { formatCacheStatus } from './cache-status.ts'
import type { Exchange } from './exchange.ts'
import { commonHeaders, type HeaderList } from './headers.ts'
import { replyBytes } from './reply.ts'

type ListRequest = {
  readonly exchange: Exchange
  readonly target: Target
  readonly query: URLSearchParams
}

/** `GET /v2/<name>/tags/list` (P-74…P-78). */
export async function serveTags(tagLists: TagLists, { exchange, target, query }: ListRequest): Promise<void> {
  const list = await tagLists.list(
    target,
    { n: query.get('n') ?? undefined, last: query.get('last') ?? undefined, extra: query },
    { signal: exchange.signal },
  )
  exchange.outcome = list.outcome
  exchange.source = list.source
  exchange.staleReason = list.staleReason
  const headers = listHeaders(exchange, { ...list, contentType: 'application/json' })
  if (list.nextQuery) headers.push('link', nextLink(target, 'tags/list', list.nextQuery))
  replyBytes(exchange, 200, headers, list.body)
}

/** `GET /v2/<name>/referrers/<digest>` (P-80…P-84). */
export async function serveReferrers(
  referrers: Referrers,
  { exchange, target, query, digest }: ListRequest & { readonly digest: Digest },
): Promise<void> {
  const artifactType = query.get('artifactType') ?? undefined
  const list = await referrers.list(target, digest, {
    ...(artifactType !== undefined && { artifactType }),
    query,
    signal: exchange.signal,
  })
  exchange.outcome = list.outcome
  exchange.source = list.source
  exchange.staleReason = list.staleReason
  const headers = listHeaders(exchange, { ...list, contentType: ociIndex })
  if (list.filtersApplied !== undefined) headers.push('oci-filters-applied', list.filtersApplied)
  if (list.nextQuery) headers.push('link', nextLink(target, `referrers/${digest}`, list.nextQuery))
  replyBytes(exchange, 200, headers, list.body)
}

type Listed = {
  readonly contentType: string
  readonly outcome: Exchange['outcome']
  readonly ageMs: number
  readonly warnings: readonly string[]
}

function listHeaders(exchange: Exchange, { contentType, outcome, ageMs, warnings }: Listed): HeaderList {
  const headers = commonHeaders(exchange)
  headers.push('content-type', contentType, 'cache-control', 'no-cache', 'cache-status', formatCacheStatus({ outcome }))
  if (outcome !== 'fill') headers.push('age', String(Math.max(0, Math.floor(ageMs / 1000))))
  for (const warning of warnings) headers.push('warning', warning)
  return headers
}

/** In the client's own spelling of the repository, so that it finds its way back (P-76, P-110). */
function nextLink(target: Target, endpoint: string, next: URLSearchParams): string {
  const query = new URLSearchParams(next)
  query.delete('ns')
  if (target.ns !== undefined) query.set('ns', target.ns)
  return formatNextLink(`${target.basePath}/${endpoint}`, query)
}
