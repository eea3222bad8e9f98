import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { createPacer } from '../../../src/cli/pacer.ts'

/** A TCP link in front of a server: one rate for all connections together, as a WAN or a NAT gateway has. */
export type Link = {
  readonly host: string
  readonly url: string
  /** Bytes that came over it from the server so far. */
  bytes(): number
  /** Connections that were opened over it. */
  connections(): number
  /** Breaks every open connection. */
  cut(): void
  /** Breaks every open connection and refuses new ones, until {@link Link.restore}. */
  sever(): void
  restore(): void
  close(): Promise<void>
}

export type LinkOptions = {
  /** `host:port` of the server behind. */
  readonly to: string
  /** The cap on what comes from the server, perhaps one that changes; absent: none. */
  readonly bytesPerSecond?: number | (() => number)
  readonly port?: number
}

export async function openLink({ to, bytesPerSecond, port = 0 }: LinkOptions): Promise<Link> {
  const [toHost = '', toPort = ''] = to.split(':')
  const sockets = new Set<Socket>()
  const pass = createPacer(bytesPerSecond)
  let bytes = 0
  let connections = 0
  let severed = false
  const paced = async function* (chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      await pass(chunk.length)
      bytes += chunk.length
      yield chunk
    }
  }
  const server = createServer({ noDelay: true }, client => {
    if (severed) {
      client.resetAndDestroy()
      return
    }
    connections += 1
    const origin = connect({ host: toHost, port: Number(toPort), noDelay: true })
    for (const socket of [client, origin]) {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
    }
    client.on('error', () => origin.destroy())
    client.on('close', () => origin.destroy())
    origin.on('error', () => client.destroy())
    client.pipe(origin)
    // It ends badly when either side broke, and then the handlers above have broken the other.
    pipeline(origin, paced, client).catch(() => client.destroy())
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the link has no port')
  const cut = (): void => {
    for (const socket of sockets) socket.resetAndDestroy()
  }
  return {
    host: `127.0.0.1:${address.port}`,
    url: `http://127.0.0.1:${address.port}`,
    bytes: () => bytes,
    connections: () => connections,
    cut,
    sever() {
      severed = true
      cut()
    },
    restore() {
      severed = false
    },
    async close() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
