import { setTimeout as delay } from 'node:timers/promises'
import { request } from 'undici'
import { startFakeRegistry } from '../../test/fakes/registry.ts'
import type { LayoverFleet } from '../../test/real/harness/fleet.ts'
import type { LayoverProcess } from '../../test/real/harness/layover.ts'
import { pull, type Bar, type Bench } from '../bar.ts'
import { portOf, startReplicas } from '../replicas.ts'

const reads = 1_000
const boundMs = 1_000
const repository = 'team/app'

/** A warm manifest by its tag costs Redis nothing, and a tag that another replica saw change is seen here within its `tagTtl`. */
export const sharedTag: Bar = {
  name: 'shared-tag',
  async measure(bench) {
    const commands: number[] = []
    const later: number[] = []
    for (let run = 1; run <= bench.runs; run += 1) {
      const { count, names } = await commandsOfWarmReads(bench)
      commands.push(count)
      later.push(await msUntilOthersSee())
      bench.say(
        `shared-tag ${run}/${bench.runs}: ${count} commands for ${reads} reads ${names.join(' ')}, a change is seen after ${later.at(-1)?.toFixed(0)} ms`,
      )
    }
    return [
      {
        what: `${reads} warm manifests by tag: commands at Redis`,
        value: Math.max(...commands),
        unit: '',
        limit: { exactly: 0 },
        samples: commands,
      },
      {
        what: 'tagTtl of 1 s: a change is seen by the last replica later than by the first',
        value: Math.max(...later),
        unit: 'ms',
        limit: { atMost: boundMs },
        samples: later,
      },
    ]
  },
}

async function commandsOfWarmReads({
  tree: { image },
  upstream,
}: Bench): Promise<{ readonly count: number; readonly names: readonly string[] }> {
  const fleet = await startReplicas({ count: 2, upstream: upstream.host })
  try {
    const [replica] = fleet.replicas
    if (replica === undefined) throw new Error('no replica')
    const server = { name: 'replica', port: portOf(replica) }
    const read = (times: number) =>
      pull(server, {
        before: [],
        paths: Array.from({ length: times }, () => image.manifestPath),
        clients: 1,
        connections: 1,
      })
    await read(10)
    // What the first reads leave behind: links, the record, last use.
    await delay(1_500)
    await fleet.redis.admin.call('CONFIG', 'RESETSTAT')
    await read(reads)
    return await commandsOf(fleet)
  } finally {
    await fleet.close()
  }
}

async function commandsOf({ redis }: LayoverFleet): Promise<{ count: number; names: readonly string[] }> {
  const own = new Set(['config|resetstat', 'info'])
  const found = [...(await redis.admin.info('commandstats')).matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)]
    .map(([, name = '', calls]) => ({ name, calls: Number(calls) }))
    .filter(({ name }) => !own.has(name))
  return {
    count: found.reduce((sum, { calls }) => sum + calls, 0),
    names: found.map(({ name, calls }) => `${name}=${calls}`),
  }
}

async function msUntilOthersSee(): Promise<number> {
  await using undo = new AsyncDisposableStack()
  const registry = await startFakeRegistry()
  undo.defer(() => registry.stop())
  registry.image(repository, 'latest', { seed: 1 })
  const { host } = new URL(registry.url)
  const fleet = await startReplicas({ count: 3, upstream: host, upstreamSettings: { tagTtl: `${boundMs}ms` } })
  undo.defer(() => fleet.close())
  await Promise.all(fleet.replicas.map(replica => digestAt(replica)))
  const { digest } = registry.image(repository, 'latest', { seed: 2 })
  const seen = await Promise.all(
    fleet.replicas.map(async replica => {
      while ((await digestAt(replica)) !== digest) await delay(10)
      return performance.now()
    }),
  )
  return Math.max(...seen) - Math.min(...seen)
}

async function digestAt({ url }: LayoverProcess): Promise<string> {
  const accept = 'application/vnd.oci.image.manifest.v1+json'
  const { statusCode, headers, body } = await request(`${url}/v2/${repository}/manifests/latest`, {
    headers: { accept },
  })
  await body.dump()
  if (statusCode !== 200) throw new Error(`the manifest is answered with ${statusCode}`)
  return String(headers['docker-content-digest'])
}
