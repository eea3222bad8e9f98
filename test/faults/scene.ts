import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, vi } from 'vitest'
import type { Config, UpstreamConfig } from '../../src/config/config.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { wrongFiles } from '../cache/blobs-setup.ts'
import { FakeClock } from '../fakes/clock.ts'
import { type FakeImage, pseudoRandomBytes } from '../fakes/image.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { type RawResponse, rawRequest } from '../fakes/raw-client.ts'
import { type FakeRegistry, type FakeRegistryOptions, presignedSecret, startFakeRegistry } from '../fakes/registry.ts'
import { dumpShared } from '../fakes/shared-services.ts'

export const kib = 1024
export const mib = 1024 * kib
export const repository = 'library/app'
export const upstreamName = 'fake.test'
/** Must appear nowhere (T-10). */
export const password = 'password-canary-9c1e'

export type Scene = {
  readonly registry: FakeRegistry
  readonly mirror: FakeRegistry | undefined
  readonly layover: TestLayover
  readonly clock: FakeClock
  readonly bytes: Buffer
  readonly digest: Digest
  /** Descriptors that were open before anything went wrong. */
  readonly openBefore: number
}

export type SceneOptions = {
  readonly registry?: FakeRegistryOptions
  readonly mirror?: boolean
  readonly config?: Partial<Omit<Config, 'upstreams' | 'dataDir'>>
  readonly fills?: Partial<Config['fills']>
  readonly upstream?: Partial<UpstreamConfig>
  readonly bytes?: Buffer
}

let scenes = 0

/** Layover in front of a registry that asks for credentials, with one blob; one other blob was pulled, so that connections and tokens are there. */
export async function startScene(options: SceneOptions = {}): Promise<Scene> {
  const account = { auth: 'bearer', username: 'robot', password } as const
  const registry = await startFakeRegistry({ ...account, ...options.registry })
  const mirror = options.mirror ? await startFakeRegistry({}) : undefined
  onTestFinished(() => Promise.all([registry.stop(), mirror?.stop()]).then(() => undefined))
  const clock = new FakeClock()
  const layover = await startTestLayover({
    clock,
    upstreams: {
      [upstreamName]: {
        url: registry.url,
        insecure: true,
        credentials: { kind: 'password', username: 'robot', password },
        mirrors: mirror ? [mirror.url] : [],
        ...options.upstream,
      },
    },
    config: {
      ...options.config,
      fills: {
        finishWithinBytes: 0,
        finishFromShare: 2,
        abandonMs: 0,
        nearBytes: 64 * kib,
        maxSideReads: 4,
        maxAttempts: 3,
        earlyRanges: false,
        ...options.fills,
      },
    },
  })
  onTestFinished(() => layover.close())
  const bytes = options.bytes ?? pseudoRandomBytes(512 * kib, `scene ${++scenes}`)
  const digest = registry.addBlobTo(repository, bytes)
  mirror?.addBlobTo(repository, bytes)
  const other = registry.addBlobTo(repository, pseudoRandomBytes(1000, 'other'))
  mirror?.addBlobTo(repository, pseudoRandomBytes(1000, 'other'))
  if (options.upstream?.url === undefined) {
    expect((await pull(layover, other)).status).toBe(200)
    await untilStored(layover)
  }
  await layover.metrics()
  return { registry, mirror, layover, clock, bytes, digest, openBefore: openDescriptors() }
}

export function blobPath(digest: string): string {
  return `/v2/${repository}/blobs/${digest}`
}

export function pull(
  layover: TestLayover,
  digest: string,
  options: { headers?: Record<string, string>; timeoutMs?: number } = {},
): Promise<RawResponse> {
  return rawRequest(layover.port, blobPath(digest), { timeoutMs: 15_000, ...options })
}

/** A whole image by tag, as a client does it: the manifest, then every blob. All must be right. */
export async function pullImage(layover: TestLayover, tag: string, image: FakeImage): Promise<void> {
  const manifest = await rawRequest(layover.port, manifestPath(tag))
  expect(manifest.status).toBe(200)
  expect(manifest.body.equals(image.manifestBytes)).toBe(true)
  for (const { digest, bytes } of [image.config, ...image.layers])
    expect((await pull(layover, digest)).body.equals(bytes)).toBe(true)
  await untilStored(layover)
}

/** Clients have their last byte before the disk has. */
export async function untilStored(layover: TestLayover): Promise<void> {
  const running = `layover_fills_running{upstream="${upstreamName}"}`
  await vi.waitFor(async () => expect(await layover.metric(running)).toBe(0), { interval: 5, timeout: 5_000 })
}

export function manifestPath(reference: string): string {
  return `/v2/${repository}/manifests/${reference}`
}

/** The body as a client would believe it, or undefined when it can tell that it is not whole. */
export function completeBody({ status, headers, body }: RawResponse): Buffer | undefined {
  if (status !== 200 && status !== 206) return undefined
  const length = headers['content-length']
  if (length !== undefined) return body.length === Number(length) ? body : undefined
  return headers['transfer-encoding'] === 'chunked' ? unchunked(body) : body
}

function unchunked(body: Buffer): Buffer | undefined {
  const parts: Buffer[] = []
  for (let at = 0; ; ) {
    const lineEnd = body.indexOf('\r\n', at)
    if (lineEnd < 0) return undefined
    const size = Number.parseInt(body.subarray(at, lineEnd).toString('latin1'), 16)
    if (size === 0) return Buffer.concat(parts)
    if (lineEnd + 2 + size > body.length) return undefined
    parts.push(body.subarray(lineEnd + 2, lineEnd + 2 + size))
    at = lineEnd + 2 + size + 2
  }
}

export type Aftermath = {
  /** What clients got while the fault was there. */
  readonly responses: readonly RawResponse[]
  /** Reasons of the downloads that failed, in order. */
  readonly failures?: readonly string[]
  readonly digest?: Digest
  readonly bytes?: Buffer
  /** Milliseconds of back-off that may pass before the next pull succeeds. */
  readonly backOffMs?: number
}

/** What holds after every fault; then the fault is removed, and the next pull succeeds. */
export async function expectCleanAftermath(scene: Scene, aftermath: Aftermath): Promise<void> {
  const { registry, mirror, layover, clock } = scene
  const { responses, failures = [], digest = scene.digest, bytes = scene.bytes, backOffMs = 15_000 } = aftermath
  // (a) No response looks complete and is wrong.
  for (const response of responses) {
    const body = completeBody(response)
    if (body !== undefined && response.status === 200) expect(body.equals(bytes)).toBe(true)
  }
  // (b) What is visible is whole, nothing is left half way. (c) Nothing runs, nothing stays open.
  await vi.waitFor(() => expectNothingLeft(scene), { timeout: 5_000, interval: 20 })
  // (e) Every failure is in one metric and in one line, with its reason.
  expect(failuresOf(layover)).toEqual(failures)
  for (const reason of new Set(failures))
    expect(await layover.metric(`layover_fills_failed_total{upstream="${upstreamName}",reason="${reason}"}`)).toBe(
      failures.filter(each => each === reason).length,
    )
  // (d) Without the fault the next pull succeeds, once the back-off is over.
  registry.clearFaults()
  mirror?.clearFaults()
  clock.advance(backOffMs)
  const next = await pull(layover, digest)
  expect(next.status).toBe(200)
  expect(next.body.equals(bytes)).toBe(true)
  // (f) No secret is anywhere.
  await expectNoSecrets(scene, [...responses, next])
}

/** The sum of all series of a metric that have these labels. */
export async function figure(
  layover: TestLayover,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): Promise<number> {
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`)
  const lines = (await layover.metrics()).split('\n').filter(line => line.startsWith(`${name}{`))
  const matching = lines.filter(line => wanted.every(label => line.includes(label)))
  return matching.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}

/** Reasons of the downloads that failed, from their log lines. */
export function failuresOf(layover: TestLayover): string[] {
  return layover
    .lines()
    .filter(line => line.msg === 'download failed')
    .map(line => String(line.reason))
}

async function expectNothingLeft({ layover, openBefore }: Scene): Promise<void> {
  expect(await layover.metric(`layover_fills_running{upstream="${upstreamName}"}`)).toBe(0)
  expect(await readdir(join(layover.dataDir, 'spool'))).toEqual([])
  expect(openFilesIn(layover.dataDir)).toEqual([])
  // Idle connections to upstream are kept, on both ends.
  expect(openDescriptors()).toBeLessThanOrEqual(openBefore + 12)
  expect(await wrongFiles(layover.dataDir)).toEqual([])
}

export async function expectNoSecrets({ layover }: Pick<Scene, 'layover'>, responses: readonly RawResponse[]) {
  const index = ['index.sqlite', 'index.sqlite-wal'].map(name => readIfThere(join(layover.dataDir, name)))
  const told = responses.flatMap(({ headers, body }) => [JSON.stringify(headers), body.toString('latin1')])
  const everything = [layover.logged(), await layover.metrics(), await dumpShared(), ...index, ...told].join('\n')
  const secrets = [password, Buffer.from(`robot:${password}`).toString('base64'), presignedSecret]
  for (const secret of secrets) expect(everything.includes(secret)).toBe(false)
  // Tokens of the fake registry have this form.
  expect(/token-[0-9a-f]{8}-[0-9a-f]{4}/.exec(everything)).toBeNull()
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}

/** Spool files and blobs that are open in this process. */
function openFilesIn(dataDir: string): string[] {
  return readdirSync('/proc/self/fd').flatMap(name => {
    try {
      const path = readlinkSync(`/proc/self/fd/${name}`)
      return path.startsWith(join(dataDir, 'spool')) || path.startsWith(join(dataDir, 'blobs')) ? [path] : []
    } catch {
      return []
    }
  })
}
