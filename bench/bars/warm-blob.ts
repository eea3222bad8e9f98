import { type Bar, type Bench, pull, type Verdict } from '../bar.ts'
import { cpuSeconds, GiB, median, ratios } from '../figures.ts'
import { type Server, startCacheRegistry, startLayover, startStaticNginx } from '../servers.ts'

const crowd = 8

/** What a gibibyte from the cache costs the server in CPU time. */
export const warmBlob: Bar = {
  name: 'warm-blob',
  async measure(bench) {
    const { tree, upstream, runs, say } = bench
    const starts = [
      () => startLayover(upstream.host),
      () => startStaticNginx(tree, 'off'),
      () => startStaticNginx(tree, 'on'),
      () => startCacheRegistry(upstream.host),
    ]
    const servers: Server[] = []
    try {
      for (const start of starts) servers.push(await start())
      const costs = new Map<Server, number[]>(servers.map(server => [server, []]))
      for (const server of servers) await serve(bench, server, 1)
      for (let run = 1; run <= runs; run += 1)
        for (const server of servers) {
          const { cost, rate } = await serve(bench, server, crowd)
          costs.get(server)?.push(cost)
          say(`warm-blob ${run}/${runs} ${server.name}: ${cost.toFixed(3)} s/GiB, ${rate.toFixed(2)} GiB/s`)
        }
      return verdicts(servers.map(server => ({ name: server.name, costs: costs.get(server) ?? [] })))
    } finally {
      await Promise.all(servers.map(server => server.close()))
    }
  },
}

async function serve(
  { tree: { image } }: Bench,
  server: Server,
  clients: number,
): Promise<{ cost: number; rate: number }> {
  const before = await cpuSeconds(server.pid)
  const { bytes, ms } = await pull(server, {
    before: [image.manifestPath],
    // One after the other: a few nodes, each at its own pace.
    paths: image.layerPaths,
    clients,
    connections: 1,
  })
  const used = (await cpuSeconds(server.pid)) - before
  return { cost: used / (bytes / GiB), rate: bytes / GiB / (ms / 1000) }
}

type Cost = { readonly name: string; readonly costs: readonly number[] }

function verdicts(all: readonly Cost[]): readonly Verdict[] {
  const [layover, bufferedNginx, , registry] = all
  if (layover === undefined || bufferedNginx === undefined || registry === undefined)
    throw new Error('a server is missing')
  const against = (peer: Cost, atMost: number): Verdict => {
    const samples = ratios(layover.costs, peer.costs)
    return {
      what: `layover: CPU per GiB of warm blobs, against ${peer.name}`,
      value: median(samples),
      unit: '×',
      limit: { atMost },
      samples,
    }
  }
  return [
    against(bufferedNginx, 1.5),
    against(registry, 1),
    ...all.map(({ name, costs }) => ({
      what: `${name}: CPU per GiB of warm blobs`,
      value: median(costs),
      unit: 's',
      samples: costs,
    })),
  ]
}
