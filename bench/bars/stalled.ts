import { openLink } from '../../test/real/harness/link.ts'
import { type Bar, type Bench, pull, stall, withServer } from '../bar.ts'
import { median, MiB, peakResidentBytes } from '../figures.ts'
import { startLayover } from '../servers.ts'

// Slow enough that the download still runs while the thousand come, fast enough that ten readers of it are real work.
const linkRate = 64 * MiB
const fast = 10
const stalled = 990

/** A thousand readers of one download, 990 of whom stop to read: memory stays bounded, and the others do not notice. */
export const stalledReaders: Bar = {
  name: 'stalled',
  async measure(bench) {
    const alone: number[] = []
    const among: number[] = []
    const resident: number[] = []
    for (let run = 1; run <= bench.runs; run += 1) {
      alone.push((await measureFast(bench, 0)).ms)
      const crowded = await measureFast(bench, stalled)
      among.push(crowded.ms)
      resident.push(crowded.residentBytes / MiB)
      bench.say(
        `stalled ${run}/${bench.runs}: ten alone ${alone.at(-1)?.toFixed(0)} ms, among 990 stalled ${crowded.ms.toFixed(0)} ms, ${resident.at(-1)?.toFixed(0)} MiB resident`,
      )
    }
    return [
      {
        what: 'layover: ten readers among 990 stalled ones, against ten alone',
        value: median(among) / median(alone),
        unit: '×',
        limit: { atMost: 1.1 },
        samples: among.map((ms, run) => ms / (alone[run] ?? Number.NaN)),
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

async function measureFast(
  { tree: { big }, upstream }: Bench,
  stalledClients: number,
): Promise<{ ms: number; residentBytes: number }> {
  const link = await openLink({ to: upstream.host, bytesPerSecond: linkRate })
  const plan = { before: [big.manifestPath], paths: big.layerPaths, connections: 1 }
  try {
    return await withServer(startLayover(link.host), async server => {
      const crowd =
        stalledClients === 0
          ? undefined
          : await stall(server, { ...plan, clients: stalledClients, stallAfterBytes: MiB })
      try {
        const { ms } = await pull(server, { ...plan, clients: fast })
        await crowd?.report
        return { ms, residentBytes: await peakResidentBytes(server.pid) }
      } finally {
        crowd?.end()
      }
    })
  } finally {
    await link.close()
  }
}
