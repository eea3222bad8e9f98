import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DatabaseSync } from 'node:sqlite'
import { describe, expect, it } from 'vitest'
import { digestOf, type Digest } from '../../src/oci/digest.ts'
import { migrations } from '../../src/store/schema.ts'
import { content, opened, publish, recordingObserver, rowsOf, temporaryDirectory, TickingClock } from './opened.ts'

const upstream = 'docker.io'
const hour = 3_600_000

/** The digest of nothing that is stored. */
const absent = (n: number): Digest => digestOf(Buffer.from(`absent ${n}`))
const absents = (from: number, count: number): readonly Digest[] =>
  Array.from({ length: count }, (_, n) => absent(from + n))

const linkedIn = (dataDir: string, repository: string): readonly unknown[] =>
  rowsOf(dataDir, `SELECT digest FROM links WHERE repository = '${repository}' ORDER BY id`).map(row => row.digest)

const counted = (dataDir: string): Record<string, unknown> | undefined =>
  rowsOf(dataDir, 'SELECT links, tags FROM counters')[0]
const actual = (dataDir: string): Record<string, unknown> | undefined =>
  rowsOf(dataDir, 'SELECT (SELECT count(*) FROM links) AS links, (SELECT count(*) FROM tags) AS tags')[0]

class SettableClock extends TickingClock {
  #later = 0

  override now(): number {
    return super.now() + this.#later
  }

  later(ms: number): void {
    this.#later += ms
  }
}

describe('the links', () => {
  it('stay within their limit in a storm, and those of stored blobs and manifests outlive it', async () => {
    const stores = await opened({ recordLimits: { links: 1000, tags: 100 } })
    const blobs = await Promise.all(Array.from({ length: 40 }, (_, n) => publish(stores, content(n, 100))))
    const bytes = Buffer.from('{}')
    const manifest = { digest: digestOf(bytes), mediaType: 'a/b', bytes }
    await stores.metadata.putManifest(manifest)
    const kept = [...blobs, manifest.digest]
    await stores.metadata.putLinks(upstream, 'kept', kept, 'confirmed')
    await stores.metadata.putLinks(upstream, 'named', blobs, 'named')

    let most = 0
    for (let n = 0; n < 100_000; n += 20) {
      await stores.metadata.putLinks(upstream, `storm/${n % 700}`, absents(n, 20), n % 40 === 0 ? 'confirmed' : 'named')
      if (n % 200 === 0) await nextTurn()
      if (n % 5000 === 0) most = Math.max(most, Number(actual(stores.dataDir)?.links))
    }
    await stores.settled()
    // A quarter above, and the one call that got there.
    expect(most).toBeLessThanOrEqual(1270)
    expect(most).toBeGreaterThan(900)
    const links = Number(actual(stores.dataDir)?.links)
    expect(links).toBeLessThanOrEqual(1000)
    expect(links).toBeGreaterThanOrEqual(900)
    expect(counted(stores.dataDir)).toEqual(actual(stores.dataDir))
    expect(linkedIn(stores.dataDir, 'kept')).toEqual(kept)
    expect(linkedIn(stores.dataDir, 'named')).toEqual(blobs)
  })

  it('go oldest first when nothing of them is stored; what upstream confirms again is young again', async () => {
    const stores = await opened({ recordLimits: { links: 100, tags: 100 } })
    for (let n = 0; n < 100; n++) await stores.metadata.putLinks(upstream, 'r', [absent(n)], 'named')
    await stores.metadata.putLinks(upstream, 'r', [absent(0)], 'confirmed')
    await stores.metadata.putLinks(upstream, 'r', [absent(1)], 'named')
    await stores.metadata.putLinks(upstream, 'r', [absent(100)], 'named')
    await stores.settled()
    const left = linkedIn(stores.dataDir, 'r')
    expect(left.length).toBeLessThanOrEqual(95)
    expect(left).toEqual([...absents(101 - left.length, left.length - 1), absent(0), absent(100)].slice(1))
    expect(await stores.metadata.getLink(upstream, 'r', absent(1))).toBeUndefined()
    expect(await stores.metadata.getLink(upstream, 'r', absent(0))).toBe('confirmed')
  })

  it('of stored blobs go by the last use of the blob, not by their own age', async () => {
    const clock = new SettableClock()
    const stores = await opened({ recordLimits: { links: 100, tags: 100 }, clock })
    const used = await publish(stores, content('used', 100))
    const unused = await publish(stores, content('unused', 100))
    // The used one is linked first.
    for (let n = 0; n < 50; n++) await stores.metadata.putLinks(upstream, `used/${n}`, [used], 'confirmed')
    for (let n = 0; n < 50; n++) await stores.metadata.putLinks(upstream, `unused/${n}`, [unused], 'confirmed')
    clock.later(100 * hour)
    await (await stores.blobs.open(used))?.close()
    clock.later(hour)
    await stores.metadata.putLinks(upstream, 'one-more', [used], 'confirmed')
    await stores.settled()
    const left = rowsOf(stores.dataDir, 'SELECT digest, count(*) AS n FROM links GROUP BY digest ORDER BY n')
    expect(left).toEqual([
      { digest: unused, n: expect.toSatisfy((n: number) => n >= 40 && n <= 44) },
      { digest: used, n: 51 },
    ])
  })

  it('go in the end even when all of their blobs are in use: the limit holds', async () => {
    const stores = await opened({ recordLimits: { links: 100, tags: 100 } })
    const blob = await publish(stores, content('used', 100))
    for (let n = 0; n <= 100; n++) await stores.metadata.putLinks(upstream, `r/${n}`, [blob], 'confirmed')
    await stores.settled()
    expect(Number(actual(stores.dataDir)?.links)).toBeLessThanOrEqual(95)
    expect(await stores.metadata.getLink(upstream, 'r/0', blob)).toBeUndefined()
    expect(await stores.metadata.getLink(upstream, 'r/100', blob)).toBe('confirmed')
  })

  it('are brought within a limit that was made smaller at the next start, after lost blobs were found again', async () => {
    const first = await opened()
    const blob = await publish(first, content('found', 100))
    await first.metadata.putLinks(upstream, 'kept', [blob], 'confirmed')
    await first.metadata.putLinks(upstream, 'gone', absents(0, 500), 'confirmed')
    await first.close()
    // As after a power loss: the last transactions are missing, and the file is still there.
    const database = new DatabaseSync(join(first.dataDir, 'index.sqlite'))
    database.exec("DELETE FROM blobs; UPDATE runs SET ended = 0, boot = 'another'")
    database.close()

    const second = await opened({ dataDir: first.dataDir, recordLimits: { links: 100, tags: 100 } })
    await second.settled()
    expect(Number(actual(second.dataDir)?.links)).toBeLessThanOrEqual(95)
    expect(linkedIn(second.dataDir, 'kept')).toEqual([blob])
  })

  it('stop being removed when the stores are closed, and nothing is reported', async () => {
    const { observer, failures } = recordingObserver()
    const stores = await opened({ recordLimits: { links: 4000, tags: 100 }, observer })
    await stores.metadata.putLinks(upstream, 'r', absents(0, 4900), 'named')
    await nextTurn()
    await stores.close()
    // They would have gone down to 3,800.
    expect(Number(actual(stores.dataDir)?.links)).toBeGreaterThan(4500)
    expect(counted(stores.dataDir)).toEqual(actual(stores.dataDir))
    expect(failures).toEqual([])
  })
})

describe('the tags', () => {
  it('stay within their limit: those that upstream was not asked about for longest go', async () => {
    const stores = await opened({ recordLimits: { links: 100, tags: 50 } })
    const put = (tag: string, checkedAt: number): Promise<void> =>
      stores.metadata.putTag(
        { upstream, repository: 'r', tag },
        { digest: absent(1), mediaType: 'a/b', size: 1, checkedAt },
      )
    for (let n = 0; n < 50; n++) await put(`t${n}`, n)
    await put('t0', 1000)
    const seen: unknown[] = []
    for (let n = 50; n < 500; n++) {
      await put(`t${n}`, n)
      if (n % 50 === 0) seen.push(actual(stores.dataDir)?.tags)
    }
    expect(seen).toEqual(Array.from({ length: 9 }, () => 50))
    expect(await stores.metadata.knownTags(upstream, 'r')).toEqual(
      ['t0', ...Array.from({ length: 49 }, (_, n) => `t${451 + n}`)].sort(),
    )
    expect(counted(stores.dataDir)).toEqual(actual(stores.dataDir))
  })

  it('of an index that comes with far too many become fewer with each one that is put', async () => {
    const first = await opened()
    const put = (stores: typeof first, n: number): Promise<void> =>
      stores.metadata.putTag(
        { upstream, repository: 'r', tag: `t${n}` },
        { digest: absent(1), mediaType: 'a/b', size: 1, checkedAt: n },
      )
    for (let n = 0; n < 100; n++) await put(first, n)
    await first.close()
    const second = await opened({ dataDir: first.dataDir, recordLimits: { links: 100, tags: 50 } })
    expect(actual(second.dataDir)?.tags).toBe(100)
    await put(second, 100)
    expect(actual(second.dataDir)?.tags).toBe(97)
    for (let n = 101; n < 130; n++) await put(second, n)
    expect(actual(second.dataDir)?.tags).toBe(50)
  })
})

describe('an index of the first version', () => {
  it('keeps everything it holds, and counts its links and tags once', async () => {
    const dataDir = temporaryDirectory()
    mkdirSync(dataDir, { recursive: true })
    const database = new DatabaseSync(join(dataDir, 'index.sqlite'))
    const [digest, other] = [absent(1), absent(2)]
    database.exec(`
      PRAGMA journal_mode = WAL;
      ${migrations[0]};
      PRAGMA user_version = 1;
      INSERT INTO manifests VALUES (1, '${digestOf(Buffer.from('{}'))}', 2, 5, 'a/b', x'7b7d');
      INSERT INTO tags VALUES ('docker.io', 'r', 't', '${digest}', 'a/b', 1, 7);
      INSERT INTO links VALUES ('docker.io', 'r', '${digest}', 'confirmed'), ('docker.io', 'r', '${other}', 'named');
    `)
    database.close()
    const { observer, failures } = recordingObserver()
    const stores = await opened({ dataDir, observer })
    expect(failures).toEqual([])
    expect(stores.usage()).toMatchObject({ blobs: 0, manifests: 1, manifestBytes: 2 })
    expect(counted(dataDir)).toEqual({ links: 2, tags: 1 })
    expect(await stores.metadata.getLink(upstream, 'r', digest)).toBe('confirmed')
    expect(await stores.metadata.getLink(upstream, 'r', other)).toBe('named')
    expect((await stores.metadata.getTag({ upstream, repository: 'r', tag: 't' }))?.checkedAt).toBe(7)
    await stores.metadata.deleteLink(upstream, 'r', other)
    expect(counted(dataDir)).toEqual({ links: 1, tags: 1 })
  })
})

describe('indexes that were moved aside', () => {
  it('are removed at start, but for the newest', async () => {
    const first = await opened()
    await first.close()
    const names = ['corrupt-9', 'corrupt-9-wal', 'corrupt-10', 'corrupt-100', 'corrupt-100-wal', 'corrupt-mine']
    for (const name of names) writeFileSync(join(first.dataDir, `index.sqlite.${name}`), '')
    writeFileSync(join(first.dataDir, 'index.sqlite'), 'no database at all'.repeat(500))
    const second = await opened({ dataDir: first.dataDir })
    const left = (): readonly string[] =>
      readdirSync(first.dataDir).filter(name => name.startsWith('index.sqlite.corrupt-'))
    expect(left()).toEqual(['index.sqlite.corrupt-1700000000001', 'index.sqlite.corrupt-mine'])
    await second.close()
    await opened({ dataDir: first.dataDir })
    expect(left()).toHaveLength(2)
    expect(existsSync(join(first.dataDir, 'index.sqlite'))).toBe(true)
  })
})
