import { UpstreamError, type UpstreamFailure } from './upstream.ts'

type Cause = { readonly failure: UpstreamFailure; readonly reason: string }

const byCode: Readonly<Record<string, Cause>> = {
  ENOTFOUND: { failure: 'unavailable', reason: 'dns' },
  EAI_AGAIN: { failure: 'unavailable', reason: 'dns' },
  EAI_FAIL: { failure: 'unavailable', reason: 'dns' },
  EAI_NODATA: { failure: 'unavailable', reason: 'dns' },
  EAI_NONAME: { failure: 'unavailable', reason: 'dns' },
  ESERVFAIL: { failure: 'unavailable', reason: 'dns' },
  ECONNREFUSED: { failure: 'unavailable', reason: 'connect' },
  EHOSTUNREACH: { failure: 'unavailable', reason: 'connect' },
  ENETUNREACH: { failure: 'unavailable', reason: 'connect' },
  EADDRNOTAVAIL: { failure: 'unavailable', reason: 'connect' },
  UND_ERR_PRX_CONN: { failure: 'unavailable', reason: 'proxy' },
  UND_ERR_PRX_TLS: { failure: 'unavailable', reason: 'proxy' },
  ETIMEDOUT: { failure: 'unavailable', reason: 'timeout' },
  UND_ERR_CONNECT_TIMEOUT: { failure: 'unavailable', reason: 'timeout' },
  UND_ERR_HEADERS_TIMEOUT: { failure: 'unavailable', reason: 'timeout' },
  UND_ERR_BODY_TIMEOUT: { failure: 'unavailable', reason: 'timeout' },
  ECONNRESET: { failure: 'unavailable', reason: 'reset' },
  EPIPE: { failure: 'unavailable', reason: 'reset' },
  UND_ERR_SOCKET: { failure: 'unavailable', reason: 'reset' },
  EPROTO: { failure: 'unavailable', reason: 'tls' },
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: { failure: 'invalid', reason: 'bad_http' },
  UND_ERR_HEADERS_OVERFLOW: { failure: 'invalid', reason: 'bad_http' },
  ERR_ADDRESS_REFUSED: { failure: 'refused', reason: 'address' },
}
const tlsCode = /^(?:ERR_TLS_|ERR_SSL_|CERT_|CRL_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH|INVALID_CA)/

/** Which failure a system, TLS or HTTP client error is, and the word for it. */
export function causeOf(error: unknown): Cause {
  const code = codeOf(error)
  const known = byCode[code]
  if (known !== undefined) return known
  if (tlsCode.test(code)) return { failure: 'unavailable', reason: 'tls' }
  if (error instanceof Error && error.name === 'HTTPParserError') return { failure: 'invalid', reason: 'bad_http' }
  return { failure: 'unavailable', reason: 'network' }
}

/** Wraps what went wrong with the connection. `phase` says when: the word of a reset inside a body is `truncated`. */
export function transportError(
  upstream: string,
  error: unknown,
  options: { readonly phase: 'headers' | 'body'; readonly redirected: boolean },
): UpstreamError {
  if (error instanceof UpstreamError) return error
  const { failure, reason } = causeOf(error)
  const word = options.phase === 'body' && codeOf(error) === 'UND_ERR_SOCKET' ? 'truncated' : reason
  const named = options.redirected ? `redirect_${word}` : word
  const where = options.redirected ? 'the host that upstream redirects to' : 'upstream'
  return new UpstreamError(failure, upstream, named, `${where} cannot be read: ${explained(word)}`, {
    cause: withoutSecrets(error),
  })
}

/**
 * A copy of an error that is safe in a cause chain: client library errors carry raw response bytes, which may hold presigned URLs (T-10).
 */
export function withoutSecrets(error: unknown): Error {
  const code = codeOf(error)
  const message = (error instanceof Error ? error.message : String(error)).replaceAll(/\?\S+/g, '?…')
  return Object.assign(new Error(message === '' ? code : message.slice(0, 300)), code === '' ? {} : { code })
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  if ('code' in error && typeof error.code === 'string') return error.code
  // Every address of a name was tried; the first failure stands for all.
  return error instanceof AggregateError ? codeOf(error.errors[0]) : ''
}

const explanations: Readonly<Record<string, string>> = {
  dns: 'its name does not resolve',
  connect: 'no connection',
  proxy: 'the outgoing proxy does not connect',
  timeout: 'it did not answer in time',
  reset: 'the connection was reset',
  truncated: 'the connection ended too early',
  tls: 'its TLS certificate or handshake was not accepted',
  bad_http: 'its answer is not valid HTTP',
  address: 'it leads to an address that is not allowed',
}

function explained(word: string): string {
  return explanations[word] ?? 'the network failed'
}
