import { connect, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { FaultMatch } from '../fakes/faults.ts'
import { pseudoRandomBytes } from '../fakes/image.ts'
import { exchangeRaw, parseResponse, type RawResponse } from '../fakes/raw-client.ts'
import {
  blobPath,
  completeBody,
  expectCleanAftermath,
  failuresOf,
  figure,
  kib,
  mib,
  pull,
  type Scene,
  startScene,
} from './scene.ts'

const blobs = { method: 'GET', path: /\/blobs\// } satisfies FaultMatch

describe('many clients of one download', () => {
  it('F-17: the one that started it leaves at a tenth, fifty others get every byte from one request', async () => {
    const scene = await startScene({ bytes: pseudoRandomBytes(mib, 'F-17') })
    const { registry, layover, digest, bytes } = scene
    const before = registry.count(blobs)
    const gate = registry.gate({ ...blobs, afterBytes: 100 * kib })
    const leader = dial(scene)
    await gate.reached
    const followers = Array.from({ length: 50 }, () => pull(layover, digest))
    await vi.waitFor(async () => expect(await running(scene, 'connections')).toBeGreaterThan(50))
    leader.resetAndDestroy()
    gate.release()
    const responses = await Promise.all(followers)
    for (const response of responses) expect(completeBody(response)?.equals(bytes)).toBe(true)
    expect(registry.count(blobs) - before).toBe(1)
    await expectCleanAftermath(scene, { responses })
  })

  it('F-18: everybody left and much is missing: the download ends, and its connection and room are given back', async () => {
    const scene = await startScene()
    const { registry, layover } = scene
    const gate = registry.gate({ ...blobs, afterBytes: 100 * kib })
    const client = dial(scene)
    await gate.reached
    await vi.waitFor(async () => expect(await running(scene, 'fills')).toBe(1))
    client.resetAndDestroy()
    await vi.waitFor(async () => expect(await running(scene, 'fills')).toBe(0))
    expect(await figure(layover, 'layover_fills_total', { outcome: 'cancelled' })).toBe(1)
    gate.release()
    await expectCleanAftermath(scene, { responses: [] })
    const stopped = registry.requests.find(({ path, status }) => path === blobPath(scene.digest) && status === 200)
    expect(stopped?.bodyBytes).toBeLessThan(scene.bytes.length)
  })

  it('F-18: everybody left and little is missing: the download is finished, the next client has a hit', async () => {
    const scene = await startScene({ fills: { finishWithinBytes: mib } })
    const { registry, layover, digest } = scene
    const before = registry.count(blobs)
    const gate = registry.gate({ ...blobs, afterBytes: 100 * kib })
    const client = dial(scene)
    await gate.reached
    client.resetAndDestroy()
    await vi.waitFor(async () => expect(await running(scene, 'connections')).toBeLessThan(2), { timeout: 3_000 })
    gate.release()
    await vi.waitFor(async () => expect(await running(scene, 'fills')).toBe(0))
    const hit = await pull(layover, digest)
    expect(hit.headers['cache-status']).toMatch(/hit/)
    expect(registry.count(blobs) - before).toBe(1)
    await expectCleanAftermath(scene, { responses: [hit] })
  })

  it('F-19: a client that stands still slows nobody, and gets the right bytes later', async () => {
    const scene = await startScene({ bytes: pseudoRandomBytes(24 * mib, 'F-19') })
    const { registry, layover, digest, bytes } = scene
    const before = registry.count(blobs)
    const still = dial(scene)
    const parts: Buffer[] = []
    still.once('data', (chunk: Buffer) => {
      parts.push(chunk)
      still.pause()
    })
    const fast = await pull(layover, digest)
    expect(fast.body.equals(bytes)).toBe(true)
    const ended = new Promise<void>(resolve => still.once('end', resolve))
    still.on('data', (chunk: Buffer) => parts.push(chunk))
    still.resume()
    await ended
    const slow: RawResponse = { ...parseResponse(Buffer.concat(parts)), ending: 'fin' }
    expect(slow.body.equals(bytes)).toBe(true)
    expect(registry.count(blobs) - before).toBe(1)
    await expectCleanAftermath(scene, { responses: [fast, slow] })
  })

  it('F-20: when upstream fails, all who wait hear it at once, and upstream is not asked by each of them', async () => {
    const scene = await startScene()
    const { registry, layover, digest } = scene
    const before = registry.count(blobs)
    registry.fault({ ...blobs, times: 99 }, { kind: 'status', status: 503 })
    const gate = registry.gate(blobs)
    const waiting = Array.from({ length: 20 }, () => pull(layover, digest))
    await gate.reached
    await vi.waitFor(async () => expect(await running(scene, 'connections')).toBeGreaterThanOrEqual(20), {
      timeout: 3_000,
    })
    gate.release()
    const responses = await Promise.all(waiting)
    expect(new Set(responses.map(({ status, body }) => `${status} ${body.toString()}`)).size).toBe(1)
    expect(responses[0]?.status).toBe(503)
    // The attempts of one download.
    expect(registry.count(blobs) - before).toBe(3)
    await expectCleanAftermath(scene, { responses, failures: ['http_503'] })
  })

  it('F-20: broken in the middle for good, all are cut and nobody completes', async () => {
    const scene = await startScene()
    const { registry, layover, digest } = scene
    registry.fault({ ...blobs, times: 99 }, { kind: 'cut', at: 100, how: 'fin' })
    const gate = registry.gate({ ...blobs, afterBytes: 50 })
    const waiting = Array.from({ length: 20 }, () => pull(layover, digest))
    await gate.reached
    gate.release()
    const responses = await Promise.all(waiting)
    expect(responses.filter(response => completeBody(response) !== undefined)).toEqual([])
    const failures = failuresOf(layover)
    expect(failures.length).toBeLessThan(3)
    await expectCleanAftermath(scene, { responses, failures: failures.map(() => 'truncated') })
  })

  it('F-22: parallel ranges in any order of a blob that is not here are all right, and upstream sends it about once', async () => {
    const scene = await startScene({ bytes: pseudoRandomBytes(2 * mib, 'F-22') })
    const { registry, layover, digest, bytes } = scene
    const before = registry.bytes(blobs)
    const parts = Array.from({ length: 16 }, (_, index) => ({
      start: index * 128 * kib,
      end: (index + 1) * 128 * kib - 1,
    }))
    const shuffled = parts.toSorted((a, b) => ((a.start * 7) % 13) - ((b.start * 7) % 13))
    const responses = await Promise.all(
      shuffled.map(({ start, end }) => pull(layover, digest, { headers: { range: `bytes=${start}-${end}` } })),
    )
    for (const [index, { start, end }] of shuffled.entries()) {
      expect(responses[index]?.status).toBe(206)
      expect(responses[index]?.headers['content-range']).toBe(`bytes ${start}-${end}/${bytes.length}`)
      expect(responses[index]?.body.equals(bytes.subarray(start, end + 1))).toBe(true)
    }
    expect(registry.count({ ...blobs, path: new RegExp(digest) })).toBeLessThanOrEqual(1 + 4)
    expect(registry.bytes(blobs) - before).toBeLessThanOrEqual(bytes.length + 4 * 128 * kib)
    await expectCleanAftermath(scene, { responses: [] })
  })

  it('F-22, T-20: no range of a wrong blob is completed, near or far', async () => {
    const scene = await startScene({ bytes: pseudoRandomBytes(2 * mib, 'F-22 wrong') })
    const { registry, layover, digest } = scene
    registry.fault({ ...blobs, times: 99 }, { kind: 'flip', at: 2 * mib - 1 })
    const gate = registry.gate({ ...blobs, afterBytes: 64 * kib })
    const ranges = ['bytes=0-0', 'bytes=0-9999', 'bytes=1000000-1000099', 'bytes=2000000-', 'bytes=-1', 'bytes=0-']
    const pulling = ranges.map(range => pull(layover, digest, { headers: { range } }))
    await gate.reached
    gate.release()
    const responses = await Promise.all(pulling)
    expect(responses.filter(response => completeBody(response) !== undefined)).toEqual([])
    // Who came after the end was told that the source is in quarantine.
    const [first, ...later] = failuresOf(layover)
    expect([first, ...new Set(later)].length).toBeLessThanOrEqual(2)
    await expectCleanAftermath(scene, {
      responses,
      failures: ['digest_mismatch', ...later.map(() => 'quarantined')],
    })
  })
})

describe('two requests on one connection', () => {
  const twice = (scene: Scene, second: string): string =>
    `GET ${blobPath(scene.digest)} HTTP/1.1\r\nHost: x\r\n\r\nGET ${second} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`

  it('F-3: an answer that is cut takes its connection along, so that the next cannot be read as its bytes', async () => {
    const scene = await startScene()
    const { registry, layover, bytes } = scene
    registry.fault({ ...blobs, times: 99 }, { kind: 'flip', at: 10 })
    const { bytes: wire, ending } = await exchangeRaw(layover.port, twice(scene, '/v2/'))
    expect(ending).not.toBe('open')
    const first = parseResponse(wire)
    expect(first.headers['content-length']).toBe(String(bytes.length))
    expect(first.body.length).toBeLessThan(bytes.length)
    expect(first.body.includes('HTTP/1.1')).toBe(false)
    await expectCleanAftermath(scene, { responses: [{ ...first, ending }], failures: ['digest_mismatch'] })
  })

  it('F-71: pipelined, the answers come whole and in order, from the download and from the store', async () => {
    const scene = await startScene()
    const { layover, digest, bytes } = scene
    for (const outcome of ['fill', 'hit']) {
      const { bytes: wire, ending } = await exchangeRaw(layover.port, twice(scene, blobPath(digest)))
      expect([outcome, ending]).toEqual([outcome, 'fin'])
      const first = parseResponse(wire)
      expect(first.headers['cache-status']).toMatch(outcome === 'hit' ? /hit/ : /fwd/)
      expect(first.body.subarray(0, bytes.length).equals(bytes)).toBe(true)
      const second = parseResponse(first.body.subarray(bytes.length))
      expect(second.status).toBe(200)
      expect(second.body.equals(bytes)).toBe(true)
      await vi.waitFor(async () => expect((await pull(layover, digest)).headers['cache-status']).toMatch(/hit/))
    }
    await expectCleanAftermath(scene, { responses: [] })
  })

  it('F-71, F-43: a pipelining client that leaves in the first answer leaves nothing behind', async () => {
    const scene = await startScene({ bytes: pseudoRandomBytes(8 * mib, 'F-71') })
    const { layover, digest } = scene
    expect((await pull(layover, digest)).status).toBe(200)
    const socket = connect(layover.port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write(twice(scene, blobPath(digest)))
    await new Promise(resolve => socket.once('data', resolve))
    socket.resetAndDestroy()
    await expectCleanAftermath(scene, { responses: [] })
  })
})

/** A client that asked for the scene's blob and does nothing more. */
function dial({ layover, digest }: Scene): Socket {
  const socket = connect(layover.port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.write(`GET ${blobPath(digest)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
  onTestFinished(() => void socket.destroy())
  return socket
}

/** `connections`: requests under way, as the kernel sees them. */
async function running({ layover }: Scene, what: 'fills' | 'connections'): Promise<number> {
  if (what === 'fills') return await layover.metric('layover_fills_running{upstream="fake.test"}')
  return await layover.metric('layover_client_connections')
}
