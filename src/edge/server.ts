import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Address } from '../config/config.ts'
import type { ErrorCode } from '../oci/errors.ts'
import type { ConnectionLimit } from './connection-limit.ts'

type Handler = (req: IncomingMessage, res: ServerResponse) => void

export type ServerOptions = {
  readonly address: Address
  /** Called for one request of a connection at a time. */
  readonly handler: Handler
  readonly maxConnections: number
  /** Undefined: one address may have all connections. */
  readonly limit?: ConnectionLimit
}

export type RunningServer = {
  /** `http://host:port`, with the port that was really bound. */
  readonly url: string
  connections(): Promise<number>
  /** Stops accepting; resolves when every running response is over. Responses that run longer than `drainMs` are cut. */
  close(drainMs: number): Promise<void>
}

/** Starts an HTTP/1.1 listener. Rejects with the system's error (EADDRINUSE, EACCES) when the address cannot be bound. */
export async function startServer({ address, handler, maxConnections, limit }: ServerOptions): Promise<RunningServer> {
  const latest = new WeakMap<Duplex, ServerResponse>()
  const refused = new WeakSet<Duplex>()
  const inTurn = oneAtATime((req, res) => {
    if (!refused.has(req.socket)) handler(req, res)
  }, latest)
  const server = createServer(
    {
      // Longer than a load balancer's idle time (60 s), so that it is never we who close under a request that is on its way (P-108).
      keepAliveTimeout: 75_000,
      headersTimeout: 60_000,
      // For receiving the request only; responses take as long as they take.
      requestTimeout: 300_000,
      // The handler refuses its absence with an error document.
      requireHostHeader: false,
      insecureHTTPParser: false,
      noDelay: true,
      // A client that lost its power is noticed (F-44).
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
      highWaterMark: 256 * 1024,
    },
    inTurn,
  )
  // Without a listener Node answers these by itself, without an error document.
  server.on('checkExpectation', inTurn)
  server.maxConnections = maxConnections
  if (limit)
    server.on('connection', socket => {
      if (limit.admit(socket)) return
      refused.add(socket)
      turnAway(socket)
    })
  server.on('clientError', (error, socket) => refuse(error, socket, latest.get(socket)))
  await listen(server, address)
  return {
    url: urlOf(server, address),
    connections: () => new Promise(resolve => server.getConnections((_error, count) => resolve(count ?? 0))),
    close: drainMs => close(server, drainMs),
  }
}

/**
 * Runs the requests of a connection one after the other. Node hands a pipelined response its socket only when those before it are over:
 * until then nothing that is written leaves, and that the client has gone shows nowhere (F-71).
 */
function oneAtATime(handler: Handler, latest: WeakMap<Duplex, ServerResponse>): Handler {
  const waiting = new WeakMap<Duplex, number>()
  return (req, res) => {
    const { socket } = req
    const before = latest.get(socket)
    latest.set(socket, res)
    if (before === undefined || res.socket !== null) return handler(req, res)
    const count = (waiting.get(socket) ?? 0) + 1
    if (count > maxWaiting) return void socket.destroy()
    waiting.set(socket, count)
    before.once('close', () => {
      waiting.set(socket, (waiting.get(socket) ?? 1) - 1)
      if (!socket.destroyed) handler(req, res)
    })
  }
}

/**
 * Requests that wait behind others of their connection. Node reads on however many there are, and each takes kilobytes (T-34). Clients of
 * registries send none ahead; who sends more is disconnected.
 */
const maxWaiting = 128

/** Answers bytes that are no request, and closes. Nothing is written into or behind an answer that is on its way (T-31). */
function refuse(error: NodeJS.ErrnoException, socket: Duplex | Socket, latest: ServerResponse | undefined): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
  if (latest !== undefined && !latest.writableFinished) {
    if (latest.writableEnded && 'destroySoon' in socket) socket.destroySoon()
    else socket.destroy()
    return
  }
  socket.end(refusals[error.code ?? ''] ?? malformed)
}

/**
 * Says why, whatever was asked, and closes: 503, at which clients go elsewhere. It is closed a moment later, because what has arrived unread by then would
 * make the end a reset, which takes the answer with it.
 */
function turnAway(socket: Socket): void {
  socket.on('error', () => undefined)
  socket.end(tooMany)
  setTimeout(() => socket.destroy(), lingerMs).unref()
}

const lingerMs = 500
const tooMany = refusal('503 Service Unavailable', 'UNAVAILABLE', 'too many connections from this address')
const malformed = refusal('400 Bad Request', 'UNSUPPORTED', 'this is not a well-formed HTTP/1.1 request')
const refusals: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: refusal(
    '431 Request Header Fields Too Large',
    'SIZE_INVALID',
    'the request headers are too long',
  ),
  ERR_HTTP_REQUEST_TIMEOUT: refusal('408 Request Timeout', 'UNSUPPORTED', 'the request did not arrive in time'),
}

function refusal(status: string, code: ErrorCode, message: string): string {
  const body = `${JSON.stringify({ errors: [{ code, message }] })}\n`
  return `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`
}

function listen(server: Server, { host, port }: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port, backlog: 4096 }, () => {
      server.off('error', reject)
      // Later errors concern single connections (EMFILE while accepting, F-37); the listener goes on.
      server.on('error', () => undefined)
      resolve()
    })
  })
}

function urlOf(server: Server, { host }: Address): string {
  const bound = server.address()
  const port = bound !== null && typeof bound === 'object' ? bound.port : 0
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`
}

async function close(server: Server, drainMs: number): Promise<void> {
  const closed = new Promise<void>(resolve => server.close(() => resolve()))
  // Connections whose answers end from now on stay open for the next request, which nobody will make.
  server.closeIdleConnections()
  const idle = setInterval(() => server.closeIdleConnections(), 100)
  const deadline = setTimeout(() => server.closeAllConnections(), drainMs)
  await closed
  clearInterval(idle)
  clearTimeout(deadline)
}
