import { runOk } from '../../test/real/harness/process.ts'
import { type Bar, type Verdict } from '../bar.ts'
import { median, ratios } from '../figures.ts'
import { type Server, startCacheRegistry, startLayover, startStaticNginx } from '../servers.ts'

const seconds = 4
const connections = 16

/** How many times a second a warm manifest is answered by its tag. */
export const manifest: Bar = {
  name: 'manifest',
  async measure({ tree, upstream, runs, say }) {
    const servers: Server[] = []
    try {
      servers.push(await startLayover(upstream.host))
      servers.push(await startStaticNginx(tree, 'on'))
      servers.push(await startCacheRegistry(upstream.host))
      for (const server of servers) await requestsPerSecond(`http://${server.host}${tree.image.manifestPath}`)
      const rates = new Map<Server, number[]>(servers.map(server => [server, []]))
      for (let run = 1; run <= runs; run += 1)
        for (const server of servers) {
          const rate = await requestsPerSecond(`http://${server.host}${tree.image.manifestPath}`)
          rates.get(server)?.push(rate)
          say(`manifest ${run}/${runs} ${server.name}: ${rate.toFixed(0)} requests/s`)
        }
      return verdicts(servers.map(server => ({ name: server.name, rates: rates.get(server) ?? [] })))
    } finally {
      await Promise.all(servers.map(server => server.close()))
    }
  },
}

async function requestsPerSecond(url: string): Promise<number> {
  const accept = 'Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json'
  const output = await runOk('wrk', ['-t1', `-c${connections}`, `-d${seconds}s`, '-H', accept, url])
  if (/Non-2xx|Socket errors/.test(output)) throw new Error(`${url}: ${output}`)
  return Number(/Requests\/sec: *([\d.]+)/.exec(output)?.[1])
}

type Rate = { readonly name: string; readonly rates: readonly number[] }

function verdicts(all: readonly Rate[]): readonly Verdict[] {
  const [layover, nginx, registry] = all
  if (layover === undefined || nginx === undefined || registry === undefined) throw new Error('a server is missing')
  const against = (peer: Rate, atLeast: number): Verdict => {
    const samples = ratios(layover.rates, peer.rates)
    return {
      what: `layover: warm manifests by tag, against ${peer.name}`,
      value: median(samples),
      unit: '×',
      limit: { atLeast },
      samples,
    }
  }
  return [
    against(registry, 50),
    against(nginx, 0.5),
    ...all.map(({ name, rates }) => ({
      what: `${name}: warm manifests by tag`,
      value: median(rates),
      unit: '/s',
      samples: rates,
    })),
  ]
}
