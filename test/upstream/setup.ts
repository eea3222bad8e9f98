import { afterEach } from 'vitest'
import type { Clock } from '../../src/clock.ts'
import type { UpstreamConfig } from '../../src/config/config.ts'
import { type Observer, silentObserver } from '../../src/log/observer.ts'
import { createUpstream, type UpstreamDependencies } from '../../src/upstream/registry-client.ts'
import { type Upstream, UpstreamError } from '../../src/upstream/upstream.ts'
import { type FakeRegistry, type FakeRegistryOptions, startFakeRegistry } from '../fakes/registry.ts'

const open: { close(): Promise<unknown> }[] = []

/** Closes what a test opened, upstreams before registries. */
afterEach(async () => {
  for (const one of open.splice(0).toReversed()) await one.close()
})

export function closeLater(one: { close(): Promise<unknown> }): void {
  open.push(one)
}

export async function fakeRegistry(options?: FakeRegistryOptions): Promise<FakeRegistry> {
  const registry = await startFakeRegistry(options)
  closeLater({ close: () => registry.stop() })
  return registry
}

export type FakeClock = Clock & { advance(ms: number): void }

export function fakeClock(start = 1_000_000_000_000): FakeClock {
  let elapsed = 0
  return {
    now: () => start + elapsed,
    monotonic: () => elapsed,
    advance: ms => {
      elapsed += ms
    },
  }
}

export function upstreamConfig(url: string, changes: Partial<UpstreamConfig> = {}): UpstreamConfig {
  return {
    name: 'registry.example.com',
    aliases: [],
    url,
    mirrors: [],
    default: false,
    credentials: undefined,
    ca: undefined,
    insecure: true,
    proxy: undefined,
    realmHosts: [],
    redirectHosts: [],
    maxConnections: 8,
    connectTimeoutMs: 2000,
    headersTimeoutMs: 5000,
    idleTimeoutMs: 5000,
    tagTtlMs: 60_000,
    maxStaleMs: 60_000,
    whenGone: 'deny',
    ...changes,
  }
}

type ClientOptions = Partial<UpstreamConfig> & { readonly with?: Partial<UpstreamDependencies> }

/** A client of `url` with a fake clock; everything can be replaced. */
export function client(url: string, { with: dependencies, ...config }: ClientOptions = {}): Upstream {
  const upstream = createUpstream({
    config: upstreamConfig(url, config),
    offline: false,
    clock: fakeClock(),
    observer: silentObserver,
    ...dependencies,
  })
  closeLater(upstream)
  return upstream
}

/** What a promise rejects with, when that is an {@link UpstreamError}; throws when it does not reject or with something else. */
export async function failureOf(promise: Promise<unknown>): Promise<UpstreamError> {
  try {
    await promise
  } catch (error) {
    if (error instanceof UpstreamError) return error
    throw error
  }
  throw new Error('expected a failure, got a success')
}

export async function bytesOf(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** Keeps every event, by name. */
export function recordingObserver(): Observer & {
  readonly events: { readonly name: string; readonly args: readonly unknown[] }[]
} {
  const events: { name: string; args: readonly unknown[] }[] = []
  const record =
    (name: string) =>
    (...args: readonly unknown[]) => {
      events.push({ name, args })
    }
  return {
    ...silentObserver,
    events,
    upstreamRequest: record('upstreamRequest'),
    upstreamBytes: record('upstreamBytes'),
    upstreamRateLimit: record('upstreamRateLimit'),
    upstreamState: record('upstreamState'),
  }
}
