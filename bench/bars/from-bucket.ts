import { openLink } from '../../test/real/harness/link.ts'
import { runOk } from '../../test/real/harness/process.ts'
import { type Bar, type Bench, pull, type Verdict } from '../bar.ts'
import { type Bucket, startBucket } from '../bucket.ts'
import { median, MiB, ratios } from '../figures.ts'
import { countMissing, digestOfPath, loseDisk, portOf, startReplicas } from '../replicas.ts'

/** What one connection to a bucket in the cloud brings, and more than that. */
const linkRate = 128 * MiB

/**
 * A replica that comes up with an empty disk: the image is in the bucket, and upstream hears nothing. Once as fast as this machine can, where the service, the
 * replica and the client share its cores; once over a link, as buckets are reached.
 */
export const fromBucket: Bar = {
  name: 'from-bucket',
  async measure(bench) {
    await using undo = new AsyncDisposableStack()
    const bucket = await startBucket()
    undo.defer(() => bucket.close())
    const link = await openLink({ to: bucket.host, bytesPerSecond: linkRate })
    undo.defer(() => link.close())
    return [
      ...(await measureBy({ bench, bucket, way: bucket.host, words: 'no cap' })),
      ...(await measureBy({ bench, bucket, way: link.host, words: `link of ${linkRate / MiB} MiB/s` })),
    ]
  },
}

type Way = { readonly bench: Bench; readonly bucket: Bucket; readonly way: string; readonly words: string }

async function measureBy({ bench, bucket, way, words }: Way): Promise<readonly Verdict[]> {
  const { upstream, runs, say } = bench
  const { big } = bench.tree
  await using undo = new AsyncDisposableStack()
  const prefix = `${words.replaceAll(/[^a-z0-9]/g, '-')}/`
  const s3 = { settings: bucket.settings(prefix, way), env: bucket.env }
  const running = await startReplicas({ count: 1, upstream: upstream.host, s3 })
  undo.defer(() => running.close())
  const [replica] = running.replicas
  const [path = ''] = big.layerPaths
  if (replica === undefined) throw new Error('nothing to measure')
  const plan = { before: [big.manifestPath], paths: big.layerPaths, clients: 1, connections: 1 }
  const server = { name: 'replica', port: portOf(replica) }
  await pull(server, plan)
  if ((await countMissing({ bucket, prefix, images: [big] })) > 0)
    throw new Error('the image did not get into the bucket')
  const url = await bucket.urlOf(prefix, digestOfPath(path), way)

  const [through, straight]: [number[], number[]] = [[], []]
  const asked: number[] = []
  for (let run = 1; run <= runs; run += 1) {
    straight.push(await curlRate(url))
    await loseDisk(replica)
    await upstream.takeLedger([big.manifestPath, ...big.layerPaths])
    through.push(await curlRate(`http://127.0.0.1:${server.port}${path}`))
    asked.push((await upstream.takeLedger([big.manifestPath, ...big.layerPaths])).gets)
    say(
      `from-bucket, ${words} ${run}/${runs}: ${through.at(-1)?.toFixed(0)} MiB/s, straight ${straight.at(-1)?.toFixed(0)} MiB/s, ${asked.at(-1)} requests at upstream`,
    )
  }
  const against = ratios(through, straight)
  const name = `empty disk, image in the bucket, ${words}`
  return [
    { what: `${name}: GETs at upstream`, value: Math.max(...asked), unit: '', limit: { exactly: 0 }, samples: asked },
    {
      what: `${name}: throughput, against curl straight from the bucket`,
      value: median(against),
      unit: '×',
      limit: { atLeast: 0.7 },
      samples: against,
    },
    { what: `${name}: throughput`, value: median(through), unit: 'MiB/s', samples: through },
    { what: `${name}: curl straight from the bucket`, value: median(straight), unit: 'MiB/s', samples: straight },
  ]
}

/** MiB a second, as curl counts them. */
async function curlRate(url: string): Promise<number> {
  return Number(await runOk('curl', ['-sS', '--fail', '-o', '/dev/null', '-w', '%{speed_download}', url])) / MiB
}
