import { toRegistryError } from '../cache/upstream-failure.ts'
import { RegistryError } from '../oci/errors.ts'
import type { Exchange } from './exchange.ts'
import { commonHeaders, type HeaderList } from './headers.ts'

/** Sends a small body, or only its headers for HEAD. */
export function replyBytes(exchange: Exchange, status: number, headers: HeaderList, body: Uint8Array): void {
  const { res } = exchange
  headers.push('content-length', String(body.length))
  res.writeHead(status, headers)
  if (exchange.isHead) res.end()
  else {
    exchange.wrote(body.length)
    res.end(body)
  }
  exchange.complete = true
}

/** Sends headers alone: 304, or the answer to HEAD. */
export function replyEmpty(exchange: Exchange, status: number, headers: HeaderList): void {
  exchange.res.writeHead(status, headers)
  exchange.res.end()
  exchange.complete = true
}

/**
 * The only place where errors become responses. Before the status line: an error document (P-98). After it: the connection is cut,
 * by FIN, so that the client sees a short body and can resume; nothing is ever appended.
 */
export function replyError(exchange: Exchange, thrown: unknown): void {
  exchange.error = thrown
  const { res } = exchange
  // Nobody is there to be told: the client left while it waited.
  if (res.destroyed || res.closed) return
  if (res.headersSent) {
    cut(exchange)
    return
  }
  const error = publicError(exchange, thrown)
  exchange.outcome = error.code === 'DENIED' ? 'denied' : 'error'
  const headers = [...commonHeaders(exchange), 'content-type', 'application/json', 'cache-control', 'no-store']
  for (const [name, value] of Object.entries(error.headers)) headers.push(name, value)
  const { code, message, detail } = error
  const entry = detail === undefined ? { code, message } : { code, message, detail }
  replyBytes(exchange, error.status, headers, Buffer.from(`${JSON.stringify({ errors: [entry] })}\n`))
}

/**
 * Ends the connection early: what was sent leaves, then FIN. In HTTP/1.0 an end by FIN may be all that marks the end of a body, so that only
 * a reset tells a broken one.
 */
function cut(exchange: Exchange): void {
  exchange.cut = true
  const { socket } = exchange.res
  if (exchange.req.httpVersion === '1.0') socket?.resetAndDestroy()
  else socket?.destroySoon()
}

function publicError(exchange: Exchange, thrown: unknown): RegistryError {
  const { kind, repository = '', reference } = exchange
  const subjectKind = kind === 'base' || kind === 'other' ? 'manifest' : kind
  return toRegistryError(thrown, {
    kind: subjectKind,
    repository,
    ...(reference === undefined ? {} : { reference }),
  })
}
