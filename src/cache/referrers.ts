import type { ListDependencies } from './list-dependencies.ts'
import { LRUCache } from 'lru-cache'
import type { Outcome, ServedSource } from '../log/outcome.ts'
import type { Digest } from '../oci/digest.ts'
import { nameUnknown } from '../oci/errors.ts'
import { ManifestRefused } from '../oci/manifest.ts'
import { ociIndex } from '../oci/media-types.ts'
import { filterByArtifactType, type Referrer, readReferrers, referrersIndex, referrersTag } from '../oci/referrers.ts'
import { formatWarning } from '../oci/warning.ts'
import type { Target } from '../routing/target.ts'
import { type Upstream, UpstreamError } from '../upstream/upstream.ts'
import { type Answer, createDocuments, type Document } from './documents.ts'
import { upstreamQuery, withoutNamespace } from './list-query.ts'
import { toRegistryError } from './upstream-failure.ts'

/** What refers to a digest: signatures, attestations, SBOMs. Answered for one repository at a time (T-11). */
export interface Referrers {
  /**
   * One page, always an OCI index, empty when there is nothing (P-80). `query`: what else the client's query holds, for the next page.
   * Throws DENIED or UNAVAILABLE.
   */
  list(
    target: Target,
    digest: Digest,
    options: { readonly artifactType?: string; readonly query?: URLSearchParams; readonly signal?: AbortSignal },
  ): Promise<ReferrersPage>
}

export type ReferrersPage = {
  readonly body: Buffer
  /** `application/vnd.oci.image.index.v1+json` */
  readonly mediaType: string
  readonly nextQuery: URLSearchParams | undefined
  /** For `OCI-Filters-Applied`: set whenever a type was asked for (P-82). */
  readonly filtersApplied: 'artifactType' | undefined
  readonly outcome: Outcome
  readonly source: ServedSource
  readonly staleReason: string | undefined
  readonly ageMs: number
  readonly ttlMs: number
  readonly warnings: readonly string[]
}

type Request = {
  readonly upstream: Upstream
  readonly target: Target
  readonly digest: Digest
  readonly artifactType: string | undefined
  readonly query: URLSearchParams
}
/** `signal` fires when nobody waits any more. */
type Fetch = Request & { readonly signal: AbortSignal }

const ttlMs = 30_000
/** What is signed a moment after it was pushed is found soon (P-84). */
const emptyTtlMs = 10_000
/** How long a repository whose registry lacks the API is asked by tag at once (P-81). */
const withoutApiMs = 10 * 60_000
const rememberedRepositories = 10_000

export function createReferrers(deps: ListDependencies): Referrers {
  const { clock } = deps
  const documents = createDocuments(deps)
  // Per repository, not per upstream: a registry that has the API may still say 404 for a repository that does not exist,
  // and asking for one of those must not hide the signatures of all others.
  const withoutApiUntil = new LRUCache<string, number>({ max: rememberedRepositories })

  const fetchPage = async (request: Fetch): Promise<Document> => {
    const { upstream, target } = request
    if (deps.offline) throw new UpstreamError('unavailable', upstream.name, 'offline', 'this cache is offline')
    const repositoryKey = `${target.upstream} ${target.repository}`
    if ((withoutApiUntil.get(repositoryKey) ?? Number.NEGATIVE_INFINITY) > clock.monotonic()) return fromTag(request)
    try {
      return await fromApi(request)
    } catch (error) {
      if (!isNotFound(error)) throw error
      const document = await fromTag(request)
      withoutApiUntil.set(repositoryKey, clock.monotonic() + withoutApiMs)
      return document
    }
  }

  return {
    async list(target, digest, { artifactType, query, signal }) {
      const upstream = deps.upstreams.get(target.upstream)
      if (!upstream) throw nameUnknown(target.requestedRepository, `${target.upstream} is not configured here`)
      const request: Request = {
        upstream,
        target,
        digest,
        artifactType,
        query: upstreamQuery({ artifactType, digest: undefined }, query),
      }
      try {
        const answer = await documents.get({
          key: `referrers ${target.upstream} ${target.repository} ${digest} ${request.query.toString()}`,
          upstream: target.upstream,
          ttlMs: ttlOf,
          maxStaleMs: deps.settings(target.upstream).maxStaleMs,
          // Anybody can ask for types and digests that nobody has; what exists is finite.
          keep: document => !isEmpty(document),
          fetch: abandoned => fetchPage({ ...request, signal: abandoned }),
          signal,
        })
        return pageFrom(request, answer)
      } catch (error) {
        signal?.throwIfAborted()
        if (deps.offline) return emptyOffline(request)
        throw toRegistryError(error, { kind: 'referrers', repository: target.repository, reference: digest })
      }
    },
  }
}

async function fromApi({ upstream, target, digest, artifactType, query, signal }: Fetch): Promise<Document> {
  const page = await upstream.listReferrers(target.repository, digest, query, { signal })
  const next = withoutNamespace(page.next)
  const referrers = readIndex(upstream, page.bytes)
  const isFiltered = page.filtersApplied?.split(',').some(filter => filter.trim() === 'artifactType') === true
  return documentOf(isFiltered ? referrers : matching(referrers, artifactType), next)
}

/** Where a registry has no referrers API, clients keep an index under a tag made from the digest (P-81). */
async function fromTag({ upstream, target, digest, artifactType, signal }: Fetch): Promise<Document> {
  try {
    const { bytes } = await upstream.getManifest(target.repository, referrersTag(digest), { signal })
    return documentOf(matching(readIndex(upstream, bytes), artifactType), undefined)
  } catch (error) {
    // Anything under that tag that is not an index is somebody's tag, and no list of referrers (P-85).
    const isNoIndex = error instanceof UpstreamError && error.reason === 'not_an_index'
    if (isNotFound(error) || isNoIndex) return documentOf([], undefined)
    throw error
  }
}

function readIndex(upstream: Upstream, bytes: Buffer): readonly Referrer[] {
  try {
    return readReferrers(bytes)
  } catch (cause) {
    if (!(cause instanceof ManifestRefused)) throw cause
    throw new UpstreamError('invalid', upstream.name, 'not_an_index', 'the answer is not an index of referrers', {
      cause,
    })
  }
}

function matching(referrers: readonly Referrer[], artifactType: string | undefined): readonly Referrer[] {
  return artifactType === undefined ? referrers : filterByArtifactType(referrers, artifactType)
}

function documentOf(referrers: readonly Referrer[], next: URLSearchParams | undefined): Document {
  const attributes = { count: String(referrers.length), ...(next && { next: next.toString() }) }
  return { bytes: referrersIndex(referrers), mediaType: ociIndex, attributes }
}

const isEmpty = (document: Document): boolean => document.attributes.count === '0'
const ttlOf = (document: Document): number => (isEmpty(document) ? emptyTtlMs : ttlMs)
const isNotFound = (error: unknown): boolean => error instanceof UpstreamError && error.failure === 'notFound'

function pageFrom(
  request: Request,
  { document, outcome, source, staleReason, ageMs, warnings }: Answer,
): ReferrersPage {
  const { next } = document.attributes
  return {
    body: Buffer.from(document.bytes),
    mediaType: ociIndex,
    nextQuery: next === undefined ? undefined : new URLSearchParams(next),
    filtersApplied: request.artifactType === undefined ? undefined : 'artifactType',
    outcome,
    source,
    staleReason,
    ageMs,
    ttlMs: ttlOf(document),
    warnings,
  }
}

const emptyOffline = (request: Request): ReferrersPage => ({
  body: referrersIndex([]),
  mediaType: ociIndex,
  nextQuery: undefined,
  filtersApplied: request.artifactType === undefined ? undefined : 'artifactType',
  outcome: 'stale',
  source: 'memory',
  staleReason: 'offline',
  ageMs: 0,
  ttlMs: emptyTtlMs,
  warnings: [formatWarning('incomplete: this cache is offline and knows no referrers of this digest')],
})
