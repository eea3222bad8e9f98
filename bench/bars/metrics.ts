import { Agent, request } from 'undici'
import { createMetrics, type RequestEvent } from '../../src/metrics/metrics.ts'
import { startLayoverProcess } from '../../test/real/harness/layover.ts'
import { runOk } from '../../test/real/harness/process.ts'
import type { Bar, Bench, Verdict } from '../bar.ts'
import { cpuSeconds, median } from '../figures.ts'
import { startLayover } from '../servers.ts'

const upstreams = 20
const names = 10_000
const scrapes = 15
const counted = 1_000_000
const seconds = 3

/** What counting costs of the CPU of a warm manifest, what a scrape takes with 20 upstreams, and what 10,000 repository names leave behind. */
export const metrics: Bar = {
  name: 'metrics',
  async measure(bench) {
    return [...(await measureScrape(bench)), ...(await measureCounting(bench))]
  },
}

/** Side by side: what one answer takes in the process, and what of that is counting it. */
async function measureCounting({ tree, upstream, runs, say }: Bench): Promise<readonly Verdict[]> {
  const layover = await startLayover(upstream.host)
  const shares: number[] = []
  const nanoseconds: number[] = []
  try {
    const url = `http://${layover.host}${tree.image.manifestPath}`
    await load(url, 1)
    for (let run = 1; run <= runs; run += 1) {
      const before = await cpuSeconds(layover.pid)
      const answers = await load(url, seconds)
      const perAnswer = ((await cpuSeconds(layover.pid)) - before) / answers
      const perCount = countingSeconds()
      // Of an answer without it.
      shares.push((100 * perCount) / (perAnswer - perCount))
      nanoseconds.push(perCount * 1e9)
      say(`metrics ${run}/${runs}: ${(perCount * 1e9).toFixed(0)} ns of ${(perAnswer * 1e6).toFixed(1)} µs`)
    }
  } finally {
    await layover.close()
  }
  const what = 'layover: counting a warm manifest'
  return [
    { what: `${what}, of its CPU`, value: median(shares), unit: '%', limit: { atMost: 3 }, samples: shares },
    { what, value: median(nanoseconds), unit: 'ns', samples: nanoseconds },
  ]
}

/** CPU seconds of one count, as the edge makes it: a new event each time. */
function countingSeconds(): number {
  const counting = createMetrics({ upstreams: ['registry.bench'], version: 'bench' })
  const begun = process.cpuUsage()
  for (let n = 0; n < counted; n += 1) counting.request(eventOf(n))
  const { user, system } = process.cpuUsage(begun)
  return (user + system) / 1e6 / counted
}

const eventOf = (n: number): RequestEvent => ({
  upstream: 'registry.bench',
  kind: 'manifest_tag',
  method: 'GET',
  status: 200,
  outcome: 'hit',
  source: 'memory',
  bytes: 1_234,
  firstByteSeconds: 0.0001 + (n % 100) / 1e6,
  seconds: 0.0002 + (n % 100) / 1e6,
  aborted: false,
  staleReason: undefined,
  tagAgeMs: n % 300_000,
})

async function load(url: string, duration: number): Promise<number> {
  const accept = 'Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json'
  const output = await runOk('wrk', ['-t1', '-c16', `-d${duration}s`, '-H', accept, url])
  if (/Non-2xx|Socket errors/.test(output)) throw new Error(`${url}: ${output}`)
  return Number(/(\d+) requests in/.exec(output)?.[1])
}

async function measureScrape({ upstream, say }: Bench): Promise<readonly Verdict[]> {
  const entries = Array.from(
    { length: upstreams - 1 },
    (_, n) => [`registry-${n}.bench`, remote(upstream.host)] as const,
  )
  const layover = await startLayoverProcess({
    upstreams: { 'docker.io': { default: true, ...remote(upstream.host) }, ...Object.fromEntries(entries) },
    // What is not cached is refused here: it is Layover's own series that are counted.
    settings: { log: { access: false }, offline: true, pricing: { default: 'aws-nat' } },
  })
  const agent = new Agent({ connections: 16 })
  try {
    const scrape = async () => {
      const begun = performance.now()
      const answer = await request(`${layover.adminUrl}/metrics`, { dispatcher: agent })
      const text = await answer.body.text()
      return { ms: performance.now() - begun, series: seriesIn(text) }
    }
    const ask = async (name: string): Promise<void> => {
      const n = Number.parseInt(name.slice(0, 4), 36) % upstreams
      const host = n === 0 ? 'docker.io' : `registry-${n - 1}.bench`
      const answer = await request(`${layover.url}/v2/${name}/manifests/latest?ns=${host}`, { dispatcher: agent })
      await answer.body.dump()
    }
    await askAll(ask, upstreams * 50, 'warm')
    const before = (await scrape()).series
    await askAll(ask, names, 'name')
    const taken: number[] = []
    for (let n = 0; n < scrapes; n += 1) taken.push((await scrape()).ms)
    const grown = (await scrape()).series - before
    say(`metrics: ${before} series with ${upstreams} upstreams, ${grown} more after ${names} names`)
    return [
      {
        what: `layover: /metrics with ${upstreams} upstreams`,
        value: median(taken),
        unit: 'ms',
        limit: { atMost: 10 },
        samples: taken,
      },
      {
        what: `layover: new series after ${names.toLocaleString('en')} random repository names`,
        value: grown,
        unit: '',
        limit: { exactly: 0 },
        samples: [grown],
      },
    ]
  } finally {
    await agent.close()
    await layover.close()
  }
}

const remote = (host: string) => ({ url: `http://${host}`, insecure: true })
const seriesIn = (text: string): number => text.split('\n').filter(line => line.startsWith('layover_')).length

/** Names like nobody else's, sixteen at a time. */
async function askAll(ask: (name: string) => Promise<void>, count: number, word: string): Promise<void> {
  let left = count
  const worker = async (): Promise<void> => {
    while (left-- > 0) await ask(`${Math.random().toString(36).slice(2, 12).padEnd(10, '0')}/${word}`)
  }
  await Promise.all(Array.from({ length: 16 }, worker))
}
