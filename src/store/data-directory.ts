import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { open, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { algorithmOf, hexOf, type Digest } from '../oci/digest.ts'
import { makeDirectory } from './make-directory.ts'
import { codeOf } from './system-error.ts'

const mode = 0o750
const mebibyte = 1024 * 1024

/** Where everything lies under `dataDir`. Paths are made from validated digests and random names only (T-25). */
export type DataDirectory = {
  readonly root: string
  readonly blobs: string
  readonly spool: string
  readonly index: string
}

export function dataDirectory(root: string): DataDirectory {
  return { root, blobs: join(root, 'blobs'), spool: join(root, 'spool'), index: join(root, 'index.sqlite') }
}

/** `blobs/sha256/ab/abcd…`: 256 directories per algorithm keep each of them small. */
export function blobPath(directory: DataDirectory, digest: Digest): string {
  const hex = hexOf(digest)
  return join(directory.blobs, algorithmOf(digest), hex.slice(0, 2), hex)
}

/**
 * Creates `dataDir` where it is missing and takes it for this process. Gives the function that lets go of it; the system does that
 * too when the process dies. `makeRoom` is called as soon as it is taken and the spool of the process before is gone.
 * Throws an error that names the directory and the way out (F-35), also when another process has it. A full disk is no such error
 * while `makeRoom` can help; without its help the system's error comes as it is (F-34).
 */
export function claimDataDirectory(directory: DataDirectory, makeRoom: () => void): () => void {
  const full = probeDirectory(directory)
  const release = lockOr(directory, full)
  try {
    rmSync(directory.spool, { recursive: true, force: true })
    makeRoom()
    makeDirectory(directory.blobs, mode)
    makeDirectory(directory.spool, mode)
  } catch (cause) {
    release()
    throw isFull(cause) ? cause : notWritable(directory.root, cause)
  }
  return release
}

/** Gives the error when all that is wrong is that there is no room. */
function probeDirectory(directory: DataDirectory): unknown {
  const probe = join(directory.root, `.probe-${randomUUID()}`)
  try {
    makeDirectory(directory.blobs, mode)
    writeFileSync(probe, 'x')
    rmSync(probe)
    return undefined
  } catch (cause) {
    if (!isFull(cause)) throw notWritable(directory.root, cause)
    rmSync(probe, { force: true })
    return cause
  }
}

function lockOr(directory: DataDirectory, full: unknown): () => void {
  try {
    return lockDataDirectory(directory)
  } catch (error) {
    // Who has the directory matters more; a lock that could not even be created is for lack of room.
    throw full === undefined || existsSync(join(directory.root, 'lock')) ? error : full
  }
}

function isFull(error: unknown): boolean {
  return codeOf(error) === 'ENOSPC' || codeOf(error) === 'EDQUOT'
}

/** Creates the directories again after someone removed them at run time. Rejects with the system's error. */
export async function restoreDirectory(path: string): Promise<void> {
  // A directory entry is only safe from power loss once the directory that holds it was synced.
  for (const created of makeDirectory(path, mode)) await syncDirectory(dirname(created))
}

export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Bytes that may still be written here before the disk is down to its margin; undefined where the system does not say. */
export async function writableBytes(directory: DataDirectory): Promise<number | undefined> {
  try {
    const found = await statfs(directory.root)
    return found.blocks === 0 ? undefined : Math.max(0, Math.floor(found.bavail * found.bsize - marginOf(found)))
  } catch {
    return undefined
  }
}

/** Bytes that are left free for the index and its log: 64 MiB, or a hundredth of a small disk. */
export function marginOf({ blocks, bsize }: { readonly blocks: number; readonly bsize: number }): number {
  return Math.min(64 * mebibyte, (blocks * bsize) / 100)
}

/** Removes indexes that were moved aside, all but the newest: it is kept for whoever wants to know what happened. */
export function forgetOldIndexes(directory: DataDirectory, failed: (error: unknown) => void): void {
  const aside = /^index\.sqlite\.corrupt-(\d+)(-wal)?$/
  try {
    const found = readdirSync(directory.root).flatMap(name => {
      const time = aside.exec(name)?.[1]
      return time === undefined ? [] : [{ name, time: Number(time) }]
    })
    const newest = Math.max(...found.map(({ time }) => time))
    for (const { name, time } of found) if (time < newest) rmSync(join(directory.root, name), { force: true })
  } catch (error) {
    failed(error)
  }
}

export function indexIsGone(directory: DataDirectory): boolean {
  return !existsSync(directory.index)
}

/**
 * Keeps other processes out until the function it gives is called (safe to repeat). Throws when another one is in.
 * It is SQLite's file lock: the system drops it when the process dies, so no stale lock file can keep a restart out.
 */
export function lockDataDirectory(directory: DataDirectory): () => void {
  const path = join(directory.root, 'lock')
  let held: DatabaseSync | undefined
  try {
    held = new DatabaseSync(path, { timeout: 0 })
    // Without a journal on disk: locking writes nothing then, so a full disk can be locked.
    held.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
    const release = held
    return () => {
      if (release.isOpen) release.close()
    }
  } catch (cause) {
    held?.close()
    throw lockFailure(directory.root, path, cause)
  }
}

function lockFailure(root: string, path: string, cause: unknown): Error {
  // 5: SQLITE_BUSY
  if (cause instanceof Error && 'errcode' in cause && cause.errcode === 5)
    return new Error(
      `dataDir ${root} is in use by another Layover: stop that one, or give this one a directory of its own (dataDir, LAYOVER_DATA_DIR)`,
      { cause },
    )
  return new Error(`dataDir ${root} cannot be locked: see that ${path} is an empty file that this user may write`, {
    cause,
  })
}

function notWritable(root: string, cause: unknown): Error {
  const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : 'failed'
  return new Error(
    `dataDir ${root} cannot be written (${reason}): give the user that runs Layover write access to it, ` +
      'or name another directory (dataDir, LAYOVER_DATA_DIR)',
    { cause },
  )
}
