import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { Agent } from 'undici'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Digest, digestOf, finish, hasher } from '../../src/oci/digest.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { type LayoverFleet, startLayoverFleet } from './harness/fleet.ts'
import type { LayoverProcess } from './harness/layover.ts'
import { until } from './harness/process.ts'

const MiB = 1024 * 1024
const repository = 'team/app'

/** One client's download of one blob, while it runs. */
type Download = {
  readonly replica: LayoverProcess
  received: number
  /** The longest time without a byte, milliseconds, since the first one. */
  longestStall: number
  /** The digest of what came, or undefined when it did not come whole. */
  readonly done: Promise<Digest | undefined>
}

let registry: FakeRegistry
let fleet: LayoverFleet
let agent: Agent

beforeEach(async () => {
  registry = await startFakeRegistry()
  agent = new Agent({ connections: 64 })
  fleet = await startLayoverFleet({
    count: 3,
    upstreams: { 'docker.io': false, 'registry.test': { default: true, url: registry.url, insecure: true } },
  })
})

afterEach(async () => {
  await agent.destroy()
  await fleet.close()
  await registry.stop()
})

async function pullManifest(replica: LayoverProcess): Promise<void> {
  const path = `/v2/${repository}/manifests/latest`
  const accept = 'application/vnd.oci.image.manifest.v1+json'
  const { statusCode, body } = await agent.request({ origin: replica.url, path, method: 'GET', headers: { accept } })
  await body.dump()
  if (statusCode !== 200) throw new Error(`the manifest is answered with ${statusCode}`)
}

function download(replica: LayoverProcess, digest: Digest): Download {
  const run = async (): Promise<Digest | undefined> => {
    try {
      const path = `/v2/${repository}/blobs/${digest}`
      const { statusCode, body } = await agent.request({ origin: replica.url, path, method: 'GET' })
      const hash = hasher('sha256')
      let last = performance.now()
      for await (const chunk of body as AsyncIterable<Buffer>) {
        hash.update(chunk)
        own.received += chunk.length
        own.longestStall = Math.max(own.longestStall, performance.now() - last)
        last = performance.now()
      }
      return statusCode === 200 ? finish('sha256', hash) : undefined
    } catch {
      return undefined
    }
  }
  const own: Download = {
    replica,
    received: 0,
    longestStall: 0,
    get done() {
      return done
    },
  }
  const done = run()
  return own
}

/** Published files, of all replicas, whose bytes are not what their name says. */
async function brokenFiles(): Promise<readonly string[]> {
  const wrong: string[] = []
  for (const { dataDir } of fleet.replicas) {
    const entries = await readdir(join(dataDir, 'blobs'), { recursive: true, withFileTypes: true })
    for (const entry of entries.filter(each => each.isFile())) {
      const path = join(entry.parentPath, entry.name)
      if (!digestOf(await readFile(path)).endsWith(`:${basename(path)}`)) wrong.push(path)
    }
  }
  return wrong
}

const blobGets = { method: 'GET', path: /\/blobs\// } as const

/** Clients of every replica in the middle of one blob, of which upstream holds back the second half. */
async function halfWay(
  digest: Digest,
  half: number,
): Promise<{ downloads: Download[]; owner: LayoverProcess; release: () => void }> {
  await Promise.all(fleet.replicas.map(pullManifest))
  const gate = registry.gate({ ...blobGets, afterBytes: half })
  const downloads = fleet.replicas.flatMap(replica => [1, 2, 3, 4].map(() => download(replica, digest)))
  await gate.reached
  await until(() => downloads.every(({ received }) => received > half - MiB))
  const owner = await fleet.ownerOf(digest)
  if (owner === undefined) throw new Error('nobody holds the lease')
  return { downloads, owner, release: () => gate.release() }
}

const digestsOf = (downloads: readonly Download[]): Promise<(Digest | undefined)[]> =>
  Promise.all(downloads.map(({ done }) => done))

describe('three replicas on one Redis', () => {
  it('F-52: 33 clients at once pull a cold image, and upstream gives each blob once', async () => {
    const image = registry.image(repository, 'latest', { layers: 4, layerBytes: 4 * MiB })
    registry.fault({ ...blobGets, times: 1_000 }, { kind: 'slow', bytesPerSecond: 16 * MiB })
    const blobs = [image.config, ...image.layers]
    const clients = Array.from({ length: 33 }, (_, n) => fleet.replicas[n % fleet.replicas.length]).flatMap(
      one => one ?? [],
    )
    const pulled = await Promise.all(
      clients.map(async replica => {
        await pullManifest(replica)
        return await digestsOf(blobs.map(({ digest }) => download(replica, digest)))
      }),
    )
    for (const digests of pulled) expect(digests).toEqual(blobs.map(({ digest }) => digest))
    expect(registry.count(blobGets)).toBe(blobs.length)
    expect(registry.bytes(blobGets)).toBe(blobs.reduce((sum, { size }) => sum + size, 0))
    expect(await brokenFiles()).toEqual([])
  })

  it('F-53: the owner is killed in the middle, and every client of the others gets the right bytes', async () => {
    const [layer] = registry.image(repository, 'latest', { layers: 1, layerBytes: 16 * MiB }).layers
    if (!layer) throw new Error('an image has layers')
    const { downloads, owner, release } = await halfWay(layer.digest, 8 * MiB)
    await owner.kill()
    release()
    const others = downloads.filter(({ replica }) => replica !== owner)
    expect(others).toHaveLength(8)
    expect(await digestsOf(others)).toEqual(others.map(() => layer.digest))
    expect(Math.max(...others.map(({ longestStall }) => longestStall))).toBeLessThan(5_000)
    expect(registry.bytes(blobGets)).toBeLessThanOrEqual(1.5 * layer.size)
    expect(await brokenFiles()).toEqual([])
  })

  it('F-53: the owner is stopped in the middle, and goes on later: nobody gets wrong bytes, and its clients get theirs', async () => {
    const [layer] = registry.image(repository, 'latest', { layers: 1, layerBytes: 16 * MiB }).layers
    if (!layer) throw new Error('an image has layers')
    const { downloads, owner, release } = await halfWay(layer.digest, 8 * MiB)
    process.kill(owner.pid(), 'SIGSTOP')
    try {
      release()
      const others = downloads.filter(({ replica }) => replica !== owner)
      expect(await digestsOf(others)).toEqual(others.map(() => layer.digest))
      // The others took over long before the lease would have been missed by hand.
      expect(Math.max(...others.map(({ longestStall }) => longestStall))).toBeLessThan(15_000)
    } finally {
      process.kill(owner.pid(), 'SIGCONT')
    }
    expect(await digestsOf(downloads)).toEqual(downloads.map(() => layer.digest))
    expect(registry.bytes(blobGets)).toBeLessThanOrEqual(2 * layer.size)
    expect(await brokenFiles()).toEqual([])
  }, 60_000)

  it('F-59: Redis dies in the middle, and every client gets the right bytes', async () => {
    const [layer] = registry.image(repository, 'latest', { layers: 1, layerBytes: 16 * MiB }).layers
    if (!layer) throw new Error('an image has layers')
    const { downloads, release } = await halfWay(layer.digest, 8 * MiB)
    await fleet.redis.kill()
    release()
    expect(await digestsOf(downloads)).toEqual(downloads.map(() => layer.digest))
    expect(registry.count(blobGets)).toBe(1)
  })
})
