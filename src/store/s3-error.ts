import { redactText } from '../log/redact.ts'

/**
 * Why the bucket did not do what it was asked, one word.
 * `absent`: no such object. `exists`: a conditional put came second. `conflict`: two puts of one key at once. `mismatch`: the service computed another
 * hash than was sent. `unsupported`: the service does not know a header. `blocked`: not asked, because it failed a moment ago.
 */
export type S3Reason =
  | 'absent'
  | 'blocked'
  | 'cancelled'
  | 'conflict'
  | 'connection'
  | 'denied'
  | 'exists'
  | 'invalid'
  | 'mismatch'
  | 'no_bucket'
  | 'server'
  | 'slow_down'
  | 'timeout'
  | 'unsupported'

/** A request to the bucket that failed. Message and cause hold no signed URL, no key and no signature (T-10). */
export class S3Error extends Error {
  override readonly name = 'S3Error'
  readonly reason: S3Reason

  constructor(reason: S3Reason, message: string, cause?: unknown) {
    super(message, { cause })
    this.reason = reason
  }

  /** The endpoint as a whole does not work now; another object would fare no better. */
  get isOutage(): boolean {
    return outages.has(this.reason)
  }
}

const outages: ReadonlySet<S3Reason> = new Set([
  'blocked',
  'connection',
  'denied',
  'no_bucket',
  'server',
  'slow_down',
  'timeout',
])

const reasonsByCode: Readonly<Record<string, S3Reason>> = {
  NoSuchKey: 'absent',
  NotFound: 'absent',
  NoSuchUpload: 'absent',
  NoSuchBucket: 'no_bucket',
  PreconditionFailed: 'exists',
  ConditionalRequestConflict: 'conflict',
  OperationAborted: 'conflict',
  BadDigest: 'mismatch',
  XAmzContentSHA256Mismatch: 'mismatch',
  XAmzContentChecksumMismatch: 'mismatch',
  IncompleteBody: 'connection',
  RequestTimeout: 'timeout',
  TimeoutError: 'timeout',
  UND_ERR_CONNECT_TIMEOUT: 'timeout',
  UND_ERR_HEADERS_TIMEOUT: 'timeout',
  UND_ERR_BODY_TIMEOUT: 'timeout',
  ETIMEDOUT: 'timeout',
  SlowDown: 'slow_down',
  ServiceUnavailable: 'slow_down',
  TooManyRequests: 'slow_down',
  NotImplemented: 'unsupported',
  // The clock of this machine is wrong, or credentials ran out: nothing works until that is put right.
  RequestTimeTooSkewed: 'denied',
  ExpiredToken: 'denied',
  CredentialsProviderError: 'denied',
}

/** What an HTTP status says where no error code came with it, as in answers to HEAD. */
export function reasonOfStatus(status: number): S3Reason {
  if (status === 401 || status === 403) return 'denied'
  if (status === 404) return 'absent'
  if (status === 408) return 'timeout'
  if (status === 409) return 'conflict'
  if (status === 412) return 'exists'
  if (status === 429 || status === 503) return 'slow_down'
  if (status === 501) return 'unsupported'
  return status >= 500 ? 'server' : 'invalid'
}

/** The reason for an error code of the S3 API with its HTTP status. */
export function reasonOfCode(code: string, status: number): S3Reason {
  return (Object.hasOwn(reasonsByCode, code) ? reasonsByCode[code] : undefined) ?? reasonOfStatus(status)
}

/** Makes an {@link S3Error} of what the SDK or the HTTP client threw while doing `what`. Only name, code and redacted message are kept. */
export function s3Error(what: string, error: unknown): S3Error {
  if (error instanceof S3Error) return error
  const { code, status, message } = detailsOf(error)
  const reason = reasonFrom(code, status)
  const shownStatus = status === undefined ? '' : ` (${status})`
  // Errors of the SDK carry the key id and the string that was signed; a fresh one does not.
  return new S3Error(reason, `the bucket: ${what} failed: ${code}${shownStatus}`, new Error(redactText(message)))
}

function reasonFrom(code: string, status: number | undefined): S3Reason {
  if (status !== undefined) return reasonOfCode(code, status)
  if (code === 'AbortError' || code === 'ABORT_ERR') return 'cancelled'
  // Without a status there was no answer.
  return (Object.hasOwn(reasonsByCode, code) ? reasonsByCode[code] : undefined) ?? 'connection'
}

function detailsOf(error: unknown): { code: string; status: number | undefined; message: string } {
  if (!(error instanceof Error)) return { code: 'unknown', status: undefined, message: String(error) }
  const { code, $metadata: metadata } = error as { code?: unknown; $metadata?: { httpStatusCode?: unknown } }
  const status = metadata?.httpStatusCode
  const name = typeof code === 'string' ? code : error.name
  return {
    // A code is a word; whatever else a service sends there is not repeated.
    code: /^[\w.-]{1,64}$/.test(name) ? name : 'unknown',
    status: typeof status === 'number' ? status : undefined,
    message: error.message,
  }
}
