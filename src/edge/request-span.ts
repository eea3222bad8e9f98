import type { Span, Tracer } from '../tracing/tracer.ts'
import type { Exchange } from './exchange.ts'

/** The span of a request that just arrived. Undefined: nothing is traced. */
export function startRequestSpan(tracer: Tracer, { req }: Exchange): Span | undefined {
  const { traceparent } = req.headers
  return tracer.request({
    name: req.method ?? 'GET',
    traceparent: typeof traceparent === 'string' ? traceparent : undefined,
  })
}

/** Says how it was answered, and ends it. The path and its query are not told: what they mean is. */
export function endRequestSpan(exchange: Exchange, told: { readonly status: number; readonly failed: boolean }): void {
  const { span, req, kind, upstream, repository, reference, outcome, bytes, error } = exchange
  // Of most traces nothing is kept.
  if (span?.traceId === undefined) return span?.end()
  const route = routeOf(kind)
  const method = req.method ?? 'GET'
  span.rename(route === undefined ? method : `${method} ${route}`)
  span.set({
    'http.request.method': method,
    'http.route': route,
    'http.response.status_code': told.status,
    'http.response.body.size': bytes,
    'client.address': req.socket.remoteAddress,
    'user_agent.original': req.headers['user-agent']?.slice(0, 200),
    'layover.outcome': outcome,
    'layover.upstream': upstream,
    'layover.repository': repository,
    'layover.reference': reference,
    'layover.cut': exchange.cut ? true : undefined,
  })
  // A 404 is an answer, and a client that left is no fault of ours. https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status
  span.end(told.failed && (exchange.cut || told.status >= 500) ? error : undefined)
}

/** The template of the path, by the word for what was asked. */
function routeOf(kind: string): string | undefined {
  if (kind === 'base') return '/v2/'
  if (kind.startsWith('manifest')) return '/v2/<name>/manifests/<reference>'
  if (kind === 'blob') return '/v2/<name>/blobs/<digest>'
  if (kind === 'tags') return '/v2/<name>/tags/list'
  if (kind === 'referrers') return '/v2/<name>/referrers/<digest>'
  return undefined
}
