import { connect, type Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { startTestLayover } from '../fakes/layover.ts'
import { exchangeRaw, parseResponse } from '../fakes/raw-client.ts'
import { pseudoRandomBytes } from '../fakes/image.ts'
import { accessLines, errorCode, eventually, get, openStream, usingLayover } from './pulling.ts'

const room = usingLayover()
const size = 1_000_000

const host = (): string => `Host: 127.0.0.1:${room.layover.port}\r\n`

function blob(length = size, seed = 1): { bytes: Buffer; digest: string; path: string } {
  const bytes = pseudoRandomBytes(length, seed)
  const digest = room.registry.addBlobTo('app', bytes)
  return { bytes, digest, path: `/v2/app/blobs/${digest}` }
}

describe('a body that cannot be completed', () => {
  test.each([
    ['F-2, F-3: cut for good', { kind: 'cut', at: size - 1, how: 'fin' } as const],
    ['F-1: reset for good', { kind: 'cut', at: size / 2, how: 'rst' } as const],
    ['F-7: right length, last byte wrong', { kind: 'flip', at: size - 1 } as const],
    ['F-7: right length, first byte wrong', { kind: 'flip', at: 0 } as const],
  ])(
    'P-58, P-59, T-32, %s: the connection ends by FIN and the next answer is never read as blob',
    async (_what, fault) => {
      const { bytes, path } = blob()
      room.registry.fault({ path: /\/blobs\// }, fault)
      room.registry.fault({ path: /\/blobs\//, times: 1000 }, fault.kind === 'cut' ? { ...fault, at: 0 } : fault)
      const both = `GET ${path} HTTP/1.1\r\n${host()}\r\nGET /v2/ HTTP/1.1\r\n${host()}Connection: close\r\n\r\n`
      const { bytes: received, ending } = await exchangeRaw(room.layover.port, both, { timeoutMs: 20_000 })
      const { status, headers, body } = parseResponse(received)
      expect([status, headers['content-length'], ending]).toEqual([200, String(size), 'fin'])
      expect(body.length).toBeLessThan(size)
      // A cut upstream said nothing wrong, so that a client can resume where it was left.
      expect(fault.kind === 'flip' || body.equals(bytes.subarray(0, body.length))).toBe(true)
      // One status line: nothing is appended, neither an error document nor the second answer.
      expect(received.toString('latin1').match(/HTTP\/1\.1 \d\d\d/g)).toHaveLength(1)
    },
  )

  test('P-58, F-5: a body of unknown length ends without the last chunk', async () => {
    const { path } = blob()
    room.registry.fault({ path: /\/blobs\//, times: 1000 }, { kind: 'chunked', cutAt: size / 2 })
    const { bytes: received, ending } = await exchangeRaw(room.layover.port, `GET ${path} HTTP/1.1\r\n${host()}\r\n`, {
      timeoutMs: 20_000,
    })
    const { status, headers } = parseResponse(received)
    expect([status, headers['transfer-encoding'], ending]).toEqual([200, 'chunked', 'fin'])
    expect(received.subarray(-5).toString()).not.toBe('0\r\n\r\n')
  })

  test('P-58, P-107, F-4: an HTTP/1.0 client, which only has the end of the connection to go by, sees a reset', async () => {
    const { path } = blob()
    room.registry.fault({ path: /\/blobs\// }, { kind: 'noLength', closeAt: size / 2 })
    room.registry.fault({ path: /\/blobs\//, times: 1000 }, { kind: 'status', status: 404 })
    const { bytes: received, ending } = await exchangeRaw(room.layover.port, `GET ${path} HTTP/1.0\r\n\r\n`, {
      timeoutMs: 20_000,
    })
    expect(parseResponse(received).headers).not.toHaveProperty('content-length')
    expect(ending).toBe('reset')
  })

  test('F-8, P-60: a size that differs from the manifest’s is 502 before the first byte', async () => {
    const image = room.registry.image('app', 'latest', { layerBytes: 5_000 })
    await get(room.layover, '/v2/app/manifests/latest')
    room.registry.fault({ path: /\/blobs\// }, { kind: 'lie', contentLength: 6_000 })
    const answer = await get(room.layover, `/v2/app/blobs/${image.layers[0]?.digest}`)
    expect([answer.status, errorCode(answer)]).toEqual([502, 'UNAVAILABLE'])
  })

  test('P-58, F-1: an upstream that breaks off once is not noticed', async () => {
    const { bytes, path } = blob()
    room.registry.fault({ path: /\/blobs\// }, { kind: 'cut', at: size / 3, how: 'rst' })
    const { status, body } = await get(room.layover, path)
    expect([status, body.equals(bytes)]).toEqual([200, true])
    expect(room.registry.count({ method: 'GET', path: /blobs/ })).toBe(2)
  })
})

describe('several requests on one connection', () => {
  test('F-71: pipelined requests are answered in order, also behind a blob that still streams', async () => {
    const first = blob(size, 1)
    const second = blob(300_000, 2)
    const gate = room.registry.gate({ path: new RegExp(first.digest), afterBytes: size / 2 })
    const requests = [first.path, second.path, '/v2/', second.path].map(
      (path, index) => `GET ${path} HTTP/1.1\r\n${host()}${index === 3 ? 'Connection: close\r\n' : ''}\r\n`,
    )
    const exchange = exchangeRaw(room.layover.port, requests.join(''))
    await gate.reached
    gate.release()
    const { bytes: received, ending } = await exchange
    expect(ending).toBe('fin')
    const bodies = split(received)
    expect(bodies.map(body => digestOf(body))).toEqual([
      first.digest,
      second.digest,
      digestOf(Buffer.from('{}')),
      second.digest,
    ])
  })

  test('F-71, F-44: a client that leaves takes its waiting requests with it', async () => {
    const first = blob(size, 1)
    const second = blob(300_000, 2)
    const gate = room.registry.gate({ path: new RegExp(first.digest), afterBytes: size / 2 })
    const socket = connect(room.layover.port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write([first.path, second.path].map(path => `GET ${path} HTTP/1.1\r\n${host()}\r\n`).join(''))
    await gate.reached
    socket.destroy()
    const [line] = await accessLines(room.layover, 1)
    expect(line).toMatchObject({ status: 499, reference: first.digest })
    gate.release()
    expect(room.registry.count({ path: new RegExp(second.digest) })).toBe(0)
  })

  test('P-46, P-2: HEAD on a kept connection is followed by the next answer at once', async () => {
    const { path, bytes } = blob()
    const both = `HEAD ${path} HTTP/1.1\r\n${host()}\r\nGET ${path} HTTP/1.1\r\n${host()}Connection: close\r\n\r\n`
    const { bytes: received } = await exchangeRaw(room.layover.port, both)
    const headEnd = received.indexOf('\r\n\r\n') + 4
    const { status, body } = parseResponse(received.subarray(headEnd))
    expect([status, body.equals(bytes)]).toEqual([200, true])
  })
})

describe('old clients', () => {
  test('P-107: an HTTP/1.0 client gets a length, no chunks, and the end of the connection', async () => {
    const { path, bytes } = blob()
    const { bytes: received, ending } = await exchangeRaw(room.layover.port, `GET ${path} HTTP/1.0\r\n\r\n`)
    const { headers, body } = parseResponse(received)
    expect([headers['content-length'], headers['transfer-encoding'], ending]).toEqual([String(size), undefined, 'fin'])
    expect(body.equals(bytes)).toBe(true)
  })

  test('P-107: without a known length the body is delimited by the end of the connection', async () => {
    const { path, bytes } = blob()
    room.registry.fault({ path: /\/blobs\// }, { kind: 'chunked' })
    const { bytes: received, ending } = await exchangeRaw(room.layover.port, `GET ${path} HTTP/1.0\r\n\r\n`)
    const { headers, body } = parseResponse(received)
    expect([headers['content-length'], headers['transfer-encoding'], ending]).toEqual([undefined, undefined, 'fin'])
    expect(body.equals(bytes)).toBe(true)
  })
})

describe('clients that leave', () => {
  test('P-120: one that leaves in the middle is logged as 499 and disturbs nobody', async () => {
    const { path, bytes } = blob()
    const gate = room.registry.gate({ path: /blobs/, afterBytes: size / 2 })
    const leaving = await openStream(room.layover, path)
    const staying = await openStream(room.layover, path)
    await leaving.read(1000)
    leaving.leave()
    const [line] = await accessLines(room.layover, 1)
    expect(line).toMatchObject({ status: 499, outcome: 'fill', level: 'info' })
    expect(line).not.toHaveProperty('error')
    gate.release()
    expect((await staying.rest()).body.equals(bytes)).toBe(true)
    expect(await room.layover.metric('layover_client_aborts_total')).toBe(1)
    expect(room.registry.count({ method: 'GET', path: /blobs/ })).toBe(1)
  })

  test.each(['manifests/latest', 'tags/list', 'blobs'])(
    'P-120: one that leaves before the answer to %s began is logged as 499',
    async route => {
      const image = room.registry.image('app', 'latest')
      const path = route === 'blobs' ? `/v2/app/blobs/${image.config.digest}` : `/v2/app/${route}`
      const gate = room.registry.gate({ path: /^\/v2\/app/ })
      const socket = connect(room.layover.port, '127.0.0.1')
      socket.write(`GET ${path} HTTP/1.1\r\n${host()}\r\n`)
      await gate.reached
      socket.destroy()
      const [line] = await accessLines(room.layover, 1)
      expect(line).toMatchObject({ status: 499, bytes: 0, level: 'info' })
      expect(line).not.toHaveProperty('error')
      gate.release()
      const answer = await get(room.layover, path)
      expect(answer.status).toBe(200)
    },
  )

  test('F-43: a hundred clients that reset their connections at random places harm nothing', async () => {
    const { path, bytes } = blob()
    await Promise.all(
      Array.from({ length: 100 }, async (_, index) => {
        const socket = connect(room.layover.port, '127.0.0.1')
        socket.on('error', () => undefined)
        socket.write(`GET ${path} HTTP/1.1\r\n${host()}\r\n`)
        let received = 0
        await new Promise<void>(resolve => {
          socket.on('close', () => resolve())
          socket.on('data', (chunk: Buffer) => {
            received += chunk.length
            if (received > index * 10_000) socket.resetAndDestroy()
          })
        })
      }),
    )
    expect((await get(room.layover, path)).body.equals(bytes)).toBe(true)
    expect(room.registry.count({ method: 'GET', path: /blobs/ })).toBe(1)
  })
})

describe('draining', () => {
  test('P-121, F-41: while draining the running answer finishes and /readyz is 503; then nobody listens', async () => {
    const { path, bytes } = blob()
    const gate = room.registry.gate({ path: /blobs/, afterBytes: size / 2 })
    const running = await openStream(room.layover, path)
    const idle = connect(room.layover.port, '127.0.0.1')
    const idleEnd = new Promise(resolve => idle.once('close', resolve))
    idle.resume()
    await eventually(async () =>
      (await room.layover.metric('layover_fills_running{upstream="fake.test"}')) === 1 ? true : undefined,
    )
    const drained = room.layover.drain()
    expect((await fetch(`${room.layover.adminUrl}/readyz`)).status).toBe(503)
    idle.end()
    await idleEnd
    gate.release()
    const { body, complete } = await running.rest()
    expect([body.equals(bytes), complete]).toEqual([true, true])
    await drained
    expect(await get(room.layover, '/v2/')).toMatchObject({ status: 0, ending: 'reset' })
  })

  test('P-121: a request on a connection that is already open is answered with Connection: close', async () => {
    const { path } = blob()
    const gate = room.registry.gate({ path: /blobs/, afterBytes: size / 2 })
    const both = `GET ${path} HTTP/1.1\r\n${host()}\r\nGET /v2/ HTTP/1.1\r\n${host()}\r\n`
    const exchange = exchangeRaw(room.layover.port, both)
    await gate.reached
    const drained = room.layover.drain()
    gate.release()
    const { bytes: received, ending } = await exchange
    await drained
    const last = parseResponse(received.subarray(received.lastIndexOf('HTTP/1.1 ')))
    expect([last.status, last.headers.connection, last.body.toString(), ending]).toEqual([200, 'close', '{}', 'fin'])
  })

  test('F-41: a kept connection whose answer finished while draining does not delay the end', async () => {
    const { path } = blob()
    const gate = room.registry.gate({ path: /blobs/, afterBytes: size / 2 })
    const socket = connect(room.layover.port, '127.0.0.1')
    socket.resume()
    const closed = new Promise<number>(resolve => socket.once('close', () => resolve(performance.now())))
    socket.write(`GET ${path} HTTP/1.1\r\n${host()}\r\n`)
    await gate.reached
    const drained = room.layover.drain()
    gate.release()
    const from = performance.now()
    await drained
    expect((await closed) - from).toBeLessThan(20_000)
    expect(performance.now() - from).toBeLessThan(20_000)
  })
})

describe('slow readers', () => {
  test('P-109, T-34, F-44: readers that take nothing are disconnected, and the one that reads is not', async () => {
    const bytes = pseudoRandomBytes(12 * 1024 * 1024)
    const digest = room.registry.addBlobTo('app', bytes)
    const layover = await startTestLayover({
      upstreams: { 'fake.test': room.registry },
      config: { clients: { maxConnections: 1_000, stallMs: 200 } },
    })
    try {
      const stalled = Array.from({ length: 20 }, () => stalledReader(layover.port, `/v2/app/blobs/${digest}`))
      const reading = await get(layover, `/v2/app/blobs/${digest}`)
      expect(reading.body.equals(bytes)).toBe(true)
      const lines = await accessLines(layover, 21)
      expect(lines.filter(line => line.status === 499)).toHaveLength(20)
      for (const socket of stalled) socket.destroy()
      await eventually(async () => ((await layover.metric('layover_client_connections')) === 0 ? true : undefined))
    } finally {
      await layover.close()
    }
  })

  test('T-34: a reader that is slow but takes something stays', async () => {
    const bytes = pseudoRandomBytes(8 * 1024 * 1024)
    const digest = room.registry.addBlobTo('app', bytes)
    const layover = await startTestLayover({
      upstreams: { 'fake.test': room.registry },
      config: { clients: { maxConnections: 1_000, stallMs: 2_000 } },
    })
    try {
      const slow = await openStream(layover, `/v2/app/blobs/${digest}`)
      for (let read = 0; read < bytes.length; read += 1024 * 1024) {
        await slow.read(read)
        await setTimeout(350)
      }
      const { body, complete } = await slow.rest()
      expect([body.equals(bytes), complete]).toEqual([true, true])
    } finally {
      await layover.close()
    }
  })
})

/** Asks and never reads. */
function stalledReader(port: number, path: string): Socket {
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('error', () => undefined)
  socket.pause()
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
  return socket
}

/** The bodies of several answers with Content-Length. */
function split(received: Buffer): Buffer[] {
  const bodies: Buffer[] = []
  for (let rest = received; rest.length > 0; ) {
    const { headers, body } = parseResponse(rest)
    const length = Number(headers['content-length'])
    bodies.push(body.subarray(0, length))
    rest = body.subarray(length)
  }
  return bodies
}
