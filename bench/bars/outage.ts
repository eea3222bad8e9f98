import { setTimeout as delay } from 'node:timers/promises'
import type { LayoverProcess } from '../../test/real/harness/layover.ts'
import { openLink } from '../../test/real/harness/link.ts'
import { runOk } from '../../test/real/harness/process.ts'
import { attemptPull, type Bar, type Bench, type Verdict } from '../bar.ts'
import { type Bucket, startBucket } from '../bucket.ts'
import { median, ratios } from '../figures.ts'
import { countMissing, loseDisk, portOf, pullFromAll, startReplicas } from '../replicas.ts'
import type { Planted } from '../tree.ts'

const seconds = 4

type Sample = {
  readonly p99Before: number
  readonly p99Without: number
  readonly failedWithoutRedis: number
  readonly failedWithoutBucket: number
  readonly notUploaded: number
}

/** Redis stops under load, later the bucket does: no pull fails, and afterwards everything is in the bucket. */
export const outage: Bar = {
  name: 'outage',
  async measure(bench) {
    const bucket = await startBucket()
    try {
      const samples: Sample[] = []
      for (let run = 1; run <= bench.runs; run += 1) {
        const sample = await measureOnce(bench, bucket, `outage-${run}/`)
        samples.push(sample)
        bench.say(
          `outage ${run}/${bench.runs}: p99 ${sample.p99Before.toFixed(2)} ms, without Redis ${sample.p99Without.toFixed(2)} ms; failed ${sample.failedWithoutRedis} without Redis, ${sample.failedWithoutBucket} without bucket; ${sample.notUploaded} not uploaded after`,
        )
      }
      return verdicts(samples)
    } finally {
      await bucket.close()
    }
  },
}

async function measureOnce(
  { tree: { image, big, many }, upstream }: Bench,
  bucket: Bucket,
  prefix: string,
): Promise<Sample> {
  await using undo = new AsyncDisposableStack()
  const toBucket = await openLink({ to: bucket.host })
  undo.defer(() => toBucket.close())
  const s3 = { settings: bucket.settings(prefix, toBucket.host), env: bucket.env }
  const running = await startReplicas({ count: 2, upstream: upstream.host, s3 })
  undo.defer(() => running.close())
  const { replicas, redis } = running
  const [first, second] = replicas
  if (first === undefined || second === undefined) throw new Error('no replicas')
  await pullFromAll(replicas, planOf(image, 2))
  await countMissing({ bucket, prefix, images: [image] })

  await underLoad(first, image)
  const before = await underLoad(first, image)
  const redisStops = delay(500).then(() => redis.kill())
  const without = await underLoad(first, image)
  await redisStops
  const coldWithoutRedis = await pullFromAll(replicas, planOf(big, 4))
  await redis.run()

  // The second one reads from the bucket when that goes away.
  await loseDisk(second)
  const fromBucket = attemptPull({ port: portOf(second) }, planOf(image, 4))
  await delay(500)
  toBucket.sever()
  const broken = await fromBucket
  const coldWithoutBucket = await pullFromAll(replicas, planOf(many, 4))
  toBucket.restore()
  return {
    p99Before: before.p99Ms,
    p99Without: without.p99Ms,
    failedWithoutRedis: before.failed + without.failed + coldWithoutRedis.failures.length,
    failedWithoutBucket: broken.failures.length + coldWithoutBucket.failures.length,
    notUploaded: await countMissing({ bucket, prefix, images: [image, big, many] }),
  }
}

const planOf = (image: Planted, clients: number) => ({
  before: [image.manifestPath],
  paths: image.layerPaths,
  clients,
  connections: 2,
})

/** Warm manifests as fast as they come, beside one client that pulls warm blobs. */
async function underLoad(replica: LayoverProcess, image: Planted): Promise<{ p99Ms: number; failed: number }> {
  const pulls = attemptPull({ port: portOf(replica) }, planOf(image, 1))
  const accept = 'Accept: application/vnd.oci.image.manifest.v1+json'
  const url = `${replica.url}${image.manifestPath}`
  const output = await runOk('wrk', ['-t1', '-c4', `-d${seconds}s`, '--latency', '-H', accept, url])
  const { failures } = await pulls
  const refused = Number(/Non-2xx or 3xx responses: (\d+)/.exec(output)?.[1] ?? 0)
  const broken = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(output)?.slice(1) ?? []
  return {
    p99Ms: milliseconds(/99%\s+([\d.]+)(us|ms|s)/.exec(output)),
    failed: failures.length + refused + broken.reduce((sum, count) => sum + Number(count), 0),
  }
}

function milliseconds(found: RegExpExecArray | null): number {
  const [, figure, unit = ''] = found ?? []
  const factor = { us: 0.001, ms: 1, s: 1000 }[unit] ?? Number.NaN
  return Number(figure) * factor
}

function verdicts(samples: readonly Sample[]): readonly Verdict[] {
  const worst = (what: string, pick: (sample: Sample) => number): Verdict => {
    const all = samples.map(pick)
    return { what, unit: '', value: Math.max(...all), limit: { exactly: 0 }, samples: all }
  }
  const befores = samples.map(({ p99Before }) => p99Before)
  const withouts = samples.map(({ p99Without }) => p99Without)
  const slowed = ratios(withouts, befores)
  return [
    worst('Redis stopped under load: pulls that failed', ({ failedWithoutRedis }) => failedWithoutRedis),
    {
      what: 'Redis stopped under load: p99 of warm manifests, against before',
      value: median(slowed),
      unit: '×',
      limit: { atMost: 2 },
      samples: slowed,
    },
    worst('bucket stopped under load: pulls that failed', ({ failedWithoutBucket }) => failedWithoutBucket),
    worst('both back: layers that did not get into the bucket', ({ notUploaded }) => notUploaded),
    { what: 'p99 of warm manifests, with Redis', value: median(befores), unit: 'ms', samples: befores },
    { what: 'p99 of warm manifests, without Redis', value: median(withouts), unit: 'ms', samples: withouts },
  ]
}
