import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { digestOf, hexOf, type Digest } from '../../src/oci/digest.ts'
import { openEmbeddedStores } from '../../src/store/embedded.ts'
import { Turns } from '../../src/store/turns.ts'
import { describeBlobStore } from './blob-store.conformance.ts'
import { describeMetadataStore } from './metadata.conformance.ts'
import {
  blobFiles,
  content,
  opened,
  openDescriptors,
  publish,
  readBlob,
  recordingObserver,
  rowsOf,
  temporaryDirectory,
} from './opened.ts'

describeBlobStore('embedded', () => opened())
describeMetadataStore('embedded', async () => (await opened()).metadata)

const pathOf = (dataDir: string, digest: Digest): string =>
  join(dataDir, 'blobs', 'sha256', hexOf(digest).slice(0, 2), hexOf(digest))

const closedWithout = (dataDir: string, name: string): void => rmSync(join(dataDir, name), { force: true })

describe('thousands of links', () => {
  it('T-42: are put some at a time, and others have their turn in between', async () => {
    const { metadata } = await opened()
    const digests = Array.from({ length: 4096 }, (_, index) => digestOf(content(index, 8)))
    let turns = 0
    let running = true
    const count = (): void => {
      turns++
      if (running) setImmediate(count)
    }
    setImmediate(count)
    await metadata.putLinks('docker.io', 'library/bomb', digests, 'named')
    running = false
    expect(turns).toBeGreaterThan(8)
  })
})

describe('a restart', () => {
  it('keeps blobs, manifests, tags, links, documents and the counters', async () => {
    const first = await opened()
    const bytes = content('kept', 12_345)
    const digest = await publish(first, bytes)
    const manifest = { digest: digestOf(Buffer.from('{}')), mediaType: 'a/b', bytes: Buffer.from('{}') }
    const key = { upstream: 'docker.io', repository: 'library/alpine', tag: '1' }
    await first.metadata.putManifest(manifest)
    await first.metadata.putTag(key, { digest, mediaType: 'a/b', size: 2, checkedAt: 9 })
    await first.metadata.putLinks(key.upstream, key.repository, [digest], 'confirmed')
    await first.metadata.putDocument('d', { bytes, mediaType: 'a/b', storedAt: 1, attributes: {} })
    const usage = first.usage()
    await first.close()

    const second = await opened({ dataDir: first.dataDir })
    expect(second.usage()).toEqual(usage)
    expect(usage).toMatchObject({ blobs: 1, blobBytes: 12_345, manifests: 1, manifestBytes: 2, reservedBytes: 0 })
    expect((await readBlob(second.blobs, digest))?.equals(bytes)).toBe(true)
    expect((await second.metadata.getManifest(manifest.digest))?.mediaType).toBe('a/b')
    expect((await second.metadata.getTag(key))?.checkedAt).toBe(9)
    expect(await second.metadata.isConfirmedAt(key.upstream, digest)).toBe(true)
    expect((await second.metadata.getDocument('d'))?.bytes).toHaveLength(12_345)
  })

  it('F-33: empties the spool', async () => {
    const first = await opened()
    await first.close()
    writeFileSync(join(first.dataDir, 'spool', 'left-behind'), 'half a blob')
    await opened({ dataDir: first.dataDir })
    expect(readdirSync(join(first.dataDir, 'spool'))).toEqual([])
  })

  it('F-33: finishes what was being published or removed when the process was killed', async () => {
    const first = await opened()
    const whole = await publish(first, content('renamed', 100))
    const cut = await publish(first, content('cut', 100))
    const going = await publish(first, content('going', 100))
    const gone = digestOf(content('not renamed yet', 100))
    await first.close()
    truncateSync(pathOf(first.dataDir, cut), 99)
    const database = new DatabaseSync(join(first.dataDir, 'index.sqlite'))
    database.exec(`
      UPDATE blobs SET state = 'publishing' WHERE digest IN ('${whole}', '${cut}');
      UPDATE blobs SET state = 'deleting' WHERE digest = '${going}';
      INSERT INTO blobs (digest, size, last_used, state) VALUES ('${gone}', 100, 1, 'publishing');
    `)
    database.close()

    const second = await opened({ dataDir: first.dataDir })
    expect(rowsOf(first.dataDir, 'SELECT digest, state FROM blobs')).toEqual([{ digest: whole, state: 'present' }])
    expect(blobFiles(first.dataDir).map(file => file.digest)).toEqual([whole])
    expect(second.usage()).toMatchObject({ blobs: 1, blobBytes: 100 })
  })
})

describe('a blob whose file and row disagree', () => {
  it('F-51: is a miss when the file is gone, and can be published again', async () => {
    const { observer, failures } = recordingObserver()
    const stores = await opened({ observer })
    const bytes = content('lost', 500)
    const digest = await publish(stores, bytes)
    rmSync(pathOf(stores.dataDir, digest))
    expect(await stores.blobs.open(digest)).toBeUndefined()
    expect(stores.usage()).toMatchObject({ blobs: 0, blobBytes: 0 })
    expect(failures.map(failure => failure.operation)).toEqual(['blobs.check'])
    await publish(stores, bytes)
    expect((await readBlob(stores.blobs, digest))?.equals(bytes)).toBe(true)
  })

  it('F-54: is a miss when the file has another size', async () => {
    const stores = await opened()
    const digest = await publish(stores, content('cut', 500))
    truncateSync(pathOf(stores.dataDir, digest), 499)
    expect(await stores.blobs.size(digest)).toBeUndefined()
    expect(await stores.blobs.open(digest)).toBeUndefined()
    expect(existsSync(pathOf(stores.dataDir, digest))).toBe(false)
    expect(stores.usage().blobs).toBe(0)
  })

  it('is replaced by publish when the file has another size', async () => {
    const stores = await opened()
    const bytes = content('repaired', 500)
    const digest = await publish(stores, bytes)
    truncateSync(pathOf(stores.dataDir, digest), 1)
    await publish(stores, bytes)
    expect((await readBlob(stores.blobs, digest))?.equals(bytes)).toBe(true)
    expect(stores.usage()).toMatchObject({ blobs: 1, blobBytes: 500 })
  })

  it('is tried again at the next start when the file cannot be removed', async () => {
    const { observer, failures } = recordingObserver()
    const first = await opened({ observer, maxBytes: 1000 })
    const digest = await publish(first, content('stuck', 900))
    rmSync(pathOf(first.dataDir, digest))
    // Nobody can unlink a directory.
    mkdirSync(pathOf(first.dataDir, digest))
    await publish(first, content('next', 900))
    expect(failures.map(failure => failure.operation)).toEqual(['blobs.remove'])
    expect(rowsOf(first.dataDir, `SELECT state FROM blobs WHERE digest = '${digest}'`)).toEqual([{ state: 'deleting' }])
    expect(first.usage()).toMatchObject({ blobs: 1, blobBytes: 900 })
    await first.close()
    rmdirSync(pathOf(first.dataDir, digest))
    writeFileSync(pathOf(first.dataDir, digest), content('stuck', 900))

    const second = await opened({ dataDir: first.dataDir, maxBytes: 1000 })
    expect(existsSync(pathOf(first.dataDir, digest))).toBe(false)
    expect(rowsOf(first.dataDir, 'SELECT state FROM blobs')).toEqual([{ state: 'present' }])
    expect(second.usage()).toMatchObject({ blobs: 1, blobBytes: 900 })
  })

  it('never comes from publishing and deleting at the same time', async () => {
    const stores = await opened()
    const bytes = content('contested', 2000)
    const digest = digestOf(bytes)
    for (let round = 0; round < 50; round++) {
      const work = [
        publish(stores, bytes),
        stores.blobs.delete(digest),
        publish(stores, bytes),
        stores.blobs.delete(digest),
      ]
      await Promise.all(work)
      const files = blobFiles(stores.dataDir).map(file => file.digest)
      expect(rowsOf(stores.dataDir, 'SELECT digest FROM blobs').map(row => row.digest)).toEqual(files)
      expect(stores.usage().blobs).toBe(files.length)
    }
  })

  it('is adopted when only the row was lost', async () => {
    const stores = await opened()
    const bytes = content('orphan', 500)
    const digest = await publish(stores, bytes)
    const database = new DatabaseSync(join(stores.dataDir, 'index.sqlite'))
    database.exec('DELETE FROM blobs')
    database.close()
    expect(stores.usage().blobs).toBe(0)
    expect(await stores.blobs.size(digest)).toBe(500)
    expect((await readBlob(stores.blobs, digest))?.equals(bytes)).toBe(true)
    expect(stores.usage()).toMatchObject({ blobs: 1, blobBytes: 500 })
  })
})

describe('an index that cannot be used', () => {
  const damaged = async (damage: (path: string) => void) => {
    const first = await opened()
    const digest = await publish(first, content('survivor', 700))
    await first.close()
    damage(join(first.dataDir, 'index.sqlite'))
    const { observer, failures } = recordingObserver()
    const second = await opened({ dataDir: first.dataDir, observer })
    return { stores: second, digest, failures }
  }

  const damages: readonly [string, (path: string) => void][] = [
    [
      'is not a database',
      path => writeFileSync(path, 'this is not a database, however long one looks at it'.repeat(100)),
    ],
    ['was cut', path => truncateSync(path, 5000)],
    [
      'has other tables',
      path => {
        const database = new DatabaseSync(path)
        database.exec('DROP TABLE links; CREATE TABLE links (a)')
        database.close()
      },
    ],
    [
      'has lost its counters',
      path => {
        const database = new DatabaseSync(path)
        database.exec('DELETE FROM counters')
        database.close()
      },
    ],
    [
      'belongs to something else',
      path => {
        rmSync(path)
        const database = new DatabaseSync(path)
        database.exec('CREATE TABLE something (a)')
        database.close()
      },
    ],
  ]

  it.each(damages)('F-64: one that %s is moved aside, loudly, and its blobs are found again', async (_, damage) => {
    const { stores, digest, failures } = await damaged(damage)
    expect(failures.map(failure => failure.operation)).toEqual(['index.replaced'])
    expect(readdirSync(stores.dataDir).filter(name => name.startsWith('index.sqlite.corrupt-'))).not.toEqual([])
    await stores.settled()
    expect(stores.usage()).toMatchObject({ blobs: 1, blobBytes: 700 })
    expect(await readBlob(stores.blobs, digest)).toHaveLength(700)
  })

  it('F-64: one that turns out to be malformed while running is replaced, and pulls go on', async () => {
    const first = await opened()
    const digest = await publish(first, content('survivor', 700))
    for (let n = 0; n < 300; n++) await first.metadata.putLinks('docker.io', `library/${n}`, [digest], 'confirmed')
    await first.close()
    const path = join(first.dataDir, 'index.sqlite')
    const database = new DatabaseSync(path)
    const row = database.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'links'").get()
    const { page_size } = database.prepare('PRAGMA page_size').get() ?? {}
    database.close()
    const { open } = await import('node:fs/promises')
    const file = await open(path, 'r+')
    await file.write(
      Buffer.alloc(Number(page_size), 0xff),
      0,
      undefined,
      (Number(row?.rootpage) - 1) * Number(page_size),
    )
    await file.close()

    const { observer, failures } = recordingObserver()
    const second = await opened({ dataDir: first.dataDir, observer })
    expect(await second.metadata.getLink('docker.io', 'library/7', digest)).toBeUndefined()
    expect(failures.map(failure => failure.operation)).toEqual(['index.replaced'])
    await second.metadata.putLinks('docker.io', 'library/7', [digest], 'named')
    expect(await second.metadata.getLink('docker.io', 'library/7', digest)).toBe('named')
    await second.settled()
    expect(second.usage().blobs).toBe(1)
  })

  it('refuses an index of a newer version, and says what to do', async () => {
    const first = await opened()
    await first.close()
    const database = new DatabaseSync(join(first.dataDir, 'index.sqlite'))
    database.exec('PRAGMA user_version = 99')
    database.close()
    await expect(opened({ dataDir: first.dataDir })).rejects.toThrow(/newer Layover \(schema 99.*move the file away/)
    // And lets go of the directory.
    closedWithout(first.dataDir, 'index.sqlite')
    await opened({ dataDir: first.dataDir })
  })

  it('T-25: a row with a digest that is none never becomes a path', async () => {
    const stores = await opened({ maxBytes: 100_000 })
    const outside = join(stores.dataDir, 'outside')
    writeFileSync(outside, 'precious')
    const database = new DatabaseSync(join(stores.dataDir, 'index.sqlite'))
    database.exec(`INSERT INTO blobs (digest, size, last_used, state) VALUES ('sha256:../../outside', 1, 0, 'present')`)
    database.close()
    await publish(stores, content(1, 60_000))
    await publish(stores, content(2, 60_000))
    expect(existsSync(outside)).toBe(true)
  })

  it('T-26: a tag with a digest that is none is a miss and goes', async () => {
    const stores = await opened()
    const database = new DatabaseSync(join(stores.dataDir, 'index.sqlite'))
    database.exec(`INSERT INTO tags VALUES ('docker.io', 'r', 't', 'sha256:garbage', 'a/b', 1, 1)`)
    database.close()
    expect(await stores.metadata.getTag({ upstream: 'docker.io', repository: 'r', tag: 't' })).toBeUndefined()
    expect(await stores.metadata.knownTags('docker.io', 'r')).toEqual([])
  })
})

describe('the data directory', () => {
  it('is created when it is missing, closed to others', async () => {
    const dataDir = join(temporaryDirectory(), 'not', 'there')
    const stores = await opened({ dataDir })
    await publish(stores, content('x', 10))
    expect(statSync(join(dataDir, 'blobs')).mode & 0o007).toBe(0)
  })

  it('F-35: that is not a directory is named in the error, with the way out', async () => {
    const dataDir = join(temporaryDirectory(), 'file')
    writeFileSync(dataDir, '')
    await expect(opened({ dataDir })).rejects.toThrow(`dataDir ${dataDir} cannot be written (`)
    await expect(opened({ dataDir })).rejects.toThrow(/LAYOVER_DATA_DIR/)
  })

  it('F-35: that cannot be written is named in the error', async () => {
    // /proc refuses new entries even to root.
    await expect(opened({ dataDir: '/proc/layover' })).rejects.toThrow(
      'dataDir /proc/layover cannot be written (ENOENT)',
    )
  })

  it('serves one process at a time, and says so', async () => {
    const first = await opened()
    await expect(opened({ dataDir: first.dataDir })).rejects.toThrow(
      `dataDir ${first.dataDir} is in use by another Layover`,
    )
    await first.close()
    await opened({ dataDir: first.dataDir })
  })

  it('F-35: may be removed at run time: the next pulls are cached again', async () => {
    const { observer, failures } = recordingObserver()
    const stores = await opened({ observer })
    const bytes = content('before', 1000)
    const before = await publish(stores, bytes)
    rmSync(stores.dataDir, { recursive: true })
    expect(await stores.blobs.open(before)).toBeUndefined()
    const after = await publish(stores, content('after', 1000))
    await stores.metadata.putLinks('docker.io', 'r', [after], 'named')
    expect(await readBlob(stores.blobs, after)).toHaveLength(1000)
    expect(failures.map(failure => failure.operation)).toContain('index.replaced')
    await expect(opened({ dataDir: stores.dataDir })).rejects.toThrow(/in use by another Layover/)
    await stores.close()
    const again = await opened({ dataDir: stores.dataDir })
    expect(await again.blobs.size(after)).toBe(1000)
    expect(await again.metadata.getLink('docker.io', 'r', after)).toBe('named')
  })

  it('F-35: that turns into a file at run time makes no room, is reported, and recovers', async () => {
    const { observer, failures } = recordingObserver()
    const stores = await opened({ observer })
    rmSync(stores.dataDir, { recursive: true })
    writeFileSync(stores.dataDir, '')
    expect(await stores.spool.create(100)).toBeUndefined()
    expect(failures.map(failure => failure.operation)).toContain('spool.create')
    expect(stores.usage().reservedBytes).toBe(0)
    rmSync(stores.dataDir)
    const digest = await publish(stores, content('back', 100))
    expect(await stores.blobs.size(digest)).toBe(100)
  })
})

describe('open files', () => {
  it('share one descriptor per blob, and all come back', async () => {
    const before = openDescriptors()
    const dataDir = temporaryDirectory()
    const stores = await openEmbeddedStores({ dataDir, maxBytes: 1e8, clock: systemClock, observer: silentObserver })
    const digest = await publish(stores, content('shared', 1000))
    const missing = digestOf(content('missing', 1))
    const idle = openDescriptors()
    const readers = await Promise.all(Array.from({ length: 1000 }, () => stores.blobs.open(digest)))
    expect(openDescriptors()).toBe(idle + 1)
    await Promise.all(readers.map(async reader => reader?.close()))
    await Promise.all(Array.from({ length: 100 }, () => stores.blobs.open(missing)))
    const files = await Promise.all([1, 2, 3].map(() => stores.spool.create(10)))
    await Promise.all(files.map(async file => file?.close()))
    expect(openDescriptors()).toBe(idle)
    await stores.close()
    expect(openDescriptors()).toBe(before)
  })

  it('are not closed under a read that is under way', async () => {
    const stores = await opened()
    const bytes = content('slow', 32_000_000)
    const blob = await stores.blobs.open(await publish(stores, bytes))
    const buffer = Buffer.alloc(bytes.byteLength)
    const order: string[] = []
    const reading = blob?.read(buffer, 0, buffer.byteLength).finally(() => order.push('read'))
    const closing = blob?.close().finally(() => order.push('closed'))
    const count = (await reading) ?? 0
    await closing
    expect(order).toEqual(['read', 'closed'])
    expect(count).toBeGreaterThan(0)
    expect(buffer.subarray(0, count).equals(bytes.subarray(0, count))).toBe(true)
  })
})

describe('work on one key', () => {
  it('happens one after the other, also after a failure, and leaves nothing behind', async () => {
    const turns = new Turns<string>()
    const order: string[] = []
    const work =
      (name: string, fails = false) =>
      async (): Promise<void> => {
        order.push(`${name} begins`)
        await Promise.resolve()
        order.push(`${name} ends`)
        if (fails) throw new Error(name)
      }
    const failing = turns.run('key', work('a', true))
    const following = turns.run('key', work('b'))
    expect(turns.isBusy('key')).toBe(true)
    await expect(failing).rejects.toThrow('a')
    await following
    await turns.idle()
    expect(order).toEqual(['a begins', 'a ends', 'b begins', 'b ends'])
    expect(turns.isBusy('key')).toBe(false)
  })
})

describe('documents', () => {
  it('are bounded: the oldest goes', async () => {
    const stores = await opened()
    const document = (storedAt: number) => ({ bytes: Buffer.from('[]'), mediaType: 'a/b', storedAt, attributes: {} })
    for (let n = 0; n < 1001; n++) await stores.metadata.putDocument(`d${n}`, document(n))
    expect(await stores.metadata.getDocument('d0')).toBeUndefined()
    expect(await stores.metadata.getDocument('d1')).toBeDefined()
    expect(await stores.metadata.getDocument('d1000')).toBeDefined()
    const large = Buffer.alloc(33 * 1024 * 1024)
    await stores.metadata.putDocument('large', { ...document(2000), bytes: large })
    await stores.metadata.putDocument('larger', { ...document(2001), bytes: large })
    expect(await stores.metadata.getDocument('large')).toBeUndefined()
    expect(await stores.metadata.getDocument('larger')).toBeDefined()
    expect(rowsOf(stores.dataDir, 'SELECT count(*) AS n FROM documents')).toEqual([{ n: 1 }])
  })
})
