import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type RunningLayover, startLayover } from '../../src/compose.ts'
import type { Clock } from '../../src/clock.ts'
import type { Config, UpstreamConfig } from '../../src/config/config.ts'
import { createLog } from '../../src/log/log.ts'
import { wrongFiles } from '../cache/blobs-setup.ts'
import type { FakeRegistry } from './registry.ts'
import { clearBucket, distributedConfig } from './shared-services.ts'

export type TestLayover = {
  /** `http://127.0.0.1:port` of the registry listener. */
  readonly url: string
  readonly port: number
  readonly adminUrl: string
  readonly dataDir: string
  /** Everything that was logged so far, as text. */
  logged(): string
  /** Log lines as objects. */
  lines(): Record<string, unknown>[]
  metrics(): Promise<string>
  /** The value of one series: `layover_fills_running{upstream="fake.test"}`. 0 when absent. */
  metric(series: string): Promise<number>
  /** Stops and starts again on the same data directory; the ports are new. */
  restart(change?: Partial<Config>): Promise<TestLayover>
  /** Stops as an operator does: running answers finish. `close` must still be called. */
  drain(): Promise<void>
  /** Stops, checks that every visible file hashes to its name, removes the directory. */
  close(): Promise<void>
}

export type TestLayoverOptions = {
  /** Upstreams by name; a fake registry stands for `{ url: registry.url, insecure: true }`. The first is the default one. */
  readonly upstreams: Readonly<Record<string, FakeRegistry | (Partial<UpstreamConfig> & { url: string })>>
  readonly config?: Partial<Omit<Config, 'upstreams' | 'dataDir'>>
  readonly dataDir?: string
  readonly clock?: Clock
}

/** Layover on free loopback ports and a directory of its own, in this process. With LAYOVER_TEST_SETUP=distributed also with Redis and a bucket. */
export async function startTestLayover(options: TestLayoverOptions): Promise<TestLayover> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'layover-test-')))
  const config = { ...(await distributedConfig(dataDir)), ...testConfig(dataDir, options) }
  return await start(config, options)
}

export function upstreamConfig(name: string, change: Partial<UpstreamConfig> & { url: string }): UpstreamConfig {
  return {
    name,
    aliases: [],
    mirrors: [],
    default: false,
    credentials: undefined,
    ca: undefined,
    insecure: change.url.startsWith('http://'),
    proxy: undefined,
    realmHosts: [],
    redirectHosts: [],
    maxConnections: 64,
    connectTimeoutMs: 10_000,
    headersTimeoutMs: 15_000,
    idleTimeoutMs: 10_000,
    tagTtlMs: 300_000,
    maxStaleMs: 7 * 86_400_000,
    whenGone: 'deny',
    ...change,
  }
}

function testConfig(dataDir: string, { upstreams, config = {} }: TestLayoverOptions): Config {
  const configured = Object.entries(upstreams).map(([name, upstream], index) =>
    upstreamConfig(name, { default: index === 0, ...('requests' in upstream ? { url: upstream.url } : upstream) }),
  )
  return {
    listen: { host: '127.0.0.1', port: 0 },
    admin: { host: '127.0.0.1', port: 0 },
    dataDir,
    storage: { maxBytes: 1024 * 1024 * 1024 },
    upstreams: configured,
    prefetch: 'off',
    offline: false,
    fills: {
      finishWithinBytes: 64 * 1024 * 1024,
      finishFromShare: 0.5,
      abandonMs: 1_000,
      nearBytes: 8 * 1024 * 1024,
      maxSideReads: 4,
      maxAttempts: 5,
      earlyRanges: false,
    },
    clients: { maxConnections: 10_000, stallMs: 60_000 },
    drainMs: 5_000,
    log: { level: 'debug', access: true },
    ...config,
  }
}

async function start(config: Config, options: TestLayoverOptions): Promise<TestLayover> {
  const written: string[] = []
  const log = createLog({ level: config.log.level, stream: { write: line => written.push(line) } })
  const running: RunningLayover = await startLayover({ config, log, ...(options.clock && { clock: options.clock }) })
  const metrics = async (): Promise<string> => await (await fetch(`${running.adminUrl}/metrics`)).text()
  return {
    url: running.registryUrl,
    port: Number(new URL(running.registryUrl).port),
    adminUrl: running.adminUrl,
    dataDir: config.dataDir,
    logged: () => written.join(''),
    lines: () => written.map(line => JSON.parse(line) as Record<string, unknown>),
    metrics,
    metric: async series => {
      const line = (await metrics()).split('\n').find(each => each.startsWith(`${series} `))
      return line === undefined ? 0 : Number(line.slice(series.length + 1))
    },
    restart: async change => {
      await running.close({ now: true })
      return await start({ ...config, ...change }, options)
    },
    drain: () => running.close(),
    close: async () => {
      await running.close({ now: true })
      const wrong = [...(await wrongFiles(config.dataDir)), ...(await clearBucket(config.dataDir))]
      await rm(config.dataDir, { recursive: true, force: true })
      if (wrong.length > 0) throw new Error(`visible files that do not hash to their names: ${wrong.join(', ')}`)
    },
  }
}
