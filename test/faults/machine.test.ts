import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFailed, onTestFinished, vi } from 'vitest'
import { FakeClock } from '../fakes/clock.ts'
import type { Gate } from '../fakes/faults.ts'
import { pseudoRandomBytes } from '../fakes/image.ts'
import { startTestLayover } from '../fakes/layover.ts'
import { parseResponse, type RawResponse, rawRequest } from '../fakes/raw-client.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { type LayoverProcess, startLayoverProcess } from '../real/harness/layover.ts'
import {
  blobPath,
  completeBody,
  expectCleanAftermath,
  figure,
  kib,
  manifestPath,
  mib,
  pull,
  pullImage,
  repository,
  startScene,
  upstreamName,
} from './scene.ts'

const run = promisify(execFile)
const blobs = { method: 'GET', path: /\/blobs\// } as const

describe('the disk', () => {
  it('F-34: full: what fits is kept, what does not is streamed, whether its size is known or not', async () => {
    const registry = await startFakeRegistry()
    onTestFinished(() => registry.stop())
    const disk = await smallDisk()
    const layover = await startTestLayover({
      upstreams: { [upstreamName]: registry },
      dataDir: join(disk.path, 'data'),
      config: { storage: { maxBytes: disk.maxBytes } },
    })
    onTestFinished(() => layover.close())
    const large = pseudoRandomBytes(24 * mib, 'F-34 large')
    const unsized = pseudoRandomBytes(24 * mib, 'F-34 unsized')
    const small = pseudoRandomBytes(2 * mib, 'F-34 small')
    const [largeDigest, unsizedDigest, smallDigest] = [large, unsized, small].map(bytes =>
      registry.addBlobTo(repository, bytes),
    )
    registry.fault({ path: new RegExp(String(unsizedDigest)), times: 9 }, { kind: 'noLength' })
    expect((await pull(layover, String(largeDigest))).body.equals(large)).toBe(true)
    const several = await Promise.all([1, 2, 3].map(() => pull(layover, String(unsizedDigest))))
    for (const response of several) expect(completeBody(response)?.equals(unsized)).toBe(true)
    expect((await pull(layover, String(smallDigest))).body.equals(small)).toBe(true)
    await vi.waitFor(async () => {
      expect((await pull(layover, String(smallDigest))).headers['cache-status']).toMatch(/hit/)
      expect(await readdir(join(layover.dataDir, 'spool'))).toEqual([])
    })
    const uncached = await figure(layover, 'layover_fills_total', { outcome: 'uncached' })
    expect(uncached).toBeGreaterThanOrEqual(2)
    expect(uncached).toBeLessThanOrEqual(4)
    expect((await fetch(`${layover.adminUrl}/readyz`)).status).toBe(200)
  })

  it('F-35: directories that were removed at run time cost nobody a pull, and come back', async () => {
    const scene = await startScene()
    const { layover, registry, digest, bytes } = scene
    await rm(join(layover.dataDir, 'spool'), { recursive: true })
    await rm(join(layover.dataDir, 'blobs'), { recursive: true })
    const response = await pull(layover, digest)
    expect(response.body.equals(bytes)).toBe(true)
    await expectCleanAftermath(scene, { responses: [response] })
    const asked = registry.count(blobs)
    expect((await pull(layover, digest)).headers['cache-status']).toMatch(/hit/)
    expect(registry.count(blobs)).toBe(asked)
  })

  it('F-35: a spool that cannot be written is told of, and pulls go on without it until it can', async () => {
    const scene = await startScene()
    const { layover, digest, bytes } = scene
    const spool = join(layover.dataDir, 'spool')
    await rm(spool, { recursive: true })
    await writeFile(spool, 'not a directory')
    const response = await pull(layover, digest)
    expect(response.body.equals(bytes)).toBe(true)
    await vi.waitFor(async () => expect(await figure(layover, 'layover_fills_total', { outcome: 'uncached' })).toBe(1))
    expect(await figure(layover, 'layover_store_failures_total')).toBeGreaterThan(0)
    expect(layover.lines().filter(line => String(line.operation).startsWith('spool'))).toHaveLength(1)
    await rm(spool)
    expect((await pull(layover, digest)).body.equals(bytes)).toBe(true)
    await expectCleanAftermath(scene, { responses: [response] })
    expect((await pull(layover, digest)).headers['cache-status']).toMatch(/hit/)
  })

  it('F-36: a stored file that is cut under our feet: the client is cut too, and the next pull fetches it again', async () => {
    const scene = await startScene({ bytes: pseudoRandomBytes(24 * mib, 'F-36') })
    const { layover, digest, bytes } = scene
    expect((await pull(layover, digest)).body.equals(bytes)).toBe(true)
    await vi.waitFor(async () => {
      const range = { headers: { range: 'bytes=0-0' } }
      expect((await pull(layover, digest, range)).headers['cache-status']).toMatch(/hit/)
    })
    const { socket, response } = slowClient(layover.port, blobPath(digest))
    await new Promise(resolve => socket.once('readable', resolve))
    const hex = digest.slice('sha256:'.length)
    await truncate(join(layover.dataDir, 'blobs', 'sha256', hex.slice(0, 2), hex), 100 * kib)
    const cut = await response()
    expect(cut.headers['cache-status']).toMatch(/hit/)
    expect(completeBody(cut)).toBeUndefined()
    expect(bytes.subarray(0, cut.body.length).equals(cut.body)).toBe(true)
    expect(await figure(layover, 'layover_store_failures_total')).toBeGreaterThan(0)
    await expectCleanAftermath(scene, { responses: [cut] })
  })
})

describe('the clock', () => {
  it.each([86_400_000, -86_400_000])(
    'F-42: a jump of %i ms keeps tags neither stale nor fresh for ever',
    async jump => {
      const clock = new FakeClock()
      const registry = await startFakeRegistry({ auth: 'bearer' })
      onTestFinished(() => registry.stop())
      const layover = await startTestLayover({ upstreams: { [upstreamName]: registry }, clock })
      onTestFinished(() => layover.close())
      await pullImage(layover, 'latest', registry.image(repository, 'latest', { seed: 'before' }))
      clock.jump(jump)
      const after = registry.image(repository, 'latest', { seed: 'after' })
      clock.advance(600_000)
      await pullImage(layover, 'latest', after)
      const asked = registry.requests.length
      expect((await rawRequest(layover.port, manifestPath('latest'))).status).toBe(200)
      expect(registry.requests.length).toBe(asked)
    },
  )
})

describe('clients that go away', () => {
  it('F-43: two hundred that reset in the middle, of a download and of a hit, leave nothing behind', async () => {
    const rejections: unknown[] = []
    const onRejection = (error: unknown): void => void rejections.push(error)
    process.on('unhandledRejection', onRejection)
    onTestFinished(() => void process.off('unhandledRejection', onRejection))
    const scene = await startScene({ bytes: pseudoRandomBytes(8 * mib, 'F-43'), fills: { finishWithinBytes: 8 * mib } })
    const { layover, digest, registry } = scene
    const before = registry.count(blobs)
    for (let round = 0; round < 2; round++) {
      await Promise.all(Array.from({ length: 100 }, () => resetAfterFirstBytes(layover.port, blobPath(digest))))
      await vi.waitFor(
        async () => expect(await layover.metric(`layover_fills_running{upstream="${upstreamName}"}`)).toBe(0),
        { timeout: 5_000 },
      )
    }
    await vi.waitFor(async () => expect(await layover.metric('layover_client_aborts_total')).toBe(200), {
      timeout: 5_000,
    })
    expect(registry.count(blobs) - before).toBe(1)
    await expectCleanAftermath(scene, { responses: [] })
    expect(rejections).toEqual([])
  })

  it('T-35: ranges of one byte that are given up cost upstream a small part of the blobs', async () => {
    const size = 8 * mib
    const count = 20
    const bytes = pseudoRandomBytes(size, 'T-35')
    const scene = await startScene({ fills: { finishWithinBytes: mib, finishFromShare: 0.5 } })
    const { registry, layover } = scene
    const digests = Array.from({ length: count }, (_, index) => {
      const own = Buffer.from(bytes)
      own.writeUInt32LE(index)
      return registry.addBlobTo(repository, own)
    })
    const before = registry.bytes(blobs)
    registry.fault({ ...blobs, times: 999 }, { kind: 'slow', bytesPerSecond: 2 * mib })
    await Promise.all(
      digests.map(digest =>
        resetAfterFirstBytes(layover.port, blobPath(digest), `Range: bytes=${size - 9}-${size - 9}\r\n`),
      ),
    )
    await vi.waitFor(
      async () => expect(await layover.metric(`layover_fills_running{upstream="${upstreamName}"}`)).toBe(0),
      { timeout: 10_000 },
    )
    expect(registry.bytes(blobs) - before).toBeLessThan((count * size) / 4)
    await expectCleanAftermath(scene, { responses: [] })
  })
})

describe('the process', () => {
  it('F-37: without descriptors it refuses, goes on with what runs, and recovers', async () => {
    const { registry, layover, port } = await startProcess()
    const bytes = pseudoRandomBytes(mib, 'F-37')
    const digest = registry.addBlobTo(repository, bytes)
    const gate = registry.gate({ ...blobs, afterBytes: 100 * kib })
    const running = rawRequest(port, blobPath(digest), { timeoutMs: 20_000 })
    await reachedBy(running, gate)
    const open = (await readdir(`/proc/${layover.pid()}/fd`)).length
    await run('prlimit', [`--pid=${layover.pid()}`, `--nofile=${open + 3}:`])
    const crowd = Array.from({ length: 40 }, (_, index) =>
      rawRequest(port, blobPath(registry.addBlobTo(repository, pseudoRandomBytes(1000, `F-37 ${index}`))), {
        timeoutMs: 3_000,
      }),
    )
    const refused = await Promise.all(crowd)
    expect(refused.some(({ status }) => status !== 200)).toBe(true)
    for (const { status, body } of refused) expect(status === 200 && body.length !== 1000).toBe(false)
    gate.release()
    expect((await running).body.equals(bytes)).toBe(true)
    await run('prlimit', [`--pid=${layover.pid()}`, '--nofile=4096:'])
    await vi.waitFor(async () => expect((await rawRequest(port, blobPath(digest))).body.equals(bytes)).toBe(true), {
      timeout: 10_000,
      interval: 100,
    })
  })

  it('F-39: it stands still for longer than upstream may be silent, and goes on: right bytes, one download, nothing left behind', async () => {
    const { registry, layover, port } = await startProcess({}, { upstream: { timeouts: { idle: '1s' } } })
    const bytes = pseudoRandomBytes(8 * mib, 'F-39')
    const digest = registry.addBlobTo(repository, bytes)
    const gate = registry.gate({ ...blobs, afterBytes: 100 * kib })
    const clients = [1, 2, 3].map(() => rawRequest(port, blobPath(digest), { timeoutMs: 20_000 }))
    await reachedBy(Promise.race(clients), gate)
    process.kill(layover.pid(), 'SIGSTOP')
    gate.release()
    // Twice the time that upstream may be silent, which is what the clocks of the process see at once when it goes on.
    await sleep(2_000)
    process.kill(layover.pid(), 'SIGCONT')
    for (const response of await Promise.all(clients)) expect(completeBody(response)?.equals(bytes)).toBe(true)
    await vi.waitFor(async () =>
      expect((await rawRequest(port, blobPath(digest))).headers['cache-status']).toMatch(/hit/),
    )
  })

  it('F-40: with a heap of 64 MiB, many times as much is downloaded and read at once', async () => {
    const { registry, layover, port } = await startProcess({}, { env: { NODE_OPTIONS: '--max-old-space-size=64' } })
    const images = Array.from({ length: 16 }, (_, index) => pseudoRandomBytes(12 * mib, `F-40 ${index}`))
    const digests = images.map(bytes => registry.addBlobTo(repository, bytes))
    const before = await residentBytes(layover)
    const pulls = digests.flatMap(digest => [1, 2].map(() => digestOfAnswer(port, blobPath(digest))))
    expect(await Promise.all(pulls)).toEqual(digests.flatMap(digest => [digest, digest]))
    // 192 MiB came in and went out twice.
    expect((await peakBytes(layover)) - before).toBeLessThan(160 * mib)
  })

  it('F-41: SIGTERM: not ready, no new clients, running answers finish, exit', async () => {
    const { registry, layover, port } = await startProcess({ drain: '20s' })
    const bytes = pseudoRandomBytes(mib, 'F-41')
    const gate = registry.gate({ ...blobs, afterBytes: 100 * kib })
    const running = rawRequest(port, blobPath(registry.addBlobTo(repository, bytes)), { timeoutMs: 20_000 })
    await reachedBy(running, gate)
    process.kill(layover.pid(), 'SIGTERM')
    await vi.waitFor(async () => expect((await fetch(`${layover.adminUrl}/readyz`)).status).toBe(503), {
      timeout: 5_000,
    })
    expect((await rawRequest(port, '/v2/', { timeoutMs: 1_000 })).status).toBe(0)
    gate.release()
    const response = await running
    expect(response.body.equals(bytes)).toBe(true)
    await vi.waitFor(() => expect(existsSync(`/proc/${layover.pid()}/fd/0`)).toBe(false), { timeout: 5_000 })
    expect(layover.output()).toContain('"stopped"')
    expect(layover.output()).not.toMatch(/"level":"error"/)
  })

  it('F-41: what does not finish in time is cut, and the process ends', async () => {
    const { registry, layover, port } = await startProcess({ drain: '300ms' })
    const gate = registry.gate({ ...blobs, afterBytes: 100 * kib })
    const digest = registry.addBlobTo(repository, pseudoRandomBytes(mib, 'F-41 late'))
    const running = rawRequest(port, blobPath(digest), { timeoutMs: 20_000 })
    await reachedBy(running, gate)
    process.kill(layover.pid(), 'SIGTERM')
    const response = await running
    expect(completeBody(response)).toBeUndefined()
    await vi.waitFor(() => expect(existsSync(`/proc/${layover.pid()}/fd/0`)).toBe(false), { timeout: 5_000 })
    expect(layover.output()).toContain('"stopped"')
  })

  it('T-34, F-38: a thousand clients that stop reading hold little memory and are disconnected', async () => {
    const { registry, layover, port } = await startProcess({ clients: { stall: '1s' } })
    const bytes = pseudoRandomBytes(24 * mib, 'T-34')
    const path = blobPath(registry.addBlobTo(repository, bytes))
    expect((await rawRequest(port, path, { timeoutMs: 20_000 })).body.equals(bytes)).toBe(true)
    const before = await residentBytes(layover)
    const sockets = Array.from({ length: 1_000 }, () => stalledClient(port, path))
    await vi.waitFor(() => expect(sockets.filter(socket => socket.bytesRead > 0).length).toBe(1_000), {
      timeout: 20_000,
      interval: 100,
    })
    const during = await residentBytes(layover)
    expect(during - before).toBeLessThan(600 * mib)
    // Connections are counted once a second.
    await vi.waitFor(
      async () => {
        const metrics = await (await fetch(`${layover.adminUrl}/metrics`)).text()
        expect(Number(/^layover_client_connections (\d+)$/m.exec(metrics)?.[1])).toBeLessThan(10)
      },
      { timeout: 25_000, interval: 250 },
    )
    expect((await rawRequest(port, path, { timeoutMs: 20_000 })).body.equals(bytes)).toBe(true)
  }, 60_000)
})

/** A disk of 16 MiB where this user may mount one, else a budget of that size. */
async function smallDisk(): Promise<{ path: string; maxBytes: number }> {
  const path = await mkdtemp(join(tmpdir(), 'layover-disk-'))
  const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', path]).then(
    () => true,
    () => false,
  )
  onTestFinished(async () => {
    if (mounted) await run('umount', [path])
    await rm(path, { recursive: true, force: true })
  })
  return { path, maxBytes: mounted ? 1024 * mib : 16 * mib }
}

type ProcessOptions = {
  readonly upstream?: Readonly<Record<string, unknown>>
  readonly env?: Readonly<Record<string, string>>
}

async function startProcess(
  settings: Record<string, unknown> = {},
  { upstream = {}, env = {} }: ProcessOptions = {},
): Promise<{ registry: FakeRegistry; layover: LayoverProcess; port: number }> {
  const registry = await startFakeRegistry()
  onTestFinished(() => registry.stop())
  const layover = await startLayoverProcess({
    upstreams: { [upstreamName]: { url: registry.url, insecure: true, default: true, ...upstream } },
    settings,
    env,
  })
  onTestFinished(() => layover.close())
  // What the process had to say belongs to what failed.
  onTestFailed(() => console.error(layover.output().slice(-5_000)))
  return { registry, layover, port: Number(new URL(layover.url).port) }
}

/** Waits for the gate, and tells of an answer that came instead. */
async function reachedBy(running: Promise<RawResponse>, gate: Gate): Promise<void> {
  const early = running.then(({ status, ending }) => {
    throw new Error(`the answer ended before its time: ${status}, ${ending}`)
  })
  await Promise.race([gate.reached, early])
  early.catch(() => undefined)
}

/** Reads nothing until `response` is called. */
function slowClient(port: number, path: string): { socket: Socket; response: () => Promise<RawResponse> } {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
  onTestFinished(() => void socket.destroy())
  return {
    socket,
    response: async () => {
      const chunks: Buffer[] = []
      socket.on('data', (chunk: Buffer) => chunks.push(chunk))
      await new Promise<void>(resolve => socket.once('close', () => resolve()))
      return { ...parseResponse(Buffer.concat(chunks)), ending: 'fin' }
    },
  }
}

/** Takes the first bytes and then nothing more, for as long as it lives. */
function stalledClient(port: number, path: string): Socket {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.once('data', () => void socket.pause())
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
  onTestFinished(() => void socket.destroy())
  return socket
}

function resetAfterFirstBytes(port: number, path: string, headers = ''): Promise<void> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => resolve())
    socket.once('data', () => {
      socket.resetAndDestroy()
      resolve()
    })
    socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`)
  })
}

/** Reads an answer and keeps none of it. */
async function digestOfAnswer(port: number, path: string): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`)
  const hash = createHash('sha256')
  for await (const chunk of answer.body ?? []) hash.update(chunk)
  return `sha256:${hash.digest('hex')}`
}

async function peakBytes(layover: LayoverProcess): Promise<number> {
  const status = await readFile(`/proc/${layover.pid()}/status`, 'utf8')
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * kib
}

async function residentBytes(layover: LayoverProcess): Promise<number> {
  const status = await readFile(`/proc/${layover.pid()}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * kib
}
