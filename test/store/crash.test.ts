import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { digestOf, parseDigest } from '../../src/oci/digest.ts'
import { blobFiles, opened, openDescriptors, readBlob, rowsOf, temporaryDirectory } from './opened.ts'

const loop = join(import.meta.dirname, 'publish-loop.ts')

/** Runs the loop and kills it without warning `afterMs` after its first word. Gives what it said. */
async function killedLoop(
  dataDir: string,
  seed: number,
  maxBytes: number,
  afterMs: number,
): Promise<readonly string[]> {
  const child = spawn(process.execPath, [loop, dataDir, String(seed), String(maxBytes)], {
    env: {},
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  await once(child.stdout, 'data')
  await delay(afterMs)
  const closed = once(child, 'close')
  child.kill('SIGKILL')
  expect(await closed).toEqual([null, 'SIGKILL'])
  // The last line may have been cut by the kill.
  return said.slice(0, said.lastIndexOf('\n')).split('\n')
}

/** The moment differs from round to round and is the same in every run: 3 to 90 ms. */
const momentOf = (round: number): number => 3 + ((round * 37) % 88)

const digestsIn = (lines: readonly string[], word: string) =>
  lines.filter(line => line.startsWith(`${word} `)).map(line => parseDigest(line.slice(word.length + 1)))

it('F-33: kill -9 at any moment loses nothing that was published and shows nothing that was not', async () => {
  const dataDir = temporaryDirectory()
  const before = openDescriptors()
  const published = new Set<string>()
  for (let round = 1; round <= 8; round++) {
    const lines = await killedLoop(dataDir, round, 4e9, momentOf(round))
    const stores = await opened({ dataDir, maxBytes: 4e9 })
    const files = blobFiles(dataDir)
    expect(files.filter(file => !file.whole)).toEqual([])
    expect(rowsOf(dataDir, 'SELECT digest, size, state FROM blobs ORDER BY digest')).toEqual(
      files.map(({ digest, size }) => ({ digest, size, state: 'present' })),
    )
    expect(stores.usage()).toMatchObject({
      blobs: files.length,
      blobBytes: files.reduce((sum, file) => sum + file.size, 0),
      reservedBytes: 0,
    })
    expect(readdirSync(join(dataDir, 'spool'))).toEqual([])
    for (const digest of digestsIn(lines, 'published')) published.add(digest)
    for (const digest of published) {
      const bytes = await readBlob(stores.blobs, parseDigest(digest))
      expect(bytes && digestOf(bytes)).toBe(digest)
    }
    for (const digest of digestsIn(lines, 'deleted')) expect(await stores.blobs.open(digest)).toBeUndefined()
    await stores.close()
  }
  expect(published.size).toBeGreaterThan(8)
  expect(openDescriptors()).toBe(before)
})

it('F-33: kill -9 while evicting leaves no file that nobody counts', async () => {
  const dataDir = temporaryDirectory()
  for (let round = 1; round <= 4; round++) {
    await killedLoop(dataDir, round, 600_000, momentOf(round))
    const stores = await opened({ dataDir, maxBytes: 600_000 })
    const files = blobFiles(dataDir)
    expect(files.filter(file => !file.whole)).toEqual([])
    expect(stores.usage().blobs).toBe(files.length)
    expect(stores.usage().blobBytes).toBe(files.reduce((sum, file) => sum + file.size, 0))
    expect(stores.usage().blobBytes).toBeLessThanOrEqual(600_000)
    await stores.close()
  }
})
