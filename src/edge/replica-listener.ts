import type { IncomingMessage, ServerResponse } from 'node:http'
import type { OpenedBlob } from '../cache/blobs.ts'
import type { Clock } from '../clock.ts'
import { type Digest, isDigest } from '../oci/digest.ts'
import { octetStream } from '../oci/media-types.ts'
import { type ByteRange, contentRange, lengthOf, parseRange } from '../oci/range.ts'
import { noTracer, type Tracer } from '../tracing/tracer.ts'
import { fillsPath, stillOpening } from '../upstream/peer.ts'
import { isSigned, type ReplicaSecret, tellClock } from '../upstream/replica-signature.ts'
import { Exchange } from './exchange.ts'
import type { HeaderList } from './headers.ts'
import { startRequestSpan } from './request-span.ts'
import { sendBytes, type WriteWatch } from './send-bytes.ts'

export type ReplicaListenerDeps = {
  /**
   * What runs or rests on this replica: a download that can still be joined, else a stored blob, else undefined. Never begins a download and asks
   * no upstream. Resolves when the size is known or upstream began to answer without one; rejects as the download does, or with the signal's reason.
   */
  readonly openHere: (digest: Digest, signal: AbortSignal) => Promise<OpenedBlob | undefined>
  readonly secret: ReplicaSecret
  readonly clock: Clock
  readonly watch: WriteWatch
  /** What went wrong while a replica was answered, for the log. */
  readonly onError: (error: unknown) => void
  /** How long a question waits for the upstream of a running download before it is answered with 202; default one second. */
  readonly patienceMs?: number
  /** Default: nothing is traced. */
  readonly tracer?: Tracer
  /** Told how many bytes of a blob were sent. */
  readonly onSent?: (bytes: number) => void
}

type Handler = (req: IncomingMessage, res: ServerResponse) => void

/**
 * The internal listener, for the other replicas alone: `GET /internal/fills/<digest>` with `Range: bytes=n-` gives the bytes of a download that
 * runs here as they arrive, or those of a blob that is stored here. The last byte waits until the whole is verified, and a download that fails
 * cuts the connection, as for clients. 404: neither. 202: it runs, and upstream has not begun to answer; ask again. Such a reader keeps the
 * download going as any client does.
 *
 * Rights are not decided here: who asks is a replica of this cache, told by its signature, and it has authorised its own client
 * before it asked. So this address must not be reachable with a secret that clients could know.
 */
export function createReplicaListener(deps: ReplicaListenerDeps): Handler {
  return (req, res) => {
    const exchange = new Exchange(req, res)
    const { tracer = noTracer } = deps
    exchange.span = tracer.on ? startRequestSpan(tracer, exchange) : undefined
    tracer
      .within(exchange.span, () => answer(deps, exchange))
      .catch((error: unknown) => {
        exchange.error = error
        if (!exchange.signal.aborted) deps.onError(error)
        refuse(res)
      })
      .finally(() => endSpan(exchange))
  }
}

async function answer(deps: ReplicaListenerDeps, exchange: Exchange): Promise<void> {
  const { req } = exchange
  const { method = '', url: path = '', headers } = req
  const { range, authorization } = headers
  const request = { method, path, range }
  const now = deps.clock.now()
  if (!isSigned({ secret: deps.secret, request, now, authorization }))
    return reply(exchange, 401, ['www-authenticate', tellClock({ secret: deps.secret, request, now })])
  if (method !== 'GET') return reply(exchange, 405, ['allow', 'GET'])
  const digest = path.slice(fillsPath.length)
  if (!path.startsWith(fillsPath) || !isDigest(digest)) return reply(exchange, 404)

  const blob = await openInTime(deps, digest, exchange.signal)
  if (blob === 'opening') return reply(exchange, stillOpening)
  if (blob === undefined) return reply(exchange, 404)
  try {
    await send(deps, exchange, blob)
  } finally {
    deps.onSent?.(exchange.bytes)
    blob.close()
  }
}

function endSpan({ span, req, res, bytes, error }: Exchange): void {
  if (span === undefined) return
  const route = `${fillsPath}<digest>`
  const { method = 'GET' } = req
  span.rename(`${method} ${route}`)
  span.set({
    'http.request.method': method,
    'http.route': route,
    'http.response.status_code': res.statusCode,
    'http.response.body.size': bytes,
  })
  span.end(error)
}

/** Waits a moment for upstream's answer; a longer silence would look as if this replica were dead. */
async function openInTime(
  { openHere, patienceMs = 1_000 }: ReplicaListenerDeps,
  digest: Digest,
  left: AbortSignal,
): Promise<OpenedBlob | 'opening' | undefined> {
  const waiting = new AbortController()
  const timer = setTimeout(() => waiting.abort(tooEarly), patienceMs)
  try {
    return await openHere(digest, AbortSignal.any([left, waiting.signal]))
  } catch (error) {
    if (error === tooEarly) return 'opening'
    throw error
  } finally {
    clearTimeout(timer)
  }
}

const tooEarly = new Error('upstream has not begun to answer')

async function send(deps: ReplicaListenerDeps, exchange: Exchange, blob: OpenedBlob): Promise<void> {
  const { size } = blob
  // Of what has no known size no part can be described: all of it, from the first byte on. https://www.rfc-editor.org/rfc/rfc9110#section-14.4
  const wanted = size === undefined ? undefined : parseRange(exchange.req.headers.range, size)
  if (wanted?.kind === 'unsatisfiable') return reply(exchange, 416, ['content-range', `bytes */${size}`])
  const whole = size === undefined || size === 0 ? undefined : { start: 0, end: size - 1 }
  const part = wanted?.kind === 'single' ? wanted.range : undefined
  const { res } = exchange
  res.strictContentLength = true
  res.writeHead(part ? 206 : 200, headersOf(size, part))
  res.flushHeaders()
  const range = part ?? whole
  const reader = blob.reader(range)
  try {
    if (size !== 0) await sendBytes({ exchange, reader, range, watch: deps.watch })
  } finally {
    reader.close()
  }
  res.end()
  exchange.complete = true
}

function headersOf(size: number | undefined, part: ByteRange | undefined): HeaderList {
  const headers = ['content-type', octetStream, 'cache-control', 'no-store']
  if (size === undefined) return headers
  headers.push('content-length', String(part ? lengthOf(part) : size))
  if (part) headers.push('content-range', contentRange(part, size))
  return headers
}

function reply({ res }: Exchange, status: number, headers: HeaderList = []): void {
  res.writeHead(status, [...headers, 'content-length', '0'])
  res.end()
}

/** Before the status line: 503. After it the connection is cut, so that the other side sees a short body (P-58). */
function refuse(res: ServerResponse): void {
  if (res.destroyed || res.closed) return
  if (res.headersSent) res.socket?.destroySoon()
  else {
    res.writeHead(503, { 'content-length': '0' })
    res.end()
  }
}
