import type { Observer } from '../log/observer.ts'
import { algorithmOf, type Digest, digestOf, isDigest } from '../oci/digest.ts'
import { ManifestRefused, type ParsedManifest, readManifest } from '../oci/manifest.ts'
import type { ManifestRecord } from '../store/stores.ts'
import { type Upstream, UpstreamError, type UpstreamManifest } from '../upstream/upstream.ts'

/** What came from upstream and may be believed: the digest is that of the bytes, and the bytes are a manifest of that type. */
export type FetchedManifest = {
  readonly record: ManifestRecord
  readonly parsed: ParsedManifest
  readonly warnings: readonly string[]
}

/** Where to ask: one repository of one upstream. */
export type Origin = {
  readonly upstream: Upstream
  readonly repository: string
  readonly observer: Observer
  /** Fires when nobody waits for it any more. */
  readonly signal: AbortSignal
}

/**
 * GET by digest: any source is as good, because the digest decides (P-39). The next one is tried when one cannot be asked or
 * sends something else (T-20); what upstream itself says about existence and rights is final.
 * Throws the first asked source's {@link UpstreamError}.
 */
export async function fetchByDigest(origin: Origin, digest: Digest, firstSource = 0): Promise<FetchedManifest> {
  const { upstream, repository } = origin
  let firstError: UpstreamError | undefined
  for (let source = firstSource; source < upstream.sources; source++) {
    try {
      const answer = await upstream.getManifest(repository, digest, { source, signal: origin.signal })
      return believe(origin, answer, { asked: digest, expected: digest })
    } catch (error) {
      if (!(error instanceof UpstreamError) || (source === 0 && isFinal(error))) throw error
      firstError ??= error
    }
  }
  throw firstError ?? new UpstreamError('unavailable', upstream.name, 'no_source', 'no source is left to ask')
}

/**
 * GET by tag. The digest is computed from the bytes (P-38, F-30); where upstream claims one for these bytes, it has to be right.
 * Only `source` 0 decides what a tag is (T-21).
 */
export async function fetchByTag(origin: Origin, tag: string, source = 0): Promise<FetchedManifest> {
  const answer = await origin.upstream.getManifest(origin.repository, tag, { source, signal: origin.signal })
  const claimed = answer.digest
  const expected = claimed !== undefined && isDigest(claimed) ? claimed : undefined
  return believe(origin, answer, { asked: undefined, expected })
}

/** GET by tag from the mirrors in order, for when upstream itself cannot be asked. Undefined: none of them gave it. */
export async function fetchByTagFromMirrors(origin: Origin, tag: string): Promise<FetchedManifest | undefined> {
  for (let source = 1; source < origin.upstream.sources; source++) {
    try {
      return await fetchByTag(origin, tag, source)
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error
    }
  }
  return undefined
}

/** Upstream's own word on what there is and who may have it: no mirror is asked to say otherwise. */
function isFinal({ failure }: UpstreamError): boolean {
  return failure === 'notFound' || failure === 'denied' || failure === 'refused'
}

/** `asked`: the digest in the request. `expected`: the one that the bytes must have. */
type Expectation = { readonly asked: Digest | undefined; readonly expected: Digest | undefined }

function believe(origin: Origin, answer: UpstreamManifest, { asked, expected }: Expectation): FetchedManifest {
  const digest = digestOf(answer.bytes, expected ? algorithmOf(expected) : 'sha256')
  if (expected && digest !== expected) {
    tellRejected(origin, asked, 'digest_mismatch')
    const message = `the manifest ${expected} came with the bytes of ${digest}`
    throw new UpstreamError('invalid', origin.upstream.name, 'digest_mismatch', message)
  }
  const parsed = readAsManifest(origin, answer, asked)
  return { record: { digest, mediaType: parsed.mediaType, bytes: answer.bytes }, parsed, warnings: answer.warnings }
}

/** A document that is no manifest is upstream's failure; what a client is told about it is the cause (P-34, P-36, P-115). */
function readAsManifest(origin: Origin, answer: UpstreamManifest, asked: Digest | undefined): ParsedManifest {
  try {
    return readManifest(answer.bytes, answer.mediaType)
  } catch (error) {
    if (!(error instanceof ManifestRefused)) throw error
    tellRejected(origin, asked, error.reason)
    throw new UpstreamError('invalid', origin.upstream.name, 'manifest_refused', error.message, { cause: error })
  }
}

function tellRejected({ upstream, observer }: Origin, digest: Digest | undefined, reason: string): void {
  observer.contentRejected({ upstream: upstream.name, kind: 'manifest', digest, reason })
}
