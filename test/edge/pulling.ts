import { type IncomingMessage, request } from 'node:http'
import { afterEach, beforeEach } from 'vitest'
import type { Config } from '../../src/config/config.ts'
import { FakeClock } from '../fakes/clock.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { type RawResponse, rawRequest } from '../fakes/raw-client.ts'
import { type FakeRegistry, type FakeRegistryOptions, startFakeRegistry } from '../fakes/registry.ts'

/** What each test of a file gets anew: one upstream called `fake.test`, and Layover in front of it on a clock that stands still. */
export type Room = { readonly registry: FakeRegistry; readonly layover: TestLayover; readonly clock: FakeClock }

export type RoomOptions = {
  readonly upstream?: FakeRegistryOptions
  readonly config?: Partial<Omit<Config, 'upstreams' | 'dataDir'>>
}

/** Starts the servers before each test of the file and closes them after it. */
export function usingLayover({ upstream = {}, config = {} }: RoomOptions = {}): Room {
  let running: Room | undefined
  const started = (): Room => {
    if (running === undefined) throw new Error('the servers run inside of tests only')
    return running
  }
  beforeEach(async () => {
    const registry = await startFakeRegistry(upstream)
    const clock = new FakeClock()
    const layover = await startTestLayover({ upstreams: { 'fake.test': registry }, config, clock })
    running = { registry, layover, clock }
  })
  afterEach(async () => {
    const { registry, layover } = started()
    running = undefined
    await layover.close()
    await registry.stop()
  })
  return {
    get registry() {
      return started().registry
    },
    get layover() {
      return started().layover
    },
    get clock() {
      return started().clock
    },
  }
}

type Asked = Pick<TestLayover, 'port'>

export const get = (layover: Asked, target: string, headers: Record<string, string> = {}): Promise<RawResponse> =>
  rawRequest(layover.port, target, { headers })

export const head = (layover: Asked, target: string, headers: Record<string, string> = {}): Promise<RawResponse> =>
  rawRequest(layover.port, target, { method: 'HEAD', headers })

/** The code of an error document; throws when the answer is not one (P-98). */
export function errorCode({ headers, body }: Pick<RawResponse, 'headers' | 'body'>): string {
  if (headers['content-type'] !== 'application/json') throw new Error(`not JSON: ${headers['content-type']}`)
  const document = JSON.parse(body.toString()) as { errors: { code: string; message: string }[] }
  const [first] = document.errors
  if (document.errors.length !== 1 || first === undefined || typeof first.message !== 'string')
    throw new Error(`not an error document: ${body.toString()}`)
  return first.code
}

/** An answer whose body is read when the test wants it. */
export type Streamed = {
  readonly response: IncomingMessage
  /** Reads until at least `bytes` have come. */
  read(bytes: number): Promise<Buffer>
  /** Reads to the end. `complete`: the framing said that this was all. */
  rest(): Promise<{ readonly body: Buffer; readonly complete: boolean }>
  /** Leaves in the middle, as a client that is killed. */
  leave(): void
}

/** Opens a request on a connection of its own and resolves with its headers. */
export function openStream(layover: Asked, path: string, headers: Record<string, string> = {}): Promise<Streamed> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port: layover.port, path, headers, agent: false }, response =>
      resolve(streamed(response)),
    )
    outgoing.on('error', reject)
    outgoing.end()
  })
}

function streamed(response: IncomingMessage): Streamed {
  const chunks: Buffer[] = []
  const body = response[Symbol.asyncIterator]()
  const collected = (): number => chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  return {
    response,
    async read(bytes) {
      while (collected() < bytes) {
        const next = await body.next()
        if (next.done) break
        chunks.push(next.value as Buffer)
      }
      return Buffer.concat(chunks)
    },
    async rest() {
      try {
        for (let next = await body.next(); !next.done; next = await body.next()) chunks.push(next.value as Buffer)
      } catch {
        // An incomplete body ends in an error, which `complete` tells.
      }
      return { body: Buffer.concat(chunks), complete: response.complete }
    },
    leave() {
      response.on('error', () => undefined)
      response.destroy()
    },
  }
}

/** Access log lines. They are written when the response has left, which the client may see first. */
export async function accessLines(layover: TestLayover, atLeast: number): Promise<Record<string, unknown>[]> {
  return await eventually(() => {
    const lines = layover.lines().filter(line => line.msg === 'request')
    return lines.length >= atLeast ? lines : undefined
  })
}

/** Until so many blobs are in the store: the last byte of a download leaves a moment before its file is published. */
export async function untilStored(layover: TestLayover, blobs = 1): Promise<void> {
  await eventually(async () => ((await layover.metric('layover_storage_blobs')) >= blobs ? true : undefined))
}

/** What `look` gives as soon as it gives something. For what happens in another turn and reports itself nowhere. */
export async function eventually<T>(look: () => T | undefined | Promise<T | undefined>, withinMs = 20_000): Promise<T> {
  const deadline = performance.now() + withinMs
  for (;;) {
    const seen = await look()
    if (seen !== undefined) return seen
    if (performance.now() > deadline) throw new Error('it did not happen')
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}
