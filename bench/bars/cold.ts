import { openLink } from '../../test/real/harness/link.ts'
import { attemptPull, type Bar, type Bench, type Verdict, withServer } from '../bar.ts'
import { median, ratios, MiB } from '../figures.ts'
import { type Server, startCacheNginx, startCacheRegistry, startLayover, startProxyNginx } from '../servers.ts'

const linkRate = 16 * MiB
const crowd = 32

type Sample = {
  readonly ms: number
  readonly gets: number
  readonly imageShare: number
  readonly failures: number
}
type Case = {
  readonly what: string
  readonly clients: number
  readonly capped: boolean
  readonly start: (upstream: string) => Promise<Server>
}

const layoverCases: readonly Case[] = [true, false].flatMap(capped =>
  [1, 8, crowd].map(clients => ({ what: `layover, ${clients} clients`, clients, capped, start: startLayover })),
)
const reference: Case = { what: 'nginx proxy, 1 client', clients: 1, capped: true, start: startProxyNginx }
const peers: readonly Case[] = [
  { what: 'nginx proxy_cache, 32 clients', clients: crowd, capped: true, start: startCacheNginx },
  { what: 'nginx proxy_cache, 32 clients', clients: crowd, capped: false, start: startCacheNginx },
  // Not behind the capped link: it downloads again for every client, which would take minutes.
  { what: 'docker-registry proxy, 32 clients', clients: crowd, capped: false, start: startCacheRegistry },
]
const cases = [reference, ...layoverCases, ...peers]

/** 4 layers of 64 MiB, nothing cached, up to 32 clients at once: one download of each, and nobody waits for storage. */
export const cold: Bar = {
  name: 'cold',
  async measure(bench) {
    const samples = new Map<Case, Sample[]>(cases.map(which => [which, []]))
    for (let run = 1; run <= bench.runs; run += 1)
      for (const which of cases) {
        const sample = await measureCase(bench, which)
        samples.get(which)?.push(sample)
        bench.say(
          `cold ${run}/${bench.runs} ${describe(which)}: ${sample.ms.toFixed(0)} ms, ${sample.gets} GETs, ${sample.imageShare.toFixed(3)} × image, ${sample.failures} failures`,
        )
      }
    const of = (which: Case): readonly Sample[] => samples.get(which) ?? []
    const alone = of(reference).map(({ ms }) => ms)
    return cases.flatMap(which => verdicts(which, of(which), alone))
  },
}

const describe = ({ what, capped }: Case): string => `${what}, ${capped ? 'link of 16 MiB/s' : 'no cap'}`

async function measureCase({ tree, upstream }: Bench, which: Case): Promise<Sample> {
  const { image } = tree
  const link = await openLink({ to: upstream.host, ...(which.capped && { bytesPerSecond: linkRate }) })
  try {
    return await withServer(which.start(which.capped ? link.host : upstream.host), async server => {
      await upstream.takeLedger(image.layerPaths)
      const { ms, failures } = await attemptPull(server, {
        before: [image.manifestPath],
        paths: image.layerPaths,
        clients: which.clients,
        connections: image.layerPaths.length,
      })
      const { gets, bytes } = await upstream.takeLedger(image.layerPaths)
      return { ms, gets, imageShare: bytes / image.layerBytes, failures: failures.length }
    })
  } finally {
    await link.close()
  }
}

function verdicts(which: Case, samples: readonly Sample[], alone: readonly number[]): readonly Verdict[] {
  const isLayover = which.start === startLayover
  const times = samples.map(({ ms }) => ms)
  const against = ratios(times, alone)
  const gets = samples.map(sample => sample.gets)
  const shares = samples.map(({ imageShare }) => imageShare)
  const failures = samples.map(sample => sample.failures)
  const seconds: Verdict = {
    what: `${describe(which)}: last client done`,
    value: median(times) / 1000,
    unit: 's',
    samples: times.map(ms => ms / 1000),
  }
  const ratio: Verdict = {
    what: `${describe(which)}: last client, against one client of nginx proxy`,
    value: median(against),
    unit: '×',
    ...(isLayover && { limit: { atMost: 1.25 } }),
    samples: against,
  }
  return [
    seconds,
    ...(which.capped && which !== reference ? [ratio] : []),
    {
      what: `${describe(which)}: blob GETs at upstream`,
      // The worst run counts: one download is a promise, not an average.
      value: Math.max(...gets),
      unit: '',
      ...(isLayover && { limit: { exactly: 4 } }),
      samples: gets,
    },
    {
      what: `${describe(which)}: bytes from upstream`,
      value: Math.max(...shares),
      unit: '× image',
      ...(isLayover && { limit: { exactly: 1 } }),
      samples: shares,
    },
    {
      what: `${describe(which)}: requests that failed`,
      value: Math.max(...failures),
      unit: '',
      ...(isLayover && { limit: { exactly: 0 } }),
      samples: failures,
    },
  ]
}
