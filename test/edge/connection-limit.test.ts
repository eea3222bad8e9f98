import { connect, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { ConnectionLimit, ownerOf } from '../../src/edge/connection-limit.ts'
import { startServer } from '../../src/edge/server.ts'
import { errorCode, eventually } from './pulling.ts'
import { parseResponse, rawRequest } from '../fakes/raw-client.ts'

describe('whose connection it is', () => {
  it.each([
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:db8:1:2::9', '2001:db8:1:2'],
    ['2001:db8::9', '2001:db8:0:0'],
    ['fe80::1%eth0', 'fe80:0:0:0'],
    ['127.0.0.1', undefined],
    ['127.1.2.3', undefined],
    ['::ffff:127.0.0.1', undefined],
    ['::1', undefined],
  ])('T-34: of %s is %s', (address, owner) => {
    expect(ownerOf(address)).toBe(owner)
  })
})

/** A server that answers with "ok" whoever it lets in, and takes each connection for one of `owner()`. */
async function serverFor(max: number, owner: () => string | undefined = () => 'a') {
  const refused: string[] = []
  const limit = new ConnectionLimit({ max, ownerOf: owner, onRefused: address => refused.push(address) })
  const server = await startServer({
    address: { host: '127.0.0.1', port: 0 },
    handler: (_req, res) => void res.end('ok'),
    maxConnections: 1_000,
    limit,
  })
  onTestFinished(() => server.close(0))
  return { port: Number(new URL(server.url).port), refused, connections: () => server.connections() }
}

async function idle(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('error', () => undefined)
  await new Promise(resolve => socket.once('connect', resolve))
  onTestFinished(() => void socket.destroy())
  return socket
}

const accepted = (connections: () => Promise<number>, count: number) =>
  eventually(async () => ((await connections()) === count ? true : undefined))

describe('connections of one address', () => {
  it('T-34: beyond the limit are told 503 and closed, and there is room again when others close', async () => {
    const { port, refused, connections } = await serverFor(2)
    const [first] = [await idle(port), await idle(port)]
    await accepted(connections, 2)
    const answer = await rawRequest(port, '/v2/')
    expect(answer.status).toBe(503)
    expect(answer.headers['connection']).toBe('close')
    expect(errorCode(answer)).toBe('UNAVAILABLE')
    expect(refused).toEqual(['127.0.0.1'])
    first?.destroy()
    await eventually(async () => ((await rawRequest(port, '/v2/')).status === 200 ? true : undefined))
  })

  it('T-34: that say nothing are closed as well', async () => {
    const { port, connections } = await serverFor(1)
    await idle(port)
    await accepted(connections, 1)
    const silent = await idle(port)
    let received = ''
    silent.on('data', (chunk: Buffer) => (received += chunk.toString()))
    await new Promise(resolve => silent.once('close', resolve))
    expect(parseResponse(Buffer.from(received)).status).toBe(503)
    await accepted(connections, 1)
  })

  it('T-34: do not take the places of others', async () => {
    let owner = 'a'
    const { port, connections } = await serverFor(1, () => owner)
    await idle(port)
    await accepted(connections, 1)
    expect((await rawRequest(port, '/v2/')).status).toBe(503)
    owner = 'b'
    expect((await rawRequest(port, '/v2/')).status).toBe(200)
  })
})
