/** Error codes of the distribution spec, and those that the reference implementation adds. */
export type ErrorCode =
  | 'BLOB_UNKNOWN'
  | 'DENIED'
  | 'DIGEST_INVALID'
  | 'MANIFEST_INVALID'
  | 'MANIFEST_UNKNOWN'
  | 'NAME_INVALID'
  | 'NAME_UNKNOWN'
  | 'PAGINATION_NUMBER_INVALID'
  | 'RANGE_INVALID'
  | 'SIZE_INVALID'
  | 'TOOMANYREQUESTS'
  | 'UNAUTHORIZED'
  | 'UNAVAILABLE'
  | 'UNKNOWN'
  | 'UNSUPPORTED'

export type RegistryErrorOptions = {
  readonly cause?: unknown
  /** Extra response headers, lower-case names. */
  readonly headers?: Readonly<Record<string, string>>
  readonly detail?: unknown
}

/**
 * What a client is told when its request cannot be answered: `code` and `message` become the JSON body, `status` the status line.
 * The message is public: it never holds an upstream URL, a credential or a path. The cause chain is for the log alone.
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
 */
export class RegistryError extends Error {
  override readonly name = 'RegistryError'
  readonly status: number
  readonly code: ErrorCode
  readonly headers: Readonly<Record<string, string>>
  readonly detail: unknown

  constructor(status: number, code: ErrorCode, message: string, options: RegistryErrorOptions = {}) {
    super(message, { cause: options.cause })
    this.status = status
    this.code = code
    this.headers = options.headers ?? {}
    this.detail = options.detail
  }
}

const shown = (text: string): string => JSON.stringify(text.length > 160 ? `${text.slice(0, 160)}…` : text)

export const nameInvalid = (name: string, why: string, cause?: unknown): RegistryError =>
  new RegistryError(400, 'NAME_INVALID', `invalid repository name ${shown(name)}: ${why}`, { cause })

export const nameUnknown = (name: string, why = 'no such repository', cause?: unknown): RegistryError =>
  new RegistryError(404, 'NAME_UNKNOWN', `${shown(name)}: ${why}`, { cause })

export const digestInvalid = (digest: string, why: string): RegistryError =>
  new RegistryError(400, 'DIGEST_INVALID', `invalid digest ${shown(digest)}: ${why}`)

export const manifestUnknown = (reference: string, why = 'manifest unknown', cause?: unknown): RegistryError =>
  new RegistryError(404, 'MANIFEST_UNKNOWN', `${shown(reference)}: ${why}`, { cause })

export const manifestInvalid = (reference: string, why: string, cause?: unknown): RegistryError =>
  new RegistryError(502, 'MANIFEST_INVALID', `${shown(reference)}: ${why}`, { cause })

export const blobUnknown = (digest: string, why = 'blob unknown to this repository', cause?: unknown): RegistryError =>
  new RegistryError(404, 'BLOB_UNKNOWN', `${shown(digest)}: ${why}`, { cause })

export const unsupported = (what: string): RegistryError =>
  new RegistryError(405, 'UNSUPPORTED', what, { headers: { allow: 'GET, HEAD' } })

export const denied = (why: string, cause?: unknown): RegistryError => new RegistryError(403, 'DENIED', why, { cause })

export const rangeInvalid = (size: number): RegistryError =>
  new RegistryError(416, 'RANGE_INVALID', `the range lies outside of the ${size} bytes of this blob`, {
    headers: { 'content-range': `bytes */${size}` },
  })

export const paginationInvalid = (value: string): RegistryError =>
  new RegistryError(400, 'PAGINATION_NUMBER_INVALID', `n=${shown(value)}: expected a whole number, 0 or more`)

/** 502: upstream answered, and what it said cannot be used. */
export const badGateway = (why: string, cause?: unknown): RegistryError =>
  new RegistryError(502, 'UNAVAILABLE', why, { cause })

/** 503: upstream cannot be asked now. Never 429: clients would spend their retries here instead of falling back. */
export const unavailable = (why: string, options: { cause?: unknown; retryAfterMs?: number } = {}): RegistryError =>
  new RegistryError(503, 'UNAVAILABLE', why, {
    cause: options.cause,
    headers: { 'retry-after': String(Math.max(1, Math.ceil((options.retryAfterMs ?? 1000) / 1000))) },
  })
