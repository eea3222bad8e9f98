import type { ListDependencies } from './list-dependencies.ts'
import type { Outcome, ServedSource } from '../log/outcome.ts'
import { nameUnknown } from '../oci/errors.ts'
import { type PageRequest, pageOf, parsePageRequest, sortNames } from '../oci/pagination.ts'
import { formatWarning } from '../oci/warning.ts'
import type { Target } from '../routing/target.ts'
import { type Upstream, UpstreamError } from '../upstream/upstream.ts'
import { type Answer, createDocuments, type Document } from './documents.ts'
import { forgivingMetadata } from './forgiving-metadata.ts'
import { upstreamQuery, withoutNamespace } from './list-query.ts'
import { isNoInformation, reasonOf, toRegistryError } from './upstream-failure.ts'

/** `tags/list`: upstream's pages under the name that the client used. */
export interface TagLists {
  /**
   * One page. `n` and `last` as the client wrote them (P-75), `extra`: its query, for registries whose next page is named by something
   * opaque (P-77); `n`, `last` and `ns` in it are not looked at. Throws PAGINATION_NUMBER_INVALID, NAME_UNKNOWN, DENIED or UNAVAILABLE.
   */
  list(target: Target, query: TagListQuery, options?: { readonly signal?: AbortSignal }): Promise<TagList>
}

export type TagListQuery = {
  readonly n: string | undefined
  readonly last: string | undefined
  readonly extra: URLSearchParams
}

export type TagList = {
  readonly body: Buffer
  /** What to ask for the next page, without `ns`; absent on the last page. */
  readonly nextQuery: URLSearchParams | undefined
  readonly outcome: Outcome
  readonly source: ServedSource
  readonly staleReason: string | undefined
  readonly ageMs: number
  readonly ttlMs: number
  readonly warnings: readonly string[]
}

const ttlMs = 30_000
/** More is never asked for at once: upstream then answers with a link to the rest (P-79, T-46). */
const maxPageSize = 10_000

export function createTagLists(deps: ListDependencies): TagLists {
  const metadata = forgivingMetadata(deps.metadata, deps.observer)
  const documents = createDocuments(deps)

  const listKnown = async (target: Target, page: PageRequest, error: unknown): Promise<TagList | undefined> => {
    const known = sortNames(await metadata.knownTags(target.upstream, target.repository))
    if (known.length === 0) return undefined
    const { names, next } = pageOf(known, page)
    const why = reasonOf(error)
    return {
      body: bodyOf(target, JSON.stringify(names)),
      nextQuery:
        next === undefined || page.n === undefined ? undefined : new URLSearchParams({ n: String(page.n), last: next }),
      outcome: 'stale',
      source: deps.storeSource ?? 'disk',
      staleReason: why,
      ageMs: 0,
      ttlMs,
      warnings: [
        formatWarning(`incomplete: ${target.upstream} cannot be asked (${why}), these are the tags known here`),
      ],
    }
  }

  return {
    async list(target, query, { signal } = {}) {
      const upstream = deps.upstreams.get(target.upstream)
      if (!upstream) throw nameUnknown(target.requestedRepository, `${target.upstream} is not configured here`)
      const page = parsePageRequest(queryOf(query))
      if (page.n === 0) return emptyPage(target)
      const asked = upstreamQuery({ n: sizeOf(page), last: page.last }, query.extra)
      try {
        const answer = await documents.get({
          key: `tags ${target.upstream} ${target.repository} ${asked.toString()}`,
          upstream: target.upstream,
          ttlMs: () => ttlMs,
          maxStaleMs: deps.settings(target.upstream).maxStaleMs,
          // Any client can invent `last` and more; first pages are few.
          keep: () => [...asked.keys()].every(name => name === 'n'),
          fetch: abandoned => {
            if (deps.offline) throw new UpstreamError('unavailable', upstream.name, 'offline', 'this cache is offline')
            return fetchPage(upstream, target.repository, asked, abandoned)
          },
          signal,
        })
        return pageFrom(target, answer)
      } catch (error) {
        signal?.throwIfAborted()
        const known = isNoInformation(error) ? await listKnown(target, page, error) : undefined
        if (known) return known
        throw toRegistryError(error, { kind: 'tags', repository: target.repository })
      }
    },
  }
}

async function fetchPage(
  upstream: Upstream,
  repository: string,
  query: URLSearchParams,
  signal: AbortSignal,
): Promise<Document> {
  const page = await upstream.listTags(repository, query, { signal })
  const next = withoutNamespace(page.next)
  return {
    bytes: Buffer.from(JSON.stringify(readTags(upstream, page.bytes))),
    mediaType: 'application/json',
    attributes: next === undefined ? {} : { next: next.toString() },
  }
}

/** The tags of one page in upstream's order. Its `name` is not looked at: the client is told the one that it used (P-74). */
function readTags(upstream: Upstream, bytes: Buffer): readonly string[] {
  const document = parseJson(upstream, bytes)
  const tags = typeof document === 'object' && document !== null && 'tags' in document ? document.tags : undefined
  // Go registries write an empty list as null.
  if (tags === null) return []
  if (!Array.isArray(tags)) throw notATagList(upstream)
  return tags.filter(tag => typeof tag === 'string')
}

function parseJson(upstream: Upstream, bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString())
  } catch (cause) {
    throw notATagList(upstream, cause)
  }
}

const notATagList = (upstream: Upstream, cause?: unknown): UpstreamError =>
  new UpstreamError('invalid', upstream.name, 'not_a_tag_list', 'the answer is not a list of tags', { cause })

function pageFrom(target: Target, { document, outcome, source, staleReason, ageMs, warnings }: Answer): TagList {
  const { next } = document.attributes
  return {
    body: bodyOf(target, Buffer.from(document.bytes).toString()),
    nextQuery: next === undefined ? undefined : new URLSearchParams(next),
    outcome,
    source,
    staleReason,
    ageMs,
    ttlMs,
    warnings,
  }
}

const emptyPage = (target: Target): TagList => ({
  body: bodyOf(target, '[]'),
  nextQuery: undefined,
  outcome: 'hit',
  source: 'memory',
  staleReason: undefined,
  ageMs: 0,
  ttlMs,
  warnings: [],
})

const bodyOf = (target: Target, tagsJson: string): Buffer =>
  Buffer.from(`{"name":${JSON.stringify(target.requestedRepository)},"tags":${tagsJson}}`)

function queryOf({ n, last }: TagListQuery): URLSearchParams {
  const query = new URLSearchParams()
  if (n !== undefined) query.set('n', n)
  if (last !== undefined) query.set('last', last)
  return query
}

function sizeOf({ n }: PageRequest): string | undefined {
  return n === undefined ? undefined : String(Math.min(n, maxPageSize))
}
