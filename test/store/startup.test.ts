import diagnostics from 'node:diagnostics_channel'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, it } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { content, opened, publish, readBlob, rowsOf, temporaryDirectory } from './opened.ts'
import { seedIndex } from './seed.ts'

const rows = 1_000_000
const bigTable = /SCAN (blobs|manifests|tags|links|documents)\b(?!.*INDEX blobs_unsettled)/

/** Everything SQLite runs meanwhile. */
async function statementsOf(work: () => Promise<unknown>): Promise<readonly string[]> {
  const statements = new Set<string>()
  const note = (message: unknown): void => {
    if (typeof message === 'object' && message !== null && 'sql' in message) statements.add(String(message.sql))
  }
  diagnostics.subscribe('sqlite.db.query', note)
  try {
    await work()
  } finally {
    diagnostics.unsubscribe('sqlite.db.query', note)
  }
  return [...statements]
}

/** How SQLite would run each of them. */
function plansOf(dataDir: string, statements: readonly string[]): readonly string[] {
  const database = new DatabaseSync(join(dataDir, 'index.sqlite'))
  const plans = statements
    .filter(sql => /^\s*(SELECT|INSERT|UPDATE|DELETE)/i.test(sql) && !sql.includes('sqlite_schema'))
    .flatMap(sql =>
      database
        .prepare(`EXPLAIN QUERY PLAN ${sql}`)
        .all()
        .map(row => `${String(row.detail)} ← ${sql}`),
    )
  database.close()
  return plans
}

/** Bytes that this process asked the system for so far. */
const bytesRead = (): number => Number(/rchar: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))?.[1])

it('a start reads no more of an index of a million blobs than of a small one', async () => {
  const dataDir = temporaryDirectory()
  const seeded = seedIndex(dataDir, rows)
  const maxBytes = 10 * seeded.blobBytes
  expect(statSync(join(dataDir, 'index.sqlite')).size).toBeGreaterThan(100_000_000)
  // The first start walks through the (absent) files once, in the background: not what is measured here.
  await (await opened({ dataDir, maxBytes })).close()

  const before = bytesRead()
  let stores: Awaited<ReturnType<typeof opened>> | undefined
  const statements = await statementsOf(async () => {
    stores = await opened({ dataDir, maxBytes })
  })
  expect(bytesRead() - before).toBeLessThan(1_000_000)
  expect(stores?.usage()).toMatchObject(seeded)
  expect(statements.length).toBeGreaterThan(3)
  expect(plansOf(dataDir, statements).filter(plan => bigTable.test(plan))).toEqual([])
})

it('no request scans a table: reading, publishing, evicting, listing and pruning go by index', async () => {
  const dataDir = temporaryDirectory()
  seedIndex(dataDir, 1000)
  const stores = await opened({ dataDir, maxBytes: 1_100_000, recordLimits: { links: 100, tags: 100 } })
  const bytes = content('new', 500_000)
  const digest = digestOf(bytes)
  const statements = await statementsOf(async () => {
    await publish(stores, bytes)
    await readBlob(stores.blobs, digest)
    await stores.blobs.delete(digest)
    await stores.metadata.putManifest({ digest, mediaType: 'a/b', bytes })
    await stores.metadata.getManifest(digest)
    await stores.metadata.deleteManifest(digest)
    const key = { upstream: 'docker.io', repository: 'library/seed', tag: 't1' }
    await stores.metadata.putTag({ ...key, tag: 'one-more' }, { digest, mediaType: 'a/b', size: 1, checkedAt: 1 })
    await stores.metadata.putTag(key, { digest, mediaType: 'a/b', size: 1, checkedAt: 1 })
    await stores.metadata.getTag(key)
    await stores.metadata.deleteTag(key)
    await stores.metadata.knownTags(key.upstream, key.repository)
    await stores.metadata.putLinks(key.upstream, key.repository, [digest], 'confirmed')
    await stores.settled()
    await stores.metadata.getLink(key.upstream, key.repository, digest)
    await stores.metadata.isConfirmedAt(key.upstream, digest)
    await stores.metadata.deleteLink(key.upstream, key.repository, digest)
    for (let n = 0; n < 1002; n++)
      await stores.metadata.putDocument(`d${n}`, { bytes: Buffer.of(1), mediaType: 'a/b', storedAt: n, attributes: {} })
    await stores.metadata.getDocument('d1001')
    await stores.close()
  })
  expect(statements.length).toBeGreaterThan(20)
  const plans = plansOf(dataDir, statements)
  // In order of use or age, by index, read no further than needed.
  const inOrder = /USING (COVERING )?INDEX (blobs|manifests|documents|tags)_by_(use|age|check)/
  expect(plans.filter(plan => inOrder.test(plan)).length).toBeGreaterThanOrEqual(2)
  expect(plans.filter(plan => bigTable.test(plan) && !inOrder.test(plan))).toEqual([])
  expect(plans.filter(plan => plan.includes('TEMP B-TREE'))).toEqual([])
  expect(plans.some(plan => plan.startsWith('SEARCH links USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)'))).toBe(true)
  expect(plans.some(plan => plan.includes('tags_by_check'))).toBe(true)
  // Not by the upstream alone, which every link has.
  expect(plans.filter(plan => plan.includes('links_confirmed (upstream=? AND digest=?)'))).toHaveLength(1)
})

it('seeds an index that the stores take for their own', async () => {
  const dataDir = temporaryDirectory()
  const seeded = seedIndex(dataDir, 50)
  const stores = await opened({ dataDir })
  expect(existsSync(join(dataDir, 'index.sqlite-wal'))).toBe(true)
  expect(stores.usage()).toMatchObject({ ...seeded, manifests: 5, manifestBytes: 10 })
  expect(rowsOf(dataDir, 'SELECT count(*) AS n FROM blobs')).toEqual([{ n: 50 }])
})
