import { randomUUID } from 'node:crypto'
import { readdirSync, rmSync, statfsSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import { isDigest, type Digest } from '../oci/digest.ts'
import { blobPath, marginOf, type DataDirectory } from './data-directory.ts'
import { codeOf } from './system-error.ts'

/** What a start needs before the index can evict by itself: its shared memory, a few pages of its log, a directory. */
export const neededBytes = 256 * 1024

export type RoomMade = {
  /** Blobs whose files were removed. Their rows, where they have any, are still there. */
  readonly removed: readonly Digest[]
  readonly bytes: number
  /** Why there is still no room, although nothing else of this directory can go. */
  readonly lacking: Error | undefined
}

/**
 * Removes the least recently used blobs when the disk takes nothing any more, until the margin is free again (F-34). For a start, whose
 * index cannot be opened without room: it is only read here. Call it while nobody else has the directory.
 */
export function makeRoomAtStart(
  directory: DataDirectory,
  whyNoRoom: (directory: DataDirectory) => Error | undefined = tryToWrite,
): RoomMade {
  if (whyNoRoom(directory) === undefined) return { removed: [], bytes: 0, lacking: undefined }
  const wanted = Math.max(neededBytes, missingBytes(directory))
  const removed: Digest[] = []
  let bytes = 0
  for (const digest of candidates(directory)) {
    if (bytes >= wanted) break
    const freed = removeFile(directory, digest)
    if (freed === undefined) continue
    removed.push(digest)
    bytes += freed
  }
  return { removed, bytes, lacking: whyNoRoom(directory) }
}

/** Said when a start cannot go on without room: names the directory, what is free and the way out. */
export function noRoomOn({ root }: DataDirectory, cause: unknown): Error {
  const free = freeBytes(root)
  return new Error(
    `no room on ${root}: ${free === undefined ? 'the system does not say how many' : free} bytes are free. ` +
      'Free space on that file system, or let the cache take less of it (a smaller storage.maxBytes, LAYOVER_MAX_BYTES)',
    { cause },
  )
}

/** Whether an error of the system or of SQLite means that the disk is full: SQLite does not always say so. */
export function meansNoRoom(error: unknown, { root }: DataDirectory): boolean {
  const code = codeOf(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') return true
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number') return false
  const primary = error.errcode & 0xff
  // 13: SQLITE_FULL. 10 and 14: SQLITE_IOERR and SQLITE_CANTOPEN, as for shared memory that cannot grow.
  if (primary === 13) return true
  return (primary === 10 || primary === 14) && (freeBytes(root) ?? neededBytes) < neededBytes
}

function tryToWrite(directory: DataDirectory): Error | undefined {
  const probe = join(directory.root, `.probe-${randomUUID()}`)
  try {
    writeFileSync(probe, Buffer.alloc(neededBytes))
    return undefined
  } catch (error) {
    if (error instanceof Error && meansNoRoom(error, directory)) return error
    throw error
  } finally {
    rmSync(probe, { force: true })
  }
}

function missingBytes({ root }: DataDirectory): number {
  const found = statfsSync(root)
  return marginOf(found) - found.bavail * found.bsize
}

function freeBytes(root: string): number | undefined {
  try {
    const { bavail, bsize } = statfsSync(root)
    return bavail * bsize
  } catch {
    return undefined
  }
}

/** Least recently used first; when the index cannot be read, or knows of nothing, whatever file is there. */
function* candidates(directory: DataDirectory): Iterable<Digest> {
  // `immutable` needs no shared memory, and sees what the last checkpoint saw.
  for (const query of ['', '?immutable=1'])
    try {
      yield* leastRecentlyUsed(new URL(`${pathToFileURL(directory.index).href}${query}`))
    } catch {
      // The next way may do.
    }
  yield* files(directory)
}

function* leastRecentlyUsed(index: URL): Iterable<Digest> {
  const connection = new DatabaseSync(index, { readOnly: true })
  try {
    const rows = connection.prepare("SELECT digest FROM blobs WHERE state = 'present' ORDER BY last_used, id").iterate()
    for (const { digest } of rows) if (typeof digest === 'string' && isDigest(digest)) yield digest
  } finally {
    connection.close()
  }
}

function* files(directory: DataDirectory): Iterable<Digest> {
  for (const algorithm of ['sha256', 'sha512'] as const)
    for (const shard of namesIn(join(directory.blobs, algorithm)))
      for (const hex of namesIn(join(directory.blobs, algorithm, shard))) {
        const digest = `${algorithm}:${hex}`
        if (isDigest(digest) && hex.startsWith(shard)) yield digest
      }
}

function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

/** Gives the bytes that the file had on disk; undefined when it was not there or cannot be removed. */
function removeFile(directory: DataDirectory, digest: Digest): number | undefined {
  try {
    const path = blobPath(directory, digest)
    const { size } = statSync(path)
    unlinkSync(path)
    return size
  } catch {
    return undefined
  }
}
