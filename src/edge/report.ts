import type { Log } from '../log/log.ts'
import { describeError } from '../log/redact.ts'
import type { RequestKind } from '../metrics/labels.ts'
import type { Metrics } from '../metrics/metrics.ts'
import type { Exchange } from './exchange.ts'
import { endRequestSpan } from './request-span.ts'
import { ClientGone } from './send-bytes.ts'

/** What happens after a request: figures, and one line in the log. Never throws. */
export function createReport({
  metrics,
  log,
  access,
}: {
  metrics: Pick<Metrics, 'request'>
  log: Log
  access: boolean
}): (exchange: Exchange) => void {
  return exchange => {
    const now = performance.now()
    const { req, res, upstream, outcome, bytes, redirectedBytes } = exchange
    const seconds = (now - exchange.startedAt) / 1000
    const aborted = !exchange.complete && !exchange.cut
    const firstByteSeconds =
      exchange.firstByteAt === undefined ? undefined : (exchange.firstByteAt - exchange.startedAt) / 1000
    const method = req.method ?? ''
    // 499: the client left first, as nginx and distribution log it (P-120).
    const status = aborted ? 499 : res.statusCode
    metrics.request({
      upstream,
      kind: kindOf(exchange),
      method,
      status,
      outcome,
      source: exchange.source,
      bytes,
      redirectedBytes,
      firstByteSeconds,
      seconds,
      aborted,
      staleReason: exchange.staleReason,
      tagAgeMs: exchange.tagAgeMs,
      traceId: exchange.span?.traceId,
    })
    const failed = exchange.error !== undefined && !(exchange.error instanceof ClientGone) && !aborted
    if (exchange.span) endRequestSpan(exchange, { status, failed })
    if (!access && !failed) return
    const line: Record<string, unknown> = {
      method,
      path: pathOf(req.url),
      status,
      outcome,
      upstream,
      repository: exchange.repository,
      reference: exchange.reference,
      bytes,
      ms: Math.round(seconds * 10_000) / 10,
      client: req.socket.remoteAddress,
      agent: req.headers['user-agent']?.slice(0, 200),
    }
    if (redirectedBytes > 0) line.redirectedBytes = redirectedBytes
    if (exchange.cut) line.cut = true
    if (exchange.span?.traceId !== undefined) line.trace_id = exchange.span.traceId
    if (failed) line.error = describeError(exchange.error)
    if (failed && (exchange.cut || status >= 500)) log.warn(line, 'request')
    else log.info(line, 'request')
  }
}

function kindOf({ kind, byTag }: Exchange): RequestKind {
  if (kind === 'manifest') return byTag ? 'manifest_tag' : 'manifest_digest'
  return kind
}

/** The query may hold anything a client likes to send, so only the path is shown and logged; the namespace is in `upstream`. */
export function pathOf(url: string | undefined): string {
  return (url ?? '').split('?', 1)[0]?.slice(0, 600) ?? ''
}
