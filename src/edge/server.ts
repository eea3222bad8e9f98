import { createServer, type Server, type ServerResponse, type IncomingMessage } from 'node:http'
import type { Address } from '../config/config.ts'

export type ServerOptions = {
  readonly address: Address
  readonly handler: (req: IncomingMessage, res: ServerResponse) => void
  readonly maxConnections: number
}

export type RunningServer = {
  /** `http://host:port`, with the port that was really bound. */
  readonly url: string
  connections(): Promise<number>
  /** Stops accepting; resolves when every running response is over. Responses that run longer than `drainMs` are cut. */
  close(drainMs: number): Promise<void>
}

/** Starts an HTTP/1.1 listener. Rejects with the system's error (EADDRINUSE, EACCES) when the address cannot be bound. */
export async function startServer({ address, handler, maxConnections }: ServerOptions): Promise<RunningServer> {
  const server = createServer(
    {
      // Longer than a load balancer's idle time (60 s), so that it is never we who close under a request that is on its way (P-108).
      keepAliveTimeout: 75_000,
      headersTimeout: 60_000,
      // For receiving the request only; responses take as long as they take.
      requestTimeout: 300_000,
      requireHostHeader: true,
      insecureHTTPParser: false,
      noDelay: true,
      // A client that lost its power is noticed (F-44).
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
      highWaterMark: 256 * 1024,
    },
    handler,
  )
  server.maxConnections = maxConnections
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) return socket.destroy()
    const tooLarge = error.code === 'HPE_HEADER_OVERFLOW'
    socket.end(
      `HTTP/1.1 ${tooLarge ? '431 Request Header Fields Too Large' : '400 Bad Request'}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
    )
    return undefined
  })
  await listen(server, address)
  return {
    url: urlOf(server, address),
    connections: () => new Promise(resolve => server.getConnections((_error, count) => resolve(count ?? 0))),
    close: drainMs => close(server, drainMs),
  }
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
  server.closeIdleConnections()
  const deadline = setTimeout(() => server.closeAllConnections(), drainMs)
  await closed
  clearTimeout(deadline)
}
