import { type Bar, pull, withServer } from '../bar.ts'
import { median } from '../figures.ts'
import { startCacheNginx, startCacheRegistry, startLayover } from '../servers.ts'

const peers = [
  { name: 'layover', start: startLayover, limit: { atMost: 5 } },
  { name: 'nginx proxy_cache', start: startCacheNginx },
  { name: 'docker-registry proxy', start: startCacheRegistry },
]

/** How much later than straight from upstream the first byte of a cold blob comes. */
export const firstByte: Bar = {
  name: 'first-byte',
  async measure({ tree: { many }, upstream, runs, say }) {
    const plan = { before: [many.manifestPath], paths: many.layerPaths, clients: 1, connections: 1 }
    const later = new Map<string, number[]>(peers.map(({ name }) => [name, []]))
    for (let run = 1; run <= runs; run += 1)
      for (const { name, start } of peers) {
        const straight = median((await pull(upstream, plan)).firstByteMs)
        const through = median((await withServer(start(upstream.host), server => pull(server, plan))).firstByteMs)
        later.get(name)?.push(through - straight)
        say(`first-byte ${run}/${runs} ${name}: ${through.toFixed(2)} ms, straight ${straight.toFixed(2)} ms`)
      }
    return peers.map(({ name, limit }) => {
      const samples = later.get(name) ?? []
      return {
        what: `${name}: first byte of a cold blob, later than straight from upstream`,
        value: median(samples),
        unit: 'ms',
        limit,
        samples,
      }
    })
  },
}
