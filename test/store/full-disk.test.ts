import { cpSync, existsSync, rmSync, statfsSync, truncateSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { dataDirectory } from '../../src/store/data-directory.ts'
import { makeRoomAtStart, meansNoRoom, noRoomOn } from '../../src/store/room-at-start.ts'
import { fill, mayMount, smallDisk } from './disk.ts'
import { blobFiles, content, opened, publish, readBlob, recordingObserver, temporaryDirectory } from './opened.ts'

const kib = 1024
const mib = 1024 * kib
const full = Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })

/** Four blobs of 1 MiB, the first of them used last. */
async function fourBlobs(dataDir: string) {
  const stores = await opened({ dataDir, maxBytes: 1024 * mib })
  const digests = [
    await publish(stores, content('a', mib)),
    await publish(stores, content('b', mib)),
    await publish(stores, content('c', mib)),
    await publish(stores, content('d', mib)),
  ] as const
  await readBlob(stores.blobs, digests[0])
  return { stores, digests }
}

describe('F-34: a start on a full disk', () => {
  it('removes the least recently used first, and no more than needed', async () => {
    const dataDir = temporaryDirectory()
    const { stores, digests } = await fourBlobs(dataDir)
    await stores.close()
    const [, b] = digests
    const made = makeRoomAtStart(dataDirectory(dataDir), () => full)
    expect(made).toEqual({ removed: [b], bytes: mib, lacking: full })
    expect(blobFiles(dataDir)).toHaveLength(3)
  })

  it('removes nothing where there is room', async () => {
    const dataDir = temporaryDirectory()
    const { stores } = await fourBlobs(dataDir)
    await stores.close()
    expect(makeRoomAtStart(dataDirectory(dataDir))).toEqual({ removed: [], bytes: 0, lacking: undefined })
    expect(blobFiles(dataDir)).toHaveLength(4)
  })

  it('removes some file when the index cannot be read', async () => {
    const dataDir = temporaryDirectory()
    const { stores } = await fourBlobs(dataDir)
    await stores.close()
    rmSync(join(dataDir, 'index.sqlite'))
    expect(makeRoomAtStart(dataDirectory(dataDir), () => full).removed).toHaveLength(1)
    expect(blobFiles(dataDir)).toHaveLength(3)
  })

  it('tells a lack of room from other trouble', () => {
    const directory = dataDirectory(temporaryDirectory())
    const sqlite = (errcode: number): Error => Object.assign(new Error('x'), { code: 'ERR_SQLITE_ERROR', errcode })
    expect([full, sqlite(13)].map(error => meansNoRoom(error, directory))).toEqual([true, true])
    // SQLITE_IOERR_SHMSIZE with room left is a disk that fails.
    expect([new Error('x'), sqlite(4874), 'x'].map(error => meansNoRoom(error, directory))).toEqual([
      false,
      false,
      false,
    ])
    expect(noRoomOn(directory, full).message).toMatch(
      /^no room on \S+: \d+ bytes are free\. Free space .*storage\.maxBytes/,
    )
  })

  it.runIf(mayMount())('evicts from the own cache, counts that, and caches on', async () => {
    const disk = smallDisk(8 * mib)
    const dataDir = join(disk, 'data')
    const { stores: before, digests } = await fourBlobs(dataDir)
    await before.close()
    fill(join(disk, 'others'))
    const { observer, evictions, failures } = recordingObserver()
    const stores = await opened({ dataDir, maxBytes: 1024 * mib, observer })
    const sizes = await Promise.all(digests.map(digest => stores.blobs.size(digest)))
    expect(sizes).toEqual([mib, undefined, mib, mib])
    expect(stores.usage()).toMatchObject({ blobs: 3, blobBytes: 3 * mib })
    expect([evictions, failures]).toEqual([[{ blobs: 1, bytes: mib }], []])
    await publish(stores, content('next', 2 * mib))
    expect(blobFiles(dataDir).every(found => found.whole)).toBe(true)
  })

  it.runIf(mayMount())(
    'evicts also when the process before was killed and everything is in the log of its index',
    async () => {
      const disk = smallDisk(8 * mib)
      const dataDir = join(disk, 'data')
      const { stores: killed } = await fourBlobs(temporaryDirectory())
      cpSync(killed.dataDir, dataDir, { recursive: true, filter: path => !/(-shm|lock)$/.test(path) })
      expect(existsSync(join(dataDir, 'index.sqlite-wal'))).toBe(true)
      fill(join(disk, 'others'))
      const stores = await opened({ dataDir, maxBytes: 1024 * mib })
      await stores.settled()
      expect(stores.usage().blobs).toBe(3)
      expect(stores.usage().blobBytes).toBe(3 * mib)
    },
  )

  it.runIf(mayMount())('goes on without keeping anything when the space is taken by others, and says so', async () => {
    const disk = smallDisk(8 * mib)
    const dataDir = join(disk, 'data')
    await (await opened({ dataDir })).close()
    const others = join(disk, 'others')
    fill(others)
    // Room for the index, and for nothing else.
    truncateSync(others, statSync(others).size - 128 * kib)
    const { observer, failures } = recordingObserver()
    const stores = await opened({ dataDir, observer })
    expect(failures).toEqual([
      {
        operation: 'start',
        error: expect.objectContaining({ message: expect.stringContaining(`no room on ${dataDir}: `) }),
      },
    ])
    expect(await stores.spool.create(mib)).toBeUndefined()
    rmSync(others)
    await publish(stores, content('room again', mib))
  })

  it.runIf(mayMount())(
    'names the directory, what is free and the way out when there is no room for the index',
    async () => {
      const disk = smallDisk(8 * mib)
      const dataDir = join(disk, 'data')
      await (await opened({ dataDir })).close()
      fill(join(disk, 'others'))
      expect(statfsSync(disk).bavail).toBe(0)
      const starting = opened({ dataDir })
      await expect(starting).rejects.toThrow(`no room on ${dataDir}: 0 bytes are free. Free space`)
      await expect(starting).rejects.not.toThrow('write access')
      rmSync(join(disk, 'others'))
      await opened({ dataDir })
    },
  )
})
