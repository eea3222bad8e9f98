import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fakeImage, type FakeImage } from '../../test/fakes/image.ts'
import { startTestLayover, type TestLayover } from '../../test/fakes/layover.ts'
import { PrometheusServer } from '../../test/fakes/prometheus.ts'
import { freePorts } from '../../test/fakes/ports.ts'
import { redisConfig, RedisServer } from '../../test/fakes/redis.ts'
import { type FakeRegistry, startFakeRegistry } from '../../test/fakes/registry.ts'
import { accessKeyId, FakeS3, secretAccessKey } from '../../test/fakes/s3.ts'
import { cloudPrices } from '../../test/grafana/prices.ts'
import { ask, blobPath, manifestPath } from '../../test/grafana/pulling.ts'

export type Run = {
  readonly prometheus: PrometheusServer
  readonly from: number
  readonly to: number
  close(): Promise<void>
}

type Fleet = { readonly replicas: readonly TestLayover[]; readonly registries: Readonly<Record<string, FakeRegistry>> }
type Release = { readonly upstream: string; readonly repository: string; readonly image: FakeImage }

const names = ['docker.io', 'ghcr.io', 'quay.io', 'registry.k8s.io']

/**
 * Two replicas with Redis and a bucket, and nodes that pull from them for `seconds`: a new image every few seconds, popular ones again and again,
 * one registry that is away for a while, one that sent wrong bytes once, connections that break. Everything on loopback.
 */
export async function run(seconds: number): Promise<Run> {
  process.env['AWS_ACCESS_KEY_ID'] = accessKeyId
  process.env['AWS_SECRET_ACCESS_KEY'] = secretAccessKey
  const [redis, s3, ...started] = await Promise.all([
    RedisServer.start(),
    FakeS3.start(),
    ...names.map(name => startFakeRegistry({ auth: name === 'docker.io' ? 'bearer' : 'none' })),
  ])
  const registries = Object.fromEntries(started.map((registry, index) => [names[index] ?? '', registry]))
  const directory = await mkdtemp(join(tmpdir(), 'layover-preview-'))
  const secretFile = join(directory, 'secret')
  await writeFile(secretFile, randomBytes(32).toString('hex'))
  const replicas = await Promise.all(
    (await freePorts(2)).map(port =>
      startTestLayover({
        upstreams: Object.fromEntries(names.map(name => [name, { url: registries[name]?.url ?? '', tagTtlMs: 4_000 }])),
        config: {
          pricing: cloudPrices(...names),
          log: { level: 'error', access: false },
          s3: s3.config(),
          redis: redisConfig({ kind: 'url', url: redis.url }, { keyPrefix: 'preview', commandTimeoutMs: 1_000 }),
          hotTier: { maxBytes: 60 * 1024 * 1024 },
          replica: { listen: { host: '127.0.0.1', port }, url: `http://127.0.0.1:${port}`, secretFile },
        },
      }),
    ),
  )
  const prometheus = await PrometheusServer.start(replicas.map(({ adminUrl: url }) => ({ job: 'layover', url })))
  await prometheus.scraped(replicas.length)
  const from = Date.now() / 1000
  await pulls({ replicas, registries }, seconds)
  await prometheus.scraped(replicas.length)
  return {
    prometheus,
    from,
    to: Date.now() / 1000,
    async close() {
      await Promise.all([prometheus.stop(), ...replicas.map(replica => replica.close())])
      await Promise.all([redis.stop(), s3.stop(), ...started.map(registry => registry.stop())])
      await rm(directory, { recursive: true })
    },
  }
}

async function pulls(fleet: Fleet, seconds: number): Promise<void> {
  const end = performance.now() + seconds * 1000
  const released: Release[] = names.map((upstream, index) => release(fleet, upstream, index))
  const isRunning = (): boolean => performance.now() < end
  const nodes = Array.from({ length: 10 }, (_, index) => node(fleet, released, index, isRunning))
  await Promise.all([...nodes, releases(fleet, released, isRunning), trouble(fleet, seconds * 1000)])
}

/** Every few seconds somebody pushes, most often to the first registry. */
async function releases(fleet: Fleet, released: Release[], isRunning: () => boolean): Promise<void> {
  for (let count = names.length; isRunning(); count++) {
    await pause(2_500)
    released.push(release(fleet, names[[0, 1, 0, 2, 0, 3][count % 6] ?? 0] ?? '', count))
  }
}

function release({ registries }: Fleet, upstream: string, count: number): Release {
  const repository = `team/app-${count}`
  const options = { layers: 3, layerBytes: 200_000 + ((count * 617) % 7) * 250_000, seed: `${upstream} ${count}` }
  return {
    upstream,
    repository,
    image: registries[upstream]?.image(repository, 'latest', options) ?? fakeImage(options),
  }
}

/** A machine that starts containers: the newest images most of all. */
async function node(
  { replicas }: Fleet,
  released: readonly Release[],
  index: number,
  isRunning: () => boolean,
): Promise<void> {
  while (isRunning()) {
    const age = Math.floor(released.length * Math.random() ** 3)
    const layover = replicas[index % replicas.length]
    const wanted = released[released.length - 1 - age]
    if (!layover || !wanted) return
    const { upstream, repository, image } = wanted
    const status = await ask(layover, manifestPath(upstream, repository, 'latest'))
    if (status === 200)
      await Promise.all(
        [image.config, ...image.layers].map(({ digest }) => ask(layover, blobPath(upstream, repository, digest))),
      )
    await pause(150 + Math.random() * 350)
  }
}

async function trouble({ registries }: Fleet, ms: number): Promise<void> {
  const hub = registries['docker.io']
  const away = registries['ghcr.io']
  let left = 100
  const limit = setInterval(() => {
    left = Math.max(4, left - 1)
    if (hub) hub.settings.headers = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': `${left};w=21600` }
  }, ms / 80)
  await pause(ms * 0.2)
  hub?.fault({ method: 'GET', path: /blobs/, times: 3 }, { kind: 'cut', at: 150_000, how: 'rst' })
  await pause(ms * 0.2)
  await away?.stop()
  await pause(ms * 0.25)
  await away?.restart()
  await pause(ms * 0.1)
  hub?.clearFaults()
  hub?.fault({ method: 'GET', path: /blobs/, times: 1 }, { kind: 'flip', at: 100 })
  await pause(ms * 0.25)
  clearInterval(limit)
}
