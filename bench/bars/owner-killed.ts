import { Agent } from 'undici'
import { type Digest, finish, hasher } from '../../src/oci/digest.ts'
import type { LayoverProcess } from '../../test/real/harness/layover.ts'
import { openLink } from '../../test/real/harness/link.ts'
import { until } from '../../test/real/harness/process.ts'
import { pull, type Bar, type Bench } from '../bar.ts'
import { MiB } from '../figures.ts'
import { digestOfPath, portOf, startReplicas } from '../replicas.ts'

const linkRate = 16 * MiB
const clientsEach = 4

type Sample = {
  readonly wrong: number
  readonly clients: number
  readonly share: number
  readonly stallSeconds: number
}

/** `kill -9` of the replica that downloads, half-way: the clients of the others notice a pause at most. */
export const ownerKilled: Bar = {
  name: 'owner-killed',
  async measure(bench) {
    const samples: Sample[] = []
    for (let run = 1; run <= bench.runs; run += 1) {
      const sample = await measureOnce(bench)
      samples.push(sample)
      bench.say(
        `owner-killed ${run}/${bench.runs}: ${sample.wrong} of ${sample.clients} wrong, ${sample.share.toFixed(3)} × blob, longest pause ${sample.stallSeconds.toFixed(2)} s`,
      )
    }
    // The worst run counts: this is a promise, not an average.
    const worst = (what: string, unit: string, pick: (sample: Sample) => number) => {
      const all = samples.map(pick)
      return { what: `owner killed half-way: ${what}`, unit, value: Math.max(...all), samples: all }
    }
    return [
      { ...worst('clients of the others without the right bytes', '', ({ wrong }) => wrong), limit: { exactly: 0 } },
      { ...worst('bytes from upstream', '× blob', ({ share }) => share), limit: { atMost: 1.5 } },
      { ...worst('longest pause of a client', 's', ({ stallSeconds }) => stallSeconds), limit: { atMost: 5 } },
    ]
  },
}

async function measureOnce({ tree: { image }, upstream }: Bench): Promise<Sample> {
  await using undo = new AsyncDisposableStack()
  const link = await openLink({ to: upstream.host, bytesPerSecond: linkRate })
  undo.defer(() => link.close())
  const running = await startReplicas({ count: 3, upstream: link.host })
  undo.defer(() => running.close())
  const { replicas } = running
  const agent = new Agent({ connections: 64 })
  undo.defer(() => agent.destroy())

  for (const replica of replicas)
    await pull(
      { name: 'replica', port: portOf(replica) },
      { before: [image.manifestPath], paths: [], clients: 1, connections: 1 },
    )
  const path = image.layerPaths[0] ?? ''
  const digest = digestOfPath(path)
  const size = image.layerBytes / image.layerPaths.length
  const before = link.bytes()
  const downloads = replicas.flatMap(replica =>
    Array.from({ length: clientsEach }, () => download(replica, { path, agent })),
  )
  await until(() => downloads.every(({ received }) => received > size / 2))
  const owner = await running.ownerOf(digest)
  if (owner === undefined) throw new Error('nobody holds the lease')
  await owner.kill()
  await Promise.all(downloads.map(({ done }) => done))
  const others = downloads.filter(({ replica }) => replica !== owner)
  return {
    clients: others.length,
    wrong: others.filter(other => other.digest !== digest).length,
    share: (link.bytes() - before) / size,
    stallSeconds: Math.max(...others.map(({ longestPauseMs }) => longestPauseMs)) / 1000,
  }
}

/** One client that looks at what it gets. */
type Download = {
  readonly replica: LayoverProcess
  received: number
  /** The longest time without a byte since the first one. */
  longestPauseMs: number
  /** Undefined: it did not come whole. */
  digest: Digest | undefined
  done: Promise<void>
}

function download(replica: LayoverProcess, { path, agent }: { path: string; agent: Agent }): Download {
  const own: Download = { replica, received: 0, longestPauseMs: 0, digest: undefined, done: Promise.resolve() }
  const run = async (): Promise<void> => {
    const { statusCode, body } = await agent.request({ origin: replica.url, path, method: 'GET' })
    const hash = hasher('sha256')
    let last = performance.now()
    for await (const chunk of body as AsyncIterable<Buffer>) {
      hash.update(chunk)
      own.received += chunk.length
      own.longestPauseMs = Math.max(own.longestPauseMs, performance.now() - last)
      last = performance.now()
    }
    if (statusCode === 200) own.digest = finish('sha256', hash)
  }
  // A client without a digest is a client that did not get its bytes.
  own.done = run().catch(() => undefined)
  return own
}
