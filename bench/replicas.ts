import { rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { type Digest, isDigest } from '../src/oci/digest.ts'
import { type LayoverFleet, startLayoverFleet } from '../test/real/harness/fleet.ts'
import type { LayoverProcess } from '../test/real/harness/layover.ts'
import { attemptPull } from './bar.ts'
import type { Bucket } from './bucket.ts'
import type { PullPlan, PullReport } from './puller.ts'
import type { Planted } from './tree.ts'

export type ReplicasOptions = {
  readonly count: number
  /** `host:port` of the upstream. */
  readonly upstream: string
  /** The section `s3`, with the variables that it needs. Absent: each replica has its own disk and nothing else. */
  readonly s3?: { readonly settings: Readonly<Record<string, unknown>>; readonly env: Bucket['env'] }
  /** Keys of the upstream's section. */
  readonly upstreamSettings?: Readonly<Record<string, unknown>>
}

/** Replicas on a Redis of their own. */
export function startReplicas({ count, upstream, s3, upstreamSettings }: ReplicasOptions): Promise<LayoverFleet> {
  return startLayoverFleet({
    count,
    upstreams: {
      'docker.io': false,
      'registry.bench': { default: true, url: `http://${upstream}`, insecure: true, ...upstreamSettings },
    },
    settings: { log: { access: false }, ...(s3 && { s3: s3.settings }) },
    ...(s3 && { env: s3.env }),
  })
}

export const portOf = ({ url }: LayoverProcess): number => Number(new URL(url).port)

/** The same number of clients at each replica, all at once; the report of all of them together. */
export async function pullFromAll(
  replicas: readonly LayoverProcess[],
  { clients, ...plan }: Omit<PullPlan, 'port'>,
): Promise<PullReport> {
  const each = { ...plan, clients: clients / replicas.length }
  const reports = await Promise.all(replicas.map(replica => attemptPull({ port: portOf(replica) }, each)))
  return {
    ms: Math.max(...reports.map(({ ms }) => ms)),
    bytes: reports.reduce((sum, { bytes }) => sum + bytes, 0),
    firstByteMs: reports.flatMap(({ firstByteMs }) => firstByteMs),
    failures: reports.flatMap(({ failures }) => failures),
  }
}

/** As a replica that lost its machine: a new process, nothing on its disk. */
export async function loseDisk(replica: LayoverProcess): Promise<void> {
  await replica.kill()
  await rm(replica.dataDir, { recursive: true, force: true })
  await replica.startAgain()
}

/** How many layers of these images are not in the bucket after `limitMs`. Resolves as soon as there are none. */
export async function countMissing(
  { bucket, prefix, images }: { readonly bucket: Bucket; readonly prefix: string; readonly images: readonly Planted[] },
  limitMs = 60_000,
): Promise<number> {
  let missing = images.flatMap(({ layerPaths }) => layerPaths).map(digestOfPath)
  for (const end = performance.now() + limitMs; ; await delay(100)) {
    const held = await Promise.all(missing.map(digest => bucket.holds(prefix, digest)))
    missing = missing.filter((_, index) => held[index] !== true)
    if (missing.length === 0 || performance.now() > end) return missing.length
  }
}

/** The digest that a request target ends with. */
export function digestOfPath(path: string): Digest {
  const digest = path.slice(path.lastIndexOf('/') + 1)
  if (!isDigest(digest)) throw new Error(`${path} names no blob`)
  return digest
}
