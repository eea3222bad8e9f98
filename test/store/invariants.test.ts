import fc from 'fast-check'
import { readdirSync, rmSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { silentObserver } from '../../src/log/observer.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { openEmbeddedStores, type EmbeddedStores } from '../../src/store/embedded.ts'
import type { OpenBlob, SpoolFile } from '../../src/store/stores.ts'
import { blobFiles, content, readAll, rowsOf, TickingClock } from './opened.ts'

const maxBytes = 1_000_000
const recordLimits = { links: 5, tags: 5 }
const sizes = [0, 1, 70_000, 150_000, 300_000, 450_000, 999_999, 1_000_001]
const contents = sizes.map((size, n) => content(`blob ${n}`, size))
const digests = contents.map(bytes => digestOf(bytes))
const manifests = [10, 2000, 60_000].map((size, n) => {
  const bytes = content(`manifest ${n}`, size)
  return { digest: digestOf(bytes), mediaType: 'a/b', bytes }
})

/** One download writes one thing after the other. */
type Running = { readonly file: SpoolFile; readonly blob: number; written: number; writing: Promise<void> }

/** The store under test and what a client of it holds in its hands. */
class World {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'layover-world-'))
  readonly running: Running[] = []
  readonly readers: { readonly blob: number; readonly open: OpenBlob }[] = []
  readonly #clock = new TickingClock()
  stores: EmbeddedStores | undefined

  async get(): Promise<EmbeddedStores> {
    this.stores ??= await openEmbeddedStores({
      dataDir: this.dataDir,
      maxBytes,
      clock: this.#clock,
      observer: silentObserver,
      recordLimits,
    })
    return this.stores
  }

  async letGo(): Promise<void> {
    await Promise.all(this.running.splice(0).map(({ file }) => file.close()))
    await Promise.all(this.readers.splice(0).map(({ open }) => open.close()))
  }

  async end(): Promise<void> {
    await this.letGo()
    await this.stores?.close()
    rmSync(this.dataDir, { recursive: true, force: true })
  }
}

type Step = (world: World, stores: EmbeddedStores) => Promise<void>

const reserve =
  (blob: number, known: boolean): Step =>
  async (world, { spool }) => {
    const file = await spool.create(known ? sizes[blob] : undefined)
    if (file !== undefined) world.running.push({ file, blob, written: 0, writing: Promise.resolve() })
  }

const write =
  (which: number, bytes: number): Step =>
  async world => {
    const running = world.running[which % Math.max(1, world.running.length)]
    if (running === undefined) return
    running.writing = running.writing.then(() => writeNext(running, bytes))
    await running.writing
  }

async function writeNext(running: Running, bytes: number): Promise<void> {
  const at = running.written
  const chunk = contents[running.blob]?.subarray(at, at + bytes) ?? Buffer.alloc(0)
  try {
    await running.file.write([chunk.subarray(0, 7), chunk.subarray(7)], at)
    running.written += chunk.byteLength
  } catch (error) {
    expect(error).toMatchObject({ code: 'STORAGE_FULL' })
  }
}

/** Writes the rest and publishes it; too early, too late or twice makes no difference to anyone. */
const finish =
  (which: number): Step =>
  async (world, { blobs }) => {
    const [running] = world.running.splice(which % Math.max(1, world.running.length), 1)
    const bytes = running && contents[running.blob]
    const digest = running && digests[running.blob]
    if (running === undefined || bytes === undefined || digest === undefined) return
    try {
      await running.writing
      await running.file.write([bytes.subarray(running.written)], running.written)
      await blobs.publish(digest, bytes.byteLength, running.file)
      expect((await readAll(running.file, 200_000)).equals(bytes)).toBe(true)
    } catch (error) {
      expect(error).toMatchObject({ code: 'STORAGE_FULL' })
    } finally {
      await running.file.close()
    }
  }

const discard =
  (which: number): Step =>
  async world => {
    const [running] = world.running.splice(which % Math.max(1, world.running.length), 1)
    await running?.writing
    await running?.file.discard()
    await running?.file.close()
  }

const openBlob =
  (blob: number): Step =>
  async (world, { blobs }) => {
    const open = await blobs.open(digests[blob] ?? digestOf(Buffer.alloc(0)))
    if (open !== undefined) world.readers.push({ blob, open })
  }

const closeBlob =
  (which: number): Step =>
  async world => {
    const [reader] = world.readers.splice(which % Math.max(1, world.readers.length), 1)
    if (reader === undefined) return
    const bytes = await readAll(reader.open, 200_000)
    await reader.open.close()
    expect(bytes.equals(contents[reader.blob] ?? Buffer.alloc(1))).toBe(true)
  }

const remove =
  (blob: number): Step =>
  async (_, { blobs }) =>
    blobs.delete(digests[blob] ?? digestOf(Buffer.alloc(0)))

const manifest =
  (which: number, kept: boolean): Step =>
  async (_, { metadata }) => {
    const record = manifests[which]
    if (record === undefined) return
    if (kept) await metadata.putManifest(record)
    else await metadata.deleteManifest(record.digest)
    const found = await metadata.getManifest(record.digest)
    expect(found === undefined || Buffer.from(found.bytes).equals(record.bytes)).toBe(true)
  }

const known = [...digests, ...manifests.map(({ digest }) => digest)]

const link =
  (which: number, repository: number, kind: 'named' | 'confirmed' | 'gone'): Step =>
  async (_, { metadata }) => {
    const digest = known[which] ?? digestOf(Buffer.from(`absent ${which}`))
    if (kind === 'gone') await metadata.deleteLink('docker.io', `r${repository}`, digest)
    else await metadata.putLinks('docker.io', `r${repository}`, [digest], kind)
  }

const tag =
  (which: number, kept: boolean): Step =>
  async (_, { metadata }) => {
    const key = { upstream: 'docker.io', repository: 'r', tag: `t${which}` }
    const record = { digest: digestOf(Buffer.of(which)), mediaType: 'a/b', size: 1, checkedAt: which }
    if (kept) await metadata.putTag(key, record)
    else await metadata.deleteTag(key)
  }

const reopen: Step = async world => {
  await world.letGo()
  await world.stores?.close()
  world.stores = undefined
}

const any = fc.nat({ max: 7 })
const named = (name: string, run: Step): readonly [string, Step] => [name, run]
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(any, fc.boolean()).map(([n, known]) => named(`reserve ${n} ${known}`, reserve(n, known))),
  },
  {
    weight: 3,
    arbitrary: fc.tuple(any, fc.nat(200_000)).map(([n, size]) => named(`write ${n} ${size}`, write(n, size))),
  },
  { weight: 7, arbitrary: any.map(n => named(`finish ${n}`, finish(n))) },
  { weight: 1, arbitrary: any.map(n => named(`discard ${n}`, discard(n))) },
  { weight: 3, arbitrary: any.map(n => named(`open ${n}`, openBlob(n))) },
  { weight: 3, arbitrary: any.map(n => named(`close ${n}`, closeBlob(n))) },
  { weight: 2, arbitrary: any.map(n => named(`delete ${n}`, remove(n))) },
  {
    weight: 2,
    arbitrary: fc.tuple(fc.nat(2), fc.boolean()).map(([n, put]) => named(`manifest ${n} ${put}`, manifest(n, put))),
  },
  {
    weight: 4,
    arbitrary: fc
      .tuple(fc.nat(20), fc.nat(4), fc.constantFrom('named', 'confirmed', 'gone'))
      .map(([n, repository, kind]) => named(`link ${n} r${repository} ${kind}`, link(n, repository, kind))),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(fc.nat(12), fc.boolean()).map(([n, put]) => named(`tag ${n} ${put}`, tag(n, put))),
  },
)

type Moment = { readonly names: readonly string[]; readonly steps: readonly Step[] }

/** What happens at the same time; a restart happens alone. */
const moment: fc.Arbitrary<Moment> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc
      .array(step, { minLength: 1, maxLength: 4 })
      .map(steps => ({ names: steps.map(([name]) => name), steps: steps.map(([, run]) => run) })),
  },
  { weight: 1, arbitrary: fc.constant({ names: ['reopen'], steps: [reopen] }) },
)

it('F-33, F-51: whatever happens in whatever order, what is visible is whole and the books are right', async () => {
  let published = 0
  await fc.assert(
    fc.asyncProperty(fc.array(moment.map(told), { minLength: 10, maxLength: 25 }), async moments => {
      const world = new World()
      try {
        for (const { steps } of moments) {
          const stores = await world.get()
          await Promise.all(steps.map(run => run(world, stores)))
          published += await check(world)
        }
      } finally {
        await world.end()
      }
    }),
    { numRuns: 60 },
  )
  // The check has seen something.
  expect(published).toBeGreaterThan(50)
})

function told(value: Moment): Moment & { toString(): string } {
  return { ...value, toString: () => value.names.join(' | ') }
}

/** Gives how many blobs it looked at. */
async function check(world: World): Promise<number> {
  const stores = await world.get()
  await stores.settled()
  const usage = stores.usage()
  const files = blobFiles(world.dataDir)
  const rows = rowsOf(world.dataDir, 'SELECT digest, size, state FROM blobs ORDER BY digest')
  expect(files.filter(file => !file.whole)).toEqual([])
  expect(rows).toEqual(files.map(({ digest, size }) => ({ digest, size, state: 'present' })))
  expect(usage.blobs).toBe(files.length)
  expect(usage.blobBytes).toBe(files.reduce((sum, file) => sum + file.size, 0))
  const [sums] = rowsOf(world.dataDir, 'SELECT count(*) AS n, coalesce(sum(length(bytes)), 0) AS bytes FROM manifests')
  expect({ n: usage.manifests, bytes: usage.manifestBytes }).toEqual(sums)
  // What was removed while someone reads it is still on the disk.
  const removed = world.readers.filter(({ blob }) => !files.some(file => file.digest === digests[blob]))
  const lingering = [...new Set(removed.map(({ blob }) => blob))].reduce((sum, blob) => sum + (sizes[blob] ?? 0), 0)
  expect(usage.blobBytes + usage.manifestBytes + usage.reservedBytes).toBeLessThanOrEqual(maxBytes - lingering)
  const [counted] = rowsOf(world.dataDir, 'SELECT links, tags FROM counters')
  const [records] = rowsOf(
    world.dataDir,
    'SELECT (SELECT count(*) FROM links) AS links, (SELECT count(*) FROM tags) AS tags',
  )
  expect(counted).toEqual(records)
  expect(Number(counted?.links)).toBeLessThanOrEqual(recordLimits.links)
  expect(Number(counted?.tags)).toBeLessThanOrEqual(recordLimits.tags)
  expect(readdirSync(join(world.dataDir, 'spool'))).toHaveLength(world.running.length)
  expect(usage.reservedBytes > 0 && world.running.length === 0).toBe(false)
  return files.length
}
