import { setTimeout as delay } from 'node:timers/promises'
import { openLink } from '../../test/real/harness/link.ts'
import { until } from '../../test/real/harness/process.ts'
import { type Bar, type Bench, pull, stall, withServer } from '../bar.ts'
import { cpuSeconds, median, ratios, MiB, peakResidentBytes } from '../figures.ts'
import { type Server, startLayover } from '../servers.ts'

const slowRate = 8 * MiB
const trickle = MiB / 4
// Fast enough that ten readers of it are real work.
const linkRate = 64 * MiB
const fast = 10
const stalled = 990

/** A thousand readers of one download, 990 of whom stop to read: memory stays bounded, and the others do not notice. */
export const stalledReaders: Bar = {
  name: 'stalled',
  ownNetwork: true,
  async measure(bench) {
    const alone: number[] = []
    const among: number[] = []
    const resident: number[] = []
    for (let run = 1; run <= bench.runs; run += 1) {
      alone.push((await measureFast(bench, 1)).ms)
      const crowded = await measureFast(bench, stalled)
      among.push(crowded.ms)
      resident.push(crowded.residentBytes / MiB)
      bench.say(
        `stalled ${run}/${bench.runs}: ten alone ${alone.at(-1)?.toFixed(0)} ms, among 990 stalled ${crowded.ms.toFixed(0)} ms, ${resident.at(-1)?.toFixed(0)} MiB resident`,
      )
    }
    const slowed = ratios(among, alone)
    return [
      {
        what: 'layover: ten readers among 990 stalled ones, against ten alone',
        value: median(slowed),
        unit: '×',
        limit: { atMost: 1.1 },
        samples: slowed,
      },
      {
        what: 'layover: most memory resident with 1,000 readers',
        value: Math.max(...resident),
        unit: 'MiB',
        limit: { atMost: 300 },
        samples: resident,
      },
    ]
  },
}

/**
 * The crowd comes first, over a slow link, and stops to read. Only when the system's buffers are full too, and the server rests, do the ten
 * come and the link opens: what is measured is ten readers beside 990 that stand still, not a thousand that arrive.
 */
async function measureFast(
  { tree: { big }, upstream }: Bench,
  stalledClients: number,
): Promise<{ ms: number; residentBytes: number }> {
  let rate = slowRate
  const link = await openLink({ to: upstream.host, bytesPerSecond: () => rate })
  const plan = { before: [big.manifestPath], paths: big.layerPaths, connections: 1 }
  try {
    return await withServer(startLayover(link.host), async server => {
      const crowd = await stall(server, { ...plan, clients: stalledClients, stallAfterBytes: 1 })
      try {
        await crowd.report
        rate = trickle
        await untilQuiet(server)
        rate = linkRate
        const { ms } = await pull(server, { ...plan, clients: fast })
        return { ms, residentBytes: await peakResidentBytes(server.pid) }
      } finally {
        crowd.end()
      }
    })
  } finally {
    await link.close()
  }
}

/** Until a server uses less than a tenth of a core. */
async function untilQuiet({ pid }: Server): Promise<void> {
  let before = await cpuSeconds(pid)
  await until(async () => {
    await delay(500)
    const now = await cpuSeconds(pid)
    const used = now - before
    before = now
    return used < 0.05
  }, 30_000)
}
