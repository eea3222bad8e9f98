import type { ExchangeAnswer } from './exchange.ts'
import { parseRetryAfter } from './retry-after.ts'
import { headerOf } from './transport.ts'
import { UpstreamError, type UpstreamFailure } from './upstream.ts'

/**
 * What is wrong with an answer, or undefined when it can be used: 200, or 206 where a range was asked (P-99, P-114, P-116). Encoded
 * bodies and, where bytes or JSON were asked, HTML are refused (P-61, P-115).
 */
export function refusalOf(
  upstream: string,
  answer: ExchangeAnswer,
  options: { readonly ranged: boolean; readonly now: number },
): UpstreamError | undefined {
  const { status } = answer
  const isUsable = status === 200 || (status === 206 && options.ranged)
  if (!isUsable) return statusError(upstream, answer, options.now)
  const encoding = headerOf(answer, 'content-encoding')?.trim().toLowerCase()
  if (encoding !== undefined && encoding !== '' && encoding !== 'identity')
    return new UpstreamError(
      'invalid',
      upstream,
      'encoded',
      'upstream sends an encoded body although identity was asked',
      {
        status,
      },
    )
  if (headerOf(answer, 'content-type')?.trim().toLowerCase().startsWith('text/html') === true)
    return new UpstreamError('invalid', upstream, 'html', 'upstream answers with a web page', { status })
  return undefined
}

function statusError(upstream: string, answer: ExchangeAnswer, now: number): UpstreamError {
  const { status, redirected } = answer
  const reason = redirected ? `redirect_http_${status}` : `http_${status}`
  const retryAfterMs = parseRetryAfter(headerOf(answer, 'retry-after'), now)
  const who = redirected ? 'the host that upstream redirects to' : 'upstream'
  return new UpstreamError(failureOf(status, redirected), upstream, reason, `${who} answered ${status}`, {
    status,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  })
}

function failureOf(status: number, redirected: boolean): UpstreamFailure {
  if (status === 404 || status === 410) return 'notFound'
  // A storage host that refuses a presigned URL says nothing about what the registry allows.
  if (status === 401 || status === 403) return redirected ? 'unavailable' : 'denied'
  if (status === 429) return 'rateLimited'
  // 501 is about the method, not about the state of the server.
  return (status >= 500 && status !== 501) || status === 408 ? 'unavailable' : 'invalid'
}
