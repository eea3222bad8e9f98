import { setTimeout as pause } from 'node:timers/promises'
import { request } from 'undici'
import { type LayoverProcess, startLayoverProcess } from '../../test/real/harness/layover.ts'
import type { Bar } from '../bar.ts'
import { cpuSeconds, median } from '../figures.ts'

const viewers = 5
const seconds = 20
/** Pulls a second, so that there is something new to show at every tick. */
const perSecond = 5

/** What it costs that five people look at the live page: CPU with them less CPU without them, under the same requests. */
export const page: Bar = {
  name: 'page',
  async measure({ tree, upstream, runs, say }) {
    const upstreams = { 'upstream.test': { url: `http://${upstream.host}`, insecure: true, default: true } }
    const layover = await startLayoverProcess({ upstreams, settings: { log: { level: 'silent' } } })
    try {
      const shares: number[] = []
      for (let run = 1; run <= runs; run++) {
        const alone = await cpuShare(layover, tree.image.manifestPath)
        const watched = await whileWatched(layover, () => cpuShare(layover, tree.image.manifestPath))
        shares.push((watched - alone) * 100)
        say(`page ${run}/${runs}: ${((watched - alone) * 100).toFixed(2)} % of a core for ${viewers} viewers`)
      }
      const what = `layover: the live page, ${viewers} viewers`
      return [{ what, value: median(shares), unit: '% of a core', limit: { atMost: 1 }, samples: shares }]
    } finally {
      await layover.close()
    }
  },
}

async function whileWatched<Result>({ adminUrl }: LayoverProcess, work: () => Promise<Result>): Promise<Result> {
  const leaving = new AbortController()
  const watching = Array.from({ length: viewers }, async () => {
    const { body } = await request(`${adminUrl}/live`, { signal: leaving.signal })
    for await (const _ of body);
  })
  const ended = Promise.allSettled(watching)
  try {
    return await work()
  } finally {
    leaving.abort()
    await ended
  }
}

async function cpuShare({ url, pid }: LayoverProcess, path: string): Promise<number> {
  const before = await cpuSeconds(pid())
  const begin = performance.now()
  for (let asked = 0; asked < seconds * perSecond; asked++) {
    const { body } = await request(`${url}${path}`)
    await body.dump()
    await pause(Math.max(0, begin + ((asked + 1) * 1000) / perSecond - performance.now()))
  }
  const used = (await cpuSeconds(pid())) - before
  return used / ((performance.now() - begin) / 1000)
}
