import { openLink } from '../../test/real/harness/link.ts'
import type { Bar, Bench, Verdict } from '../bar.ts'
import { type Bucket, startBucket } from '../bucket.ts'
import { median, MiB, ratios } from '../figures.ts'
import { pullFromAll, startReplicas } from '../replicas.ts'

const linkRate = 16 * MiB
const crowd = 33

type Sample = { readonly ms: number; readonly gets: number; readonly share: number; readonly failures: number }

/** A cold image, 33 clients at once: three replicas load upstream no more than one, and take hardly longer. */
export const fleet: Bar = {
  name: 'fleet',
  async measure(bench) {
    const bucket = await startBucket()
    try {
      const one: Sample[] = []
      const three: Sample[] = []
      for (let run = 1; run <= bench.runs; run += 1)
        for (const [count, samples] of [
          [1, one],
          [3, three],
        ] as const) {
          const sample = await measureOnce(bench, { bucket, count, prefix: `fleet-${run}-${count}/` })
          samples.push(sample)
          bench.say(
            `fleet ${run}/${bench.runs} ${count} replicas: ${sample.ms.toFixed(0)} ms, ${sample.gets} GETs, ${sample.share.toFixed(3)} × image, ${sample.failures} failures`,
          )
        }
      return verdicts(one, three)
    } finally {
      await bucket.close()
    }
  },
}

type Case = { readonly bucket: Bucket; readonly count: number; readonly prefix: string }

async function measureOnce({ tree: { image }, upstream }: Bench, { bucket, count, prefix }: Case): Promise<Sample> {
  await using undo = new AsyncDisposableStack()
  const link = await openLink({ to: upstream.host, bytesPerSecond: linkRate })
  undo.defer(() => link.close())
  const s3 = { settings: bucket.settings(prefix), env: bucket.env }
  const running = await startReplicas({ count, upstream: link.host, s3 })
  undo.defer(() => running.close())
  await upstream.takeLedger(image.layerPaths)
  const { ms, failures } = await pullFromAll(running.replicas, {
    before: [image.manifestPath],
    paths: image.layerPaths,
    clients: crowd,
    connections: image.layerPaths.length,
  })
  const { gets, bytes } = await upstream.takeLedger(image.layerPaths)
  return { ms, gets, share: bytes / image.layerBytes, failures: failures.length }
}

function verdicts(one: readonly Sample[], three: readonly Sample[]): readonly Verdict[] {
  const time = ({ ms }: Sample): number => ms
  const against = ratios(three.map(time), one.map(time))
  const worst = (what: string, unit: string, exactly: number, samples: readonly number[]): Verdict => ({
    what: `three replicas, 33 clients: ${what}`,
    value: samples.toSorted((a, b) => Math.abs(b - exactly) - Math.abs(a - exactly))[0] ?? Number.NaN,
    unit,
    limit: { exactly },
    samples,
  })
  const seconds = (what: string, samples: readonly Sample[]): Verdict => ({
    what: `${what}, 33 clients: last client done`,
    value: median(samples.map(time)) / 1000,
    unit: 's',
    samples: samples.map(({ ms }) => ms / 1000),
  })
  return [
    worst(
      'blob GETs at upstream',
      '',
      4,
      three.map(({ gets }) => gets),
    ),
    worst(
      'bytes from upstream',
      '× image',
      1,
      three.map(({ share }) => share),
    ),
    worst(
      'requests that failed',
      '',
      0,
      three.map(({ failures }) => failures),
    ),
    {
      what: 'three replicas, 33 clients: last client, against one replica',
      value: median(against),
      unit: '×',
      limit: { atMost: 1.3 },
      samples: against,
    },
    seconds('three replicas', three),
    seconds('one replica', one),
  ]
}
