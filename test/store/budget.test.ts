import { openSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { digestOf, type Digest } from '../../src/oci/digest.ts'
import { Budget } from '../../src/store/budget.ts'
import { Descriptor } from '../../src/store/descriptor.ts'
import { mayMount, smallDisk } from './disk.ts'
import { blobFiles, content, opened, publish, readAll, readBlob, recordingObserver } from './opened.ts'

const kib = 1024
const mib = 1024 * kib

const manifestOf = (seed: number, size: number) => {
  const bytes = content(`manifest ${seed}`, size)
  return { digest: digestOf(bytes), mediaType: 'application/json', bytes }
}

describe('the budget', () => {
  it('counts what is reserved, then what was published', async () => {
    const stores = await opened({ maxBytes: mib })
    const { spool, blobs } = stores
    const file = await spool.create(600 * kib)
    if (file === undefined) throw new Error('no room')
    expect(stores.usage()).toMatchObject({ reservedBytes: 600 * kib, blobBytes: 0, maxBytes: mib })
    const bytes = content('small', 100 * kib)
    await file.write([bytes], 0)
    await blobs.publish(digestOf(bytes), bytes.byteLength, file)
    expect(stores.usage()).toMatchObject({ reservedBytes: 0, blobBytes: 100 * kib, blobs: 1 })
    await file.close()
    expect(stores.usage()).toMatchObject({ reservedBytes: 0, blobBytes: 100 * kib, blobs: 1 })
  })

  it('has no room for what is larger than all of it, and evicts nothing for that', async () => {
    const stores = await opened({ maxBytes: mib })
    await publish(stores, content(1, 500 * kib))
    expect(await stores.spool.create(mib + 1)).toBeUndefined()
    expect(stores.usage().blobs).toBe(1)
  })

  it('evicts the least recently used first, and tells', async () => {
    const { observer, evictions } = recordingObserver()
    const stores = await opened({ maxBytes: mib, observer })
    const [a, b, c] = [
      await publish(stores, content('a', 300 * kib)),
      await publish(stores, content('b', 300 * kib)),
      await publish(stores, content('c', 300 * kib)),
    ]
    await readBlob(stores.blobs, a)
    const d = await publish(stores, content('d', 300 * kib))
    const left = await Promise.all([a, b, c, d].map(digest => stores.blobs.size(digest)))
    expect(left.map(size => size !== undefined)).toEqual([true, false, true, true])
    expect(evictions).toEqual([{ blobs: 1, bytes: 300 * kib }])
    expect(blobFiles(stores.dataDir)).toHaveLength(3)
  })

  it('size does not count as a use', async () => {
    const stores = await opened({ maxBytes: mib })
    const a = await publish(stores, content('a', 400 * kib))
    await publish(stores, content('b', 400 * kib))
    await stores.blobs.size(a)
    await publish(stores, content('c', 400 * kib))
    expect(await stores.blobs.size(a)).toBeUndefined()
  })

  it('counts a blob that was removed while it is open until its last reader has closed it', async () => {
    const stores = await opened({ maxBytes: mib })
    const digest = await publish(stores, content('removed', 600_000))
    const first = await stores.blobs.open(digest)
    const second = await stores.blobs.open(digest)
    await stores.blobs.delete(digest)
    expect(stores.usage()).toMatchObject({ blobs: 0, blobBytes: 0 })
    expect(await stores.spool.create(600_000)).toBeUndefined()
    await first?.close()
    expect(await stores.spool.create(600_000)).toBeUndefined()
    await second?.close()
    const file = await stores.spool.create(600_000)
    expect(file).toBeDefined()
    await file?.close()
    // And nothing is counted twice: all of it can be had.
    const all = await stores.spool.create(mib)
    expect(all).toBeDefined()
    await all?.close()
  })

  it('spares the blobs that are open, and has no room when all are', async () => {
    const stores = await opened({ maxBytes: mib })
    const bytes = content('read', 400 * kib)
    const read = await publish(stores, bytes)
    const blob = await stores.blobs.open(read)
    if (blob === undefined) throw new Error('it was published')
    // Used later than the one that is open.
    const other = await publish(stores, content('other', 400 * kib))
    // Only together would they make room: so nothing goes.
    expect(await stores.spool.create(900 * kib)).toBeUndefined()
    expect(await stores.blobs.size(other)).toBe(400 * kib)
    const file = await stores.spool.create(500 * kib)
    expect(file).toBeDefined()
    expect(await stores.blobs.size(other)).toBeUndefined()
    expect(await stores.blobs.size(read)).toBe(400 * kib)
    expect((await readAll(blob)).equals(bytes)).toBe(true)
    await blob.close()
    await file?.close()
    expect(await stores.spool.create(900 * kib)).toBeDefined()
  })

  it('lets many ask at once and gives away no byte twice', async () => {
    const stores = await opened({ maxBytes: mib })
    await publish(stores, content('evicted', 500 * kib))
    const files = await Promise.all(Array.from({ length: 20 }, () => stores.spool.create(200 * kib)))
    expect(files.filter(file => file !== undefined)).toHaveLength(5)
    expect(stores.usage()).toMatchObject({ reservedBytes: 1000 * kib, blobs: 0 })
    await Promise.all(files.map(async file => file?.close()))
    expect(stores.usage().reservedBytes).toBe(0)
  })

  it('lets one ask after the other, even when the disk answers at once', async () => {
    const evict = async (): Promise<number> => 0
    const budget = new Budget({
      maxBytes: 1000,
      published: () => 0,
      inUse: () => 0,
      evict,
      writable: async () => undefined,
    })
    const reservations = await Promise.all(Array.from({ length: 20 }, () => budget.reserve(300)))
    expect(reservations.filter(reservation => reservation !== undefined)).toHaveLength(3)
    for (const reservation of reservations) reservation?.release()
    reservations[0]?.release()
    expect(budget.reservedBytes).toBe(0)
  })

  it('grows the reservation of a download of unknown size, and refuses when there is nothing left', async () => {
    const stores = await opened({ maxBytes: mib })
    await publish(stores, content('evicted', 500 * kib))
    const file = await stores.spool.create(undefined)
    if (file === undefined) throw new Error('no room')
    const chunk = content('chunk', 128 * kib)
    for (let n = 0; n < 8; n++) await file.write([chunk], n * chunk.byteLength)
    expect(stores.usage()).toMatchObject({ reservedBytes: mib, blobs: 0 })
    await expect(file.write([Buffer.alloc(1)], mib)).rejects.toMatchObject({ code: 'STORAGE_FULL' })
    await file.discard()
    expect(stores.usage().reservedBytes).toBe(0)
    await file.close()
  })

  it('grows a reservation beyond the expected size', async () => {
    const stores = await opened({ maxBytes: mib })
    const file = await stores.spool.create(10)
    await file?.write([content('more', 300 * kib)], 0)
    expect(stores.usage().reservedBytes).toBe(300 * kib)
    await file?.close()
  })

  it('covers manifests, which go after all blobs', async () => {
    const { observer, failures } = recordingObserver()
    const stores = await opened({ maxBytes: mib, observer })
    const first = manifestOf(1, 50 * kib)
    await stores.metadata.putManifest(first)
    await publish(stores, content('later', 900 * kib))
    const file = await stores.spool.create(900 * kib)
    expect(stores.usage()).toMatchObject({ blobs: 0, manifests: 1, manifestBytes: 50 * kib })
    await file?.close()
    const all = await stores.spool.create(mib)
    expect(all).toBeDefined()
    expect(stores.usage()).toMatchObject({ manifests: 0, manifestBytes: 0 })
    expect(await stores.metadata.getManifest(first.digest)).toBeUndefined()
    // And a manifest that finds no room is reported, and no more than that.
    await stores.metadata.putManifest(first)
    expect(failures.map(failure => failure.operation)).toEqual(['metadata.putManifest'])
    await all?.close()
  })

  it('lets manifests go first once they hold more than a tenth', async () => {
    const stores = await opened({ maxBytes: mib })
    const manifests = [1, 2, 3, 4].map(seed => manifestOf(seed, 50 * kib))
    for (const manifest of manifests) await stores.metadata.putManifest(manifest)
    await stores.metadata.getManifest(manifests[0]?.digest as Digest)
    await publish(stores, content('blob', 800 * kib))
    await stores.metadata.putManifest(manifestOf(5, 50 * kib))
    expect(stores.usage()).toMatchObject({ blobs: 1, manifests: 4 })
    expect(await stores.metadata.getManifest(manifests[0]?.digest as Digest)).toBeDefined()
    expect(await stores.metadata.getManifest(manifests[1]?.digest as Digest)).toBeUndefined()
  })

  it('is kept when it was made smaller before a restart', async () => {
    const first = await opened({ maxBytes: 2 * mib })
    for (let n = 0; n < 8; n++) await publish(first, content(n, 200 * kib))
    await first.close()
    const second = await opened({ maxBytes: mib, dataDir: first.dataDir })
    await second.settled()
    expect(second.usage()).toMatchObject({ blobs: 5, blobBytes: 1000 * kib })
    expect(await second.blobs.size(digestOf(content(7, 200 * kib)))).toBe(200 * kib)
  })

  it('is kept when blobs are found that an emptied index did not know of', async () => {
    const first = await opened({ maxBytes: 2 * mib })
    for (let n = 0; n < 8; n++) await publish(first, content(n, 200 * kib))
    await first.close()
    writeFileSync(join(first.dataDir, 'index.sqlite'), 'garbage'.repeat(1000))
    const second = await opened({ maxBytes: mib, dataDir: first.dataDir })
    await second.settled()
    expect(second.usage()).toMatchObject({ blobs: 5, blobBytes: 1000 * kib })
    expect(blobFiles(first.dataDir)).toHaveLength(5)
  })
})

describe('T-47: a size that is only announced', () => {
  const gib = 1024 * mib

  /** A budget over numbers alone: 10 GiB, of which `published` are in use by blobs of 10 MiB each, all of which can go. */
  function numbers(published: number) {
    const state = { published, evicted: 0 }
    const budget = new Budget({
      maxBytes: 10 * gib,
      published: () => state.published,
      inUse: () => 0,
      evict: async wanted => {
        const freed = Math.min(state.published, Math.ceil(wanted / (10 * mib)) * 10 * mib)
        state.published -= freed
        state.evicted += freed
        return freed
      },
      writable: async () => undefined,
    })
    return { budget, state }
  }

  it('takes a step from the cache, and the rest as the bytes come', async () => {
    const { budget, state } = numbers(10 * gib)
    const reservation = await budget.reserve(9 * gib, { vouched: false })
    expect(state.evicted).toBe(70 * mib)
    for (let at = mib; at <= gib; at += mib) expect(await reservation?.growTo(at)).toBe(true)
    expect(budget.reservedBytes).toBe(gib)
    expect(state.evicted).toBeLessThan(gib + 70 * mib)
    expect(await reservation?.growTo(9 * gib)).toBe(true)
    expect(budget.reservedBytes).toBe(9 * gib)
    reservation?.release()
    expect(budget.reservedBytes).toBe(0)
  })

  it('by many at once costs a step each, and by one after the other no more than by one', async () => {
    const { budget, state } = numbers(10 * gib)
    for (let lies = 0; lies < 100; lies++) (await budget.reserve(9 * gib, { vouched: false }))?.release()
    expect(state.evicted).toBe(70 * mib)
    const held = await Promise.all(Array.from({ length: 10 }, () => budget.reserve(9 * gib, { vouched: false })))
    expect(held.every(reservation => reservation !== undefined)).toBe(true)
    expect(state.evicted).toBeLessThanOrEqual(650 * mib)
    for (const reservation of held) reservation?.release()
  })

  it('evicts nothing where it cannot fit at all', async () => {
    const { budget, state } = numbers(10 * gib)
    expect(await budget.reserve(11 * gib, { vouched: false })).toBeUndefined()
    expect(state.evicted).toBe(0)
  })

  it('is kept for whom a manifest vouches, and refuses who comes too late before a byte is downloaded', async () => {
    const { budget, state } = numbers(10 * gib)
    const first = await budget.reserve(6 * gib)
    expect(await budget.reserve(6 * gib)).toBeUndefined()
    // Nobody vouches for this one: it takes what is there and gets no further than that.
    expect(await budget.reserve(6 * gib, { vouched: false })).toBeUndefined()
    const small = await budget.reserve(4 * gib)
    expect(small).toBeDefined()
    expect(state.evicted).toBe(130 * mib)
    expect(await first?.growTo(6 * gib)).toBe(true)
    expect(await small?.growTo(4 * gib)).toBe(true)
    expect(await small?.growTo(4 * gib + 1)).toBe(false)
    first?.release()
    small?.release()
    const whole = await budget.reserve(10 * gib)
    expect(whole).toBeDefined()
    whole?.release()
  })

  it('gives back what was promised when the download ends in the middle of taking more', async () => {
    const { budget } = numbers(0)
    const reservation = await budget.reserve(10 * gib)
    const growing = reservation?.growTo(2 * gib)
    reservation?.release()
    expect(await growing).toBe(false)
    expect(budget.reservedBytes).toBe(0)
    expect(await budget.reserve(10 * gib)).toBeDefined()
  })
})

describe('F-34: a full disk', () => {
  it('rejects a write with what the system says', async () => {
    const full = new Descriptor(openSync('/dev/full', 'r+'))
    await expect(full.write([Buffer.alloc(10)], 0)).rejects.toMatchObject({ code: 'ENOSPC' })
    await full.close()
  })

  it.runIf(mayMount())(
    'makes no room beforehand, and rejects a write that comes too late; the next one works',
    async () => {
      const disk = smallDisk(8 * mib)
      const { observer, failures } = recordingObserver()
      const stores = await opened({ dataDir: join(disk, 'data'), maxBytes: 1024 * mib, observer })
      const kept = await publish(stores, content('kept', mib))
      expect(await stores.spool.create(20 * mib)).toBeUndefined()
      expect(await stores.blobs.size(kept)).toBe(mib)

      const file = await stores.spool.create(4 * mib)
      if (file === undefined) throw new Error('there is room for that')
      await file.write([content('first', mib)], 0)
      // What is promised to one is not promised to another.
      expect(await stores.spool.create(6 * mib)).toBeUndefined()
      const others = join(disk, 'others')
      const { bavail, bsize } = statfsSync(disk)
      writeFileSync(others, Buffer.alloc(bavail * bsize))
      await expect(file.write([content('rest', 3 * mib)], mib)).rejects.toMatchObject({ code: 'ENOSPC' })
      expect((await readAll(file)).subarray(0, mib).equals(content('first', mib))).toBe(true)
      await file.discard()
      await file.close()

      rmSync(others)
      const next = await publish(stores, content('next', 4 * mib))
      expect(await readBlob(stores.blobs, next)).toHaveLength(4 * mib)
      expect(blobFiles(stores.dataDir).every(found => found.whole)).toBe(true)
      expect(failures).toEqual([])
    },
  )

  it.runIf(mayMount())('evicts for the disk where that helps', async () => {
    const disk = smallDisk(8 * mib)
    const stores = await opened({ dataDir: join(disk, 'data'), maxBytes: 1024 * mib })
    for (let n = 0; n < 5; n++) await publish(stores, content(n, mib))
    const file = await stores.spool.create(4 * mib)
    expect(file).toBeDefined()
    await file?.write([content('big', 4 * mib)], 0)
    expect(stores.usage().blobs).toBeLessThan(5)
    await file?.close()
  })
})
