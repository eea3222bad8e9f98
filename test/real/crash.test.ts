import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Agent } from 'undici'
import { expect, it } from 'vitest'
import { startDemoRegistry } from '../../src/cli/demo-registry.ts'
import { image, type Layer, noiseLayer } from '../../src/cli/image.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { type LayoverProcess, startLayoverProcess } from './harness/layover.ts'
import { until } from './harness/process.ts'
import { seededRandom } from './harness/random.ts'

const KiB = 1024
const rounds = 50
const blobsPerRound = 4
const repository = 'crash/image'
const seed = Number(process.env['LAYOVER_SEED'] ?? Date.now() % 2 ** 31)

/** Gives the bytes, or undefined when the answer did not come whole: the client of a process that dies knows that it has nothing. */
async function fetchBlob(dispatcher: Agent, origin: string, digest: string): Promise<Buffer | undefined> {
  try {
    const path = `/v2/${repository}/blobs/${digest}`
    const { statusCode, body } = await dispatcher.request({ origin, path, method: 'GET' })
    const bytes = Buffer.from(await body.arrayBuffer())
    return statusCode === 200 ? bytes : undefined
  } catch {
    return undefined
  }
}

async function publishedFiles(dataDir: string): Promise<readonly string[]> {
  const entries = await readdir(join(dataDir, 'blobs'), { recursive: true, withFileTypes: true })
  return entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
}

/** Published files whose bytes are not what their name says. */
async function brokenFiles(dataDir: string): Promise<readonly string[]> {
  const files = await publishedFiles(dataDir)
  const wrong = await Promise.all(
    files.map(async path => (digestOf(await readFile(path)).endsWith(`:${basename(path)}`) ? [] : [path])),
  )
  return wrong.flat()
}

async function fetchAll(origin: string, layers: readonly Layer[]): Promise<readonly (Buffer | undefined)[]> {
  const dispatcher = new Agent()
  try {
    return await Promise.all(layers.map(({ digest }) => fetchBlob(dispatcher, origin, digest)))
  } finally {
    await dispatcher.destroy()
  }
}

async function digestsOf(fetching: Promise<readonly (Buffer | undefined)[]>): Promise<readonly (string | undefined)[]> {
  return (await fetching).map(bytes => bytes && digestOf(bytes))
}

it(`F-33: after kill -9 at any moment, ${rounds} times over, what is published is whole and the next start serves it`, async () => {
  // LAYOVER_SEED repeats a run, as far as two processes can be repeated.
  console.log(`kill -9 with seed ${seed}`)
  const random = seededRandom(seed)
  const layers = Array.from({ length: (rounds + 1) * blobsPerRound }, (_, n) =>
    noiseLayer(`${seed}-${n}`, Math.floor((50 + 500 * random()) * KiB)),
  )
  const batch = (round: number): readonly Layer[] => layers.slice(round * blobsPerRound, (round + 1) * blobsPerRound)
  const upstream = await startDemoRegistry({
    repository,
    tag: 'latest',
    image: image({ layers }),
    bytesPerSecond: 12 * KiB * KiB,
  })
  const config = { default: true, url: upstream.url, insecure: true }
  let layover: LayoverProcess | undefined
  let whole = 0
  try {
    layover = await startLayoverProcess({ upstreams: { 'docker.io': false, 'registry.test': config } })
    for (let round = 0; round < rounds; round += 1) {
      const running = fetchAll(layover.url, batch(round))
      await delay(200 * random())
      await layover.kill()

      const received = await running
      for (const [n, bytes] of received.entries()) {
        if (bytes === undefined) continue
        whole += 1
        expect(digestOf(bytes)).toBe(batch(round)[n]?.digest)
      }
      expect(await brokenFiles(layover.dataDir)).toEqual([])

      await layover.startAgain()
      expect(await digestsOf(fetchAll(layover.url, batch(round)))).toEqual(batch(round).map(({ digest }) => digest))
    }
    // A run that always struck before or always after a download would have shown nothing.
    expect(whole).toBeGreaterThan(0)
    expect(whole).toBeLessThan(rounds * blobsPerRound)

    // A blob that was served a moment before the kill may have had no time to be published: it is fetched once more, and then it is there.
    const kept = layers.slice(0, rounds * blobsPerRound)
    const { dataDir, url } = layover
    expect(await digestsOf(fetchAll(url, kept))).toEqual(kept.map(({ digest }) => digest))
    await until(async () => (await publishedFiles(dataDir)).length === kept.length)
    await upstream.stop()
    expect(await digestsOf(fetchAll(url, kept))).toEqual(kept.map(({ digest }) => digest))
    expect(await brokenFiles(layover.dataDir)).toEqual([])
  } finally {
    await layover?.close()
    await upstream.stop()
  }
}, 180_000)
