import {
  badGateway,
  blobUnknown,
  denied,
  manifestInvalid,
  manifestUnknown,
  nameUnknown,
  RegistryError,
  unavailable,
} from '../oci/errors.ts'
import { ManifestRefused } from '../oci/manifest.ts'
import { UpstreamError } from '../upstream/upstream.ts'
import { FillError } from './fill-error.ts'

/** What was asked of upstream, in the words that the client used. `reference`: a tag, a digest, or nothing for a tag list. */
export type Subject = {
  readonly kind: 'manifest' | 'blob' | 'tags' | 'referrers'
  readonly repository: string
  readonly reference?: string
}

/**
 * What a client is told when upstream did not give what was asked (P-97, P-99).
 * Never 429, because daemons would spend their retries here instead of falling back; never 401, because a challenge makes
 * them send credentials that are not ours. Messages name the upstream and the repository, no URL.
 * Takes anything that was thrown; what is already a {@link RegistryError} stays as it is, what is unknown becomes 500.
 */
export function toRegistryError(error: unknown, subject: Subject): RegistryError {
  if (error instanceof RegistryError) return error
  // Before its first byte only: upstream offered another size than its manifest says (F-8), or the bytes ended before they began.
  if (error instanceof FillError) return badGateway(`what upstream sends cannot be used (${error.reason})`, error)
  if (!(error instanceof UpstreamError))
    return new RegistryError(500, 'UNKNOWN', 'something went wrong inside this cache; its log says more', {
      cause: error,
    })
  const { upstream, reason } = error
  switch (error.failure) {
    case 'notFound':
      return unknownAt(upstream, subject, error)
    case 'denied':
      return denied(`${upstream} does not let this cache read ${subject.repository}: private, or not there`, error)
    case 'rateLimited':
      return unavailable(`${upstream} limits how often it may be asked`, retryAfter(error))
    case 'unavailable':
      return reason === 'offline'
        ? offlineAnd(subject, error)
        : unavailable(`${upstream} cannot be asked now (${reason})`, retryAfter(error))
    case 'invalid':
      return subject.kind === 'manifest'
        ? unusableManifest(upstream, subject, error)
        : badGateway(`${upstream} gave an answer that cannot be used (${reason})`, error)
    default:
      return badGateway(`${upstream} sends this request to where this cache does not go (${reason})`, error)
  }
}

/** 404 for what cannot be had because this cache does not dial. */
export function offlineAnd(subject: Subject, cause?: unknown): RegistryError {
  return notHere(subject, 'not cached, and this cache is offline', cause)
}

/** One word for a warning or a log line: why upstream could not be asked. */
export function reasonOf(error: unknown): string {
  if (error instanceof UpstreamError) return error.failure === 'rateLimited' ? 'rate_limited' : error.reason
  return 'invalid_answer'
}

function unknownAt(upstream: string, subject: Subject, cause: UpstreamError): RegistryError {
  return notHere(subject, `${upstream} does not have it in ${subject.repository}`, cause)
}

/** Schema 1 is told as absence: the client's next mirror or tag may have a format that can be kept (P-36). */
function unusableManifest(upstream: string, { reference = '' }: Subject, error: UpstreamError): RegistryError {
  const { cause } = error
  if (cause instanceof ManifestRefused)
    return cause.reason === 'schema_1'
      ? manifestUnknown(reference, `what ${upstream} has cannot be used: ${cause.message}`, error)
      : manifestInvalid(reference, `${upstream} sent a manifest that is refused: ${cause.message}`, error)
  return manifestInvalid(reference, `${upstream} gave an answer that cannot be used (${error.reason})`, error)
}

function notHere(subject: Subject, why: string, cause: unknown): RegistryError {
  const { kind, repository, reference = '' } = subject
  if (kind === 'blob') return blobUnknown(reference, why, cause)
  if (kind === 'manifest') return manifestUnknown(reference, why, cause)
  return nameUnknown(repository, why, cause)
}

function retryAfter(error: UpstreamError): { cause: unknown; retryAfterMs?: number } {
  return error.retryAfterMs === undefined ? { cause: error } : { cause: error, retryAfterMs: error.retryAfterMs }
}

/**
 * True when upstream's failure says nothing about what it has, so that what is cached may stand in (F-29, P-100):
 * everything that it can do wrong, except saying 404 or 410.
 */
export function isNoInformation(error: unknown): boolean {
  if (error instanceof UpstreamError) return error.failure !== 'notFound'
  // A refusal of our own: the answer came, and its content cannot be used.
  return error instanceof RegistryError && error.status >= 500
}

/** How long upstream asked not to be asked again. */
export function retryAfterOf(error: unknown): number | undefined {
  return error instanceof UpstreamError ? error.retryAfterMs : undefined
}
