import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { eventually, get, openStream, untilStored } from '../edge/pulling.ts'
import { FakeClock } from '../fakes/clock.ts'
import { ociManifestType } from '../fakes/image.ts'
import { rawRequest } from '../fakes/raw-client.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'

let registry: FakeRegistry
let layover: TestLayover

beforeEach(async () => {
  registry = await startFakeRegistry()
  layover = await startTestLayover({
    upstreams: { 'fake.test': { url: registry.url, headersTimeoutMs: 30_000 } },
    config: { clients: { maxConnections: 10_000, stallMs: 50 } },
    clock: new FakeClock(),
  })
})
afterEach(async () => {
  await layover.close()
  await registry.stop()
})

/** Counted once a second. */
const connections = () => layover.metric('layover_client_connections')

describe('clients that do not read', () => {
  test('T-34, F-44: one that takes nothing of a large manifest or list is disconnected', async () => {
    const annotations = { filler: 'x'.repeat(4_000_000) }
    const image = { schemaVersion: 2, mediaType: ociManifestType, config: undefined, layers: [], annotations }
    registry.addManifest('team/app', 'large', image, ociManifestType)
    await get(layover, '/v2/team/app/manifests/large')
    const lines = Array.from({ length: 8 }, () => 'GET /v2/team/app/manifests/large HTTP/1.1\r\nhost: a\r\n\r\n')
    const socket = connect({ port: layover.port, host: '127.0.0.1' })
    socket.on('error', () => undefined)
    socket.pause()
    socket.write(lines.join(''))
    await eventually(async () => ((await connections()) === 1 ? true : undefined))
    await eventually(async () => ((await connections()) === 0 ? true : undefined), 15_000)
    // It was not the client that ended it.
    expect(socket.destroyed).toBe(false)
    socket.destroy()
  })
})

describe('pipelines', () => {
  test('T-34, F-71: requests that wait behind one answer are bounded', async () => {
    const gate = registry.gate({ path: /manifests/ })
    const socket = connect({ port: layover.port, host: '127.0.0.1' })
    socket.on('error', () => undefined)
    const closed = new Promise<boolean>(resolve => socket.once('close', () => resolve(true)))
    socket.resume()
    socket.write('GET /v2/team/app/manifests/slow HTTP/1.1\r\nhost: a\r\n\r\n')
    const burst = 'GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(1_000)
    await gate.reached
    for (let count = 0; count < 20 && !socket.destroyed; count++) {
      socket.write(burst)
      await sleep(5)
    }
    expect(await Promise.race([closed, sleep(2_000).then(() => false)])).toBe(true)
    gate.release()
    expect((await get(layover, '/v2/')).status).toBe(200)
  })

  test('F-71: a client that asks for a whole image at once is served', async () => {
    const burst = 'GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(64)
    const socket = connect({ port: layover.port, host: '127.0.0.1' })
    let received = ''
    socket.on('data', chunk => (received += chunk.toString()))
    socket.write(burst)
    const answers = () => received.split('HTTP/1.1 200').length - 1
    await eventually(() => (answers() >= 64 ? true : undefined))
    expect(answers()).toBe(64)
    socket.destroy()
  })
})

describe('upstream requests that nobody waits for', () => {
  test('T-35: those who ask for everything and leave do not hold up who waits', async () => {
    registry.image('team/app', 'v1')
    const gate = registry.gate({ path: /garbage/ })
    const sockets = Array.from({ length: 100 }, (_, index) => {
      const socket = connect({ port: layover.port, host: '127.0.0.1' })
      socket.on('error', () => undefined)
      socket.write(`GET /v2/garbage/r${index}/manifests/x HTTP/1.1\r\nhost: a\r\n\r\n`)
      return socket
    })
    await gate.reached
    await eventually(() => (registry.count({ path: /garbage/ }) >= 60 ? true : undefined))
    for (const socket of sockets) socket.destroy()
    const answer = await Promise.race([
      rawRequest(layover.port, '/v2/team/app/manifests/v1', { timeoutMs: 9_000 }),
      sleep(9_000),
    ])
    gate.release()
    expect(answer?.status).toBe(200)
  })
})

describe('a token server that does not answer', () => {
  test('T-35, F-72: holds up nobody who has a token', async () => {
    const company = await startFakeRegistry({ auth: 'bearer' })
    const cache = await startTestLayover({
      upstreams: { 'company.test': { url: company.url, headersTimeoutMs: 30_000 } },
    })
    company.image('team/app', 'v1')
    await get(cache, '/v2/team/app/manifests/v1')
    const gate = company.gate({ path: /token/ })
    const sockets = Array.from({ length: 100 }, (_, index) => {
      const socket = connect({ port: cache.port, host: '127.0.0.1' })
      socket.on('error', () => undefined)
      socket.write(`GET /v2/garbage/r${index}/manifests/x HTTP/1.1\r\nhost: a\r\n\r\n`)
      return socket
    })
    await gate.reached
    await eventually(() => (company.count({ path: /token/ }) >= 30 ? true : undefined))
    // The token server answers nobody until the gate opens, and this does not wait for it.
    const { status } = await get(cache, '/v2/team/app/manifests/other')
    expect(status).toBe(404)
    expect(company.count({ path: /token/ })).toBeLessThan(50)
    for (const socket of sockets) socket.destroy()
    gate.release()
    await cache.close()
    await company.stop()
  })
})

describe('fetching ahead', () => {
  test('T-35: an upstream that sends next to nothing holds up no other', async () => {
    const good = await startFakeRegistry()
    const upstreams = { 'good.test': good, 'slow.test': registry }
    const cache = await startTestLayover({ upstreams, config: { prefetch: 'all' } })
    registry.image('team/app', 'v1', { layers: 3, layerBytes: 500_000 })
    registry.fault({ method: 'GET', path: /blobs/, times: 50 }, { kind: 'slow', bytesPerSecond: 100 })
    await get(cache, '/v2/slow.test/team/app/manifests/v1')
    await eventually(() => (registry.count({ path: /blobs/ }) === 2 ? true : undefined))
    good.image('team/app', 'v1')
    await get(cache, '/v2/team/app/manifests/v1')
    await eventually(() => (good.count({ path: /blobs/ }) === 3 ? true : undefined))
    expect(registry.count({ path: /blobs/ })).toBe(2)
    await cache.close()
    await good.stop()
  })
})

describe('an upstream that announces more than it sends', () => {
  test('T-47: what is cached stays', async () => {
    const announced = 127 * 1024 * 1024
    const liar = createServer((_req, res) => res.writeHead(200, { 'content-length': announced }).flushHeaders())
    await new Promise<void>(resolve => liar.listen(0, '127.0.0.1', resolve))
    const url = `http://127.0.0.1:${(liar.address() as AddressInfo).port}`
    const cache = await startTestLayover({
      upstreams: { 'fake.test': registry, 'liar.test': { url, idleTimeoutMs: 30_000 } },
      config: { storage: { maxBytes: 128 * 1024 * 1024 } },
    })
    const cached = Array.from({ length: 8 }, (_, index) =>
      registry.addBlobTo('team/app', Buffer.alloc(1024 * 1024, index + 1)),
    )
    for (const digest of cached) await get(cache, `/v2/team/app/blobs/${digest}`)
    await untilStored(cache, 8)
    const client = await openStream(cache, `/v2/liar.test/team/app/blobs/sha256:${'a'.repeat(64)}`)
    expect(client.response.headers['content-length']).toBe(String(announced))
    const storage = async () =>
      ((await (await fetch(`${cache.adminUrl}/status`)).json()) as { storage: Record<string, number> }).storage
    await eventually(async () => ((await storage())['reservedBytes'] === 64 * 1024 * 1024 ? true : undefined))
    expect((await storage())['blobs']).toBe(8)
    client.leave()
    await cache.close()
    liar.closeAllConnections()
    await new Promise(resolve => liar.close(resolve))
  })
})
