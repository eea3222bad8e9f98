import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { request } from 'undici'
import { freePort } from '../../test/fakes/ports.ts'
import { scratch } from '../../test/real/harness/process.ts'
import { seedIndex } from '../../test/store/seed.ts'
import type { Bar } from '../bar.ts'
import { median } from '../figures.ts'

const blobs = 1_000_000
const what = (index: string): string => `layover: start to ready with ${index}`
const main = resolve(import.meta.dirname, '../../src/main.ts')

/** From the start of the process to ready, with an index of a million blobs. */
export const start: Bar = {
  name: 'start',
  async measure({ runs, say }) {
    const directory = await scratch('start')
    try {
      const dataDir = join(directory.path, 'data')
      seedIndex(dataDir, blobs)
      say(`start: an index of ${blobs} blobs is there`)
      const full: number[] = []
      const empty: number[] = []
      for (let run = 1; run <= runs; run += 1) {
        full.push(await secondsToReady(directory.path, dataDir))
        empty.push(await secondsToReady(directory.path, join(directory.path, `empty-${run}`)))
        say(`start ${run}/${runs}: ${full.at(-1)?.toFixed(3)} s, with an empty index ${empty.at(-1)?.toFixed(3)} s`)
      }
      return [
        { what: what('1,000,000 blobs'), value: median(full), unit: 's', limit: { atMost: 1 }, samples: full },
        { what: what('an empty index'), value: median(empty), unit: 's', samples: empty },
      ]
    } finally {
      await directory.remove()
    }
  },
}

async function secondsToReady(directory: string, dataDir: string): Promise<number> {
  const admin = `127.0.0.1:${await freePort()}`
  const config = join(directory, 'layover.yaml')
  await writeFile(config, JSON.stringify({ listen: '127.0.0.1:0', admin, dataDir }))
  const begun = performance.now()
  const child = spawn(process.execPath, [main, 'serve', '--config', config], { stdio: 'ignore' })
  const gone = once(child, 'close')
  try {
    while (!(await isReady(admin))) {
      if (child.exitCode !== null) throw new Error(`layover ended with ${child.exitCode}`)
      await delay(5)
    }
    return (performance.now() - begun) / 1000
  } finally {
    child.kill('SIGKILL')
    await gone
  }
}

async function isReady(admin: string): Promise<boolean> {
  const answer = await request(`http://${admin}/readyz`).catch(() => undefined)
  await answer?.body.dump()
  return answer?.statusCode === 200
}
