import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { createSecretKey } from 'node:crypto'
import { setImmediate as turn } from 'node:timers/promises'
import { inspect } from 'node:util'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { createReplicaListener, type ReplicaListenerDeps } from '../../src/edge/replica-listener.ts'
import { WriteWatch } from '../../src/edge/send-bytes.ts'
import { startServer } from '../../src/edge/server.ts'
import { createPeer, type Peer, peerTimeouts, type PeerTimeouts } from '../../src/upstream/peer.ts'
import {
  isSigned,
  readReplicaSecret,
  type ReplicaSecret,
  signRequest,
  tellClock,
  toldClock,
} from '../../src/upstream/replica-signature.ts'
import { blobOf, type Setup, setUp, target } from '../cache/blobs-setup.ts'
import { FakeClock } from '../fakes/clock.ts'
import { type RawResponse, rawRequest } from '../fakes/raw-client.ts'

const signal = new AbortController().signal
const { bytes, digest } = blobOf(300_000)
const path = `/internal/fills/${digest}`
const secretOf = (text: string): ReplicaSecret => createSecretKey(text, 'utf8')
const secret = secretOf('0123456789abcdef0123456789abcdef')

type Replica = Setup & {
  readonly port: number
  readonly clock: FakeClock
  readonly errors: unknown[]
  readonly peer: Peer
}

/** A replica on real stores above an upstream in the test's hands, and another replica's client of it. */
async function startReplica(change: Partial<ReplicaListenerDeps> = {}): Promise<Replica> {
  const setup = await setUp()
  const clock = new FakeClock()
  const watch = new WriteWatch(10_000)
  const errors: unknown[] = []
  const server = await startServer({
    address: { host: '127.0.0.1', port: 0 },
    handler: createReplicaListener({
      openHere: (wanted, left) => setup.blobs.openHere(wanted, left),
      secret,
      clock,
      watch,
      onError: error => errors.push(error),
      ...change,
    }),
    maxConnections: 100,
  })
  const peer = createPeer({ url: server.url, secret, clock })
  onTestFinished(async () => {
    await peer.close()
    await server.close(0)
    watch.close()
  })
  return { ...setup, port: Number(new URL(server.url).port), clock, errors, peer }
}

type Asked = {
  readonly method?: string
  readonly range?: string
  readonly path?: string
  readonly at?: number
  readonly with?: ReplicaSecret
}

/** A request whose signature is made for `signed`, and which asks for `sent`. */
function ask({ port, clock }: Replica, sent: Asked, signed: Asked = sent): Promise<RawResponse> {
  const request = { method: signed.method ?? 'GET', path: signed.path ?? path, range: signed.range }
  const authorization = signRequest({ secret: signed.with ?? secret, request, now: clock.now() + (signed.at ?? 0) })
  const headers = { authorization, ...(sent.range === undefined ? {} : { range: sent.range }) }
  return rawRequest(port, sent.path ?? path, { method: sent.method ?? 'GET', headers })
}

async function collect(body: Readable): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const chunk of body) parts.push(chunk as Buffer)
  return Buffer.concat(parts)
}

/** Puts the blob into the store of a replica, by a download. */
async function store({ blobs, upstream, ends }: Setup): Promise<void> {
  const opening = blobs.open(target, digest)
  const body = (await upstream.next()).answer({ size: bytes.length })
  body.send(bytes)
  body.end()
  ;(await opening).close()
  await vi.waitFor(() => expect(ends).toEqual(['published']))
}

/** Something else at the address of a replica. */
async function startServing(listener: RequestListener, timeouts: Partial<PeerTimeouts> = {}): Promise<Peer> {
  const server = createServer(listener)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const peer = createPeer({ url, secret, clock: new FakeClock(), timeouts: { ...peerTimeouts, ...timeouts } })
  onTestFinished(async () => {
    await peer.close()
    server.closeAllConnections()
    await new Promise(resolve => server.close(resolve))
  })
  return peer
}

describe('the internal listener', () => {
  it('gives a running download from any offset as the bytes arrive, and the last byte when it is verified', async () => {
    const { blobs, upstream, peer } = await startReplica()
    const opening = blobs.open(target, digest)
    const source = (await upstream.next()).answer({ size: bytes.length })
    const client = await opening
    const [whole, part] = [await peer.open(digest, 0, signal), await peer.open(digest, 100_000, signal)]
    expect([whole.offset, whole.size, part.offset, part.size]).toEqual([0, bytes.length, 100_000, bytes.length])
    let received = 0
    part.body.on('data', (chunk: Buffer) => (received += chunk.length))
    const all = collect(whole.body)
    source.send(bytes.subarray(0, 150_000))
    await vi.waitFor(() => expect(received).toBeGreaterThan(40_000))
    expect(received).toBeLessThanOrEqual(50_000)
    source.send(bytes.subarray(150_000))
    await vi.waitFor(() => expect(received).toBe(199_999))
    source.end()
    expect((await all).equals(bytes)).toBe(true)
    await vi.waitFor(() => expect(received).toBe(200_000))
    client.close()
  })

  it('gives a stored blob without asking upstream', async () => {
    const replica = await startReplica()
    await store(replica)
    const blob = await replica.peer.open(digest, 299_000, signal)
    expect(blob).toMatchObject({ offset: 299_000, size: bytes.length })
    expect((await collect(blob.body)).equals(bytes.subarray(299_000))).toBe(true)
    expect(replica.upstream.requests).toHaveLength(1)
  })

  it('says 404 for what it neither downloads nor holds, and begins nothing', async () => {
    const { peer, upstream, blobs } = await startReplica()
    await expect(peer.open(digest, 0, signal)).rejects.toMatchObject({ failure: 'notFound', upstream: 'peer' })
    expect([upstream.requests, upstream.heads, blobs.running]).toEqual([[], [], 0])
  })

  it('P-58: cuts the connection when the download fails, and never gave the last byte', async () => {
    const { blobs, upstream, peer } = await startReplica()
    const opening = blobs.open(target, digest)
    const source = (await upstream.next()).answer({ size: bytes.length })
    const client = await opening
    const blob = await peer.open(digest, 0, signal)
    let received = 0
    blob.body.on('data', (chunk: Buffer) => (received += chunk.length))
    const broken = new Promise(resolve => blob.body.once('error', resolve))
    source.send(Buffer.alloc(bytes.length, 1))
    source.end()
    expect(await broken).toMatchObject({ failure: 'unavailable', upstream: 'peer' })
    expect(received).toBeLessThan(bytes.length)
    client.close()
  })

  it('answers 202 while upstream has not begun to answer, and the other replica asks on', async () => {
    const replica = await startReplica({ patienceMs: 5 })
    const opening = replica.blobs.open(target, digest)
    const request = await replica.upstream.next()
    expect((await ask(replica, {})).status).toBe(202)
    const peering = replica.peer.open(digest, 0, signal)
    const body = request.answer({ size: bytes.length })
    body.send(bytes)
    body.end()
    expect((await collect((await peering).body)).equals(bytes)).toBe(true)
    ;(await opening).close()
  })

  it('gives all of what has no known size, from byte 0', async () => {
    const { blobs, upstream, peer } = await startReplica()
    const opening = blobs.open(target, digest)
    const body = (await upstream.next()).answer()
    const client = await opening
    const blob = await peer.open(digest, 1_000, signal)
    expect(blob).toMatchObject({ offset: 0, size: undefined })
    body.send(bytes)
    body.end()
    expect((await collect(blob.body)).equals(bytes)).toBe(true)
    client.close()
  })

  it('F-17: another replica that reads keeps the download going when the last client has left', async () => {
    const { blobs, upstream, peer, ends } = await startReplica()
    const opening = blobs.open(target, digest)
    const body = (await upstream.next()).answer({ size: bytes.length })
    const client = await opening
    const blob = await peer.open(digest, 0, signal)
    client.close()
    body.send(bytes.subarray(0, 1_000))
    await turn()
    body.send(bytes.subarray(1_000))
    body.end()
    expect((await collect(blob.body)).equals(bytes)).toBe(true)
    await vi.waitFor(() => expect(ends).toEqual(['published']))
  })

  it('knows no other page and no other method', async () => {
    const replica = await startReplica()
    await store(replica)
    for (const other of ['/', '/v2/', '/internal/fills/', '/internal/fills/sha256:00', `${path}?a=1`, `/x${path}`])
      expect((await ask(replica, { path: other })).status).toBe(404)
    for (const method of ['HEAD', 'POST', 'DELETE']) expect((await ask(replica, { method })).status).toBe(405)
    expect((await ask(replica, { range: 'bytes=300000-' })).status).toBe(416)
  })

  it('tells the log what went wrong, and the other replica that it cannot have it now', async () => {
    const failing = new Error('the disk is gone')
    const replica = await startReplica({ openHere: () => Promise.reject(failing) })
    await expect(replica.peer.open(digest, 0, signal)).rejects.toMatchObject({ failure: 'unavailable' })
    expect(replica.errors).toEqual([failing])
  })
})

describe('who may ask', () => {
  it('nobody without a signature, and the answer shows nothing', async () => {
    const replica = await startReplica()
    await store(replica)
    for (const authorization of ['', 'Bearer x', 'Layover-Replica', `Layover-Replica 1:${'0'.repeat(64)}`]) {
      const { status, body } = await rawRequest(replica.port, path, { headers: { authorization } })
      expect([status, body.length]).toEqual([401, 0])
    }
    expect((await rawRequest(replica.port, path)).status).toBe(401)
    // The same for what is not here: it is not told to who may not ask.
    expect((await rawRequest(replica.port, '/internal/fills/other')).status).toBe(401)
  })

  it.each([
    ['another secret', {}, { with: secretOf('ffffffffffffffffffffffffffffffff') }],
    ['another path', {}, { path: '/internal/fills/other' }],
    ['another range', { range: 'bytes=0-' }, { range: 'bytes=1-' }],
    ['no range', { range: 'bytes=0-' }, {}],
    ['another method', {}, { method: 'HEAD' }],
    ['more than a minute ago', {}, { at: -60_001 }],
    ['more than a minute ahead', {}, { at: 60_001 }],
  ])('T-18: not with a signature made for or with %s', async (_what, sent: Asked, signed: Asked) => {
    const replica = await startReplica()
    await store(replica)
    expect((await ask(replica, sent, signed)).status).toBe(401)
  })

  it('clocks may be a minute apart, either way', async () => {
    const replica = await startReplica()
    await store(replica)
    for (const at of [-60_000, 60_000]) expect((await ask(replica, { at })).status).toBe(200)
  })

  it.each([1, -1])(
    'F-42: a clock that is off by %d day shuts nobody out: the question is signed again for the clock that it meets',
    async days => {
      const replica = await startReplica()
      await store(replica)
      const offMs = days * 24 * 60 * 60_000
      const own = { now: () => replica.clock.now() + offMs, monotonic: () => replica.clock.monotonic() }
      const peer = createPeer({ url: `http://127.0.0.1:${replica.port}`, secret, clock: own })
      onTestFinished(() => peer.close())
      for (const offset of [0, 299_000])
        expect((await collect((await peer.open(digest, offset, signal)).body)).equals(bytes.subarray(offset))).toBe(
          true,
        )
      // It jumps back while it runs.
      replica.clock.jump(offMs)
      expect((await collect((await peer.open(digest, 0, signal)).body)).equals(bytes)).toBe(true)
    },
  )

  it('T-18: the clock that a refusal tells is believed of who has the secret, for the request that was refused', () => {
    const request = { method: 'GET', path, range: 'bytes=0-' }
    const now = Date.UTC(2026, 0, 1)
    const challenge = tellClock({ secret, request, now })
    expect(toldClock({ secret, request, challenge })).toBe(now)
    const stranger = secretOf('ffffffffffffffffffffffffffffffff')
    expect(toldClock({ secret: stranger, request, challenge })).toBeUndefined()
    expect(toldClock({ secret, request: { ...request, path: '/other' }, challenge })).toBeUndefined()
    expect(toldClock({ secret, request, challenge: challenge.replace(String(now), String(now + 1)) })).toBeUndefined()
    for (const other of [undefined, '', 'Layover-Replica', 'Basic realm="x"'])
      expect(toldClock({ secret, request, challenge: other })).toBeUndefined()
    // Nor does it open anything where a signature is wanted.
    const [, mac] = /(\d+:[0-9a-f]{64})/.exec(challenge) ?? []
    expect(isSigned({ secret, request, now, authorization: `Layover-Replica ${mac}` })).toBe(false)
  })

  it('tells a wrong secret from a dead replica', async () => {
    const replica = await startReplica()
    const url = `http://127.0.0.1:${replica.port}`
    const stranger = createPeer({ url, secret: secretOf('ffffffffffffffffffffffffffffffff'), clock: replica.clock })
    onTestFinished(() => stranger.close())
    await expect(stranger.open(digest, 0, signal)).rejects.toMatchObject({ failure: 'denied' })
  })
})

describe('the shared secret', () => {
  const reading = async (text: string): Promise<ReplicaSecret> => {
    const directory = await mkdtemp(join(tmpdir(), 'layover-secret-'))
    onTestFinished(() => rm(directory, { recursive: true }))
    const file = join(directory, 'replica')
    await writeFile(file, text)
    return await readReplicaSecret(file)
  }

  it.each([
    '',
    ' \n',
    'short',
    'changeme-changeme-changeme',
    'placeholder-placeholder',
    'aaaaaaaaaaaaaaaaaaaaaaaa',
    '<put the secret here>',
  ])('T-19: start refuses %j, and does not repeat it', async text => {
    const error = await reading(text).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    expect(error).toBeInstanceOf(Error)
    expect(String(error).includes(text.trim() === '' ? 'undefined' : text)).toBe(false)
  })

  it('takes what openssl rand gives, without the line break, and prints none of it', async () => {
    const text = 'b3d1c5f0e9a84c7d92f6a1b0c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6'
    const read = await reading(`${text}\n`)
    expect(read.equals(secretOf(text))).toBe(true)
    expect(`${JSON.stringify({ read })} ${inspect(read)}`).not.toContain(text)
  })
})

describe('a client of another replica', () => {
  it('says at once that nobody is there', async () => {
    const server = createServer()
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    await new Promise(resolve => server.close(resolve))
    const peer = createPeer({ url: `http://127.0.0.1:${port}`, secret, clock: new FakeClock() })
    onTestFinished(() => peer.close())
    await expect(peer.open(digest, 0, signal)).rejects.toMatchObject({ failure: 'unavailable', reason: 'connect' })
  })

  it('F-53: gives up on a replica that was stopped: connected, and silent', async () => {
    const peer = await startServing(() => undefined, { headersMs: 50 })
    await expect(peer.open(digest, 0, signal)).rejects.toMatchObject({ failure: 'unavailable', reason: 'timeout' })
  })

  it('F-53: gives up on a body that stands still', async () => {
    const peer = await startServing(
      (_req, res) => {
        res.writeHead(206, { 'content-range': 'bytes 0-9/10', 'content-length': '10' })
        res.write('four')
      },
      { idleMs: 50 },
    )
    const { body } = await peer.open(digest, 0, signal)
    await expect(collect(body)).rejects.toMatchObject({ failure: 'unavailable', reason: 'timeout' })
  })

  it('asks for a limited time when the upstream of the other does not answer', async () => {
    const peer = await startServing((_req, res) => void res.writeHead(202).end(), { openMs: 0 })
    await expect(peer.open(digest, 0, signal)).rejects.toMatchObject({ failure: 'unavailable', reason: 'timeout' })
  })

  it.each([
    ['a redirect', { status: 302, headers: { location: 'http://127.0.0.1:1/' } }],
    ['another range', { status: 206, headers: { 'content-range': 'bytes 6-9/10' } }],
    ['a page', { status: 403, headers: {} }],
  ])('T-2: takes %s for what it is and goes nowhere else', async (_what, { status, headers }) => {
    let asked = 0
    const peer = await startServing((_req, res) => {
      asked++
      res.writeHead(status, headers).end()
    })
    await expect(peer.open(digest, 5, signal)).rejects.toMatchObject({ failure: 'invalid' })
    expect(asked).toBe(1)
  })

  it('rejects with the reason of who left', async () => {
    const peer = await startServing(() => leave.abort(new Error('the client left')))
    const leave = new AbortController()
    await expect(peer.open(digest, 0, leave.signal)).rejects.toThrow('the client left')
  })

  it.each([
    'ftp://10.0.0.1',
    'http://169.254.169.254',
    'http://10.0.0.1/x',
    'http://u:p@10.0.0.1',
    'http://10.0.0.1?x',
    'nonsense',
  ])('T-2: dials no %s', url => {
    expect(() => createPeer({ url, secret, clock: new FakeClock() })).toThrow(/URL/)
  })
})
