import { randomUUID } from 'node:crypto'
import { readdir, rm, rmdir, stat, statfs, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Config } from '../../config/config.ts'
import { describeSystemError } from '../../config/secrets.ts'
import { formatSize } from '../../config/size.ts'
import type { Check, CheckContext } from './check.ts'
import { makeDirectory } from '../../store/make-directory.ts'

/** Whether blobs can rest there: writable, large enough for the budget, on a kind of file system that keeps them. */
export function dataDirectoryCheck(config: Config): Check {
  return { name: 'data directory', run: context => examine(context, config) }
}

async function examine(context: CheckContext, config: Config): Promise<void> {
  const { dataDir } = config
  context.step(`writing to ${dataDir}`)
  let created: string | undefined
  try {
    created = makeDirectory(dataDir, 0o750)[0]
    await writeProbe(dataDir)
  } catch (error) {
    await removeEmpty(dataDir, created)
    context.fail(
      `cannot write to ${dataDir}: ${describeSystemError(error)}`,
      'make it writable for this user, or choose another with --data-dir or LAYOVER_DATA_DIR',
    )
    return
  }
  try {
    await examineFileSystem(context, config)
  } finally {
    await removeEmpty(dataDir, created)
  }
}

/** Writing a file is the only proof: mode bits say nothing about read-only mounts and quotas. */
async function writeProbe(directory: string): Promise<void> {
  const probe = join(directory, `.probe-${randomUUID()}`)
  await writeFile(probe, 'layover')
  await rm(probe)
}

/** Takes away the directories that this check made, from the leaf up to the first one made; what is not empty stays. */
async function removeEmpty(leaf: string, first: string | undefined): Promise<void> {
  if (first === undefined) return
  for (let path = leaf; path.length >= first.length; path = dirname(path)) {
    try {
      await rmdir(path)
    } catch {
      return
    }
  }
}

async function examineFileSystem(context: CheckContext, config: Config): Promise<void> {
  const { dataDir } = config
  const { type, bsize, bavail, blocks } = await statfs(dataDir)
  const kind = kinds.get(type >>> 0)
  const name = kind?.name ?? `file system 0x${(type >>> 0).toString(16)}`
  const [key, budget] = budgetOf(config)
  const free = bavail * bsize
  const size = blocks * bsize
  const where = `${dataDir}: writable, ${name}, ${formatSize(free)} free`
  context.step(`adding up what lies in ${dataDir}`)
  // What is stored already counts towards the budget; that is only of interest where the free space alone is not enough.
  const room = free >= budget ? free : free + (await bytesIn(dataDir, context.signal))
  if (size < budget)
    context.fail(
      `${where}, ${formatSize(size)} in all for a budget of ${formatSize(budget)}`,
      `lower ${key} to what the file system holds, less a tenth, or use a larger one`,
    )
  else if (room < budget)
    context.warn(
      `${where} for a budget of ${formatSize(budget)}`,
      `free ${formatSize(budget - room)}, or lower ${key}: a full disk costs hits`,
    )
  else context.ok(`${where} for a budget of ${formatSize(budget)}`)
  if (kind?.problem !== undefined) context.warn(`${dataDir} is on ${name}: ${kind.problem}`, kindAdvice)
}

function budgetOf({ storage, s3, hotTier }: Config): readonly [key: string, bytes: number] {
  const isTier = s3 !== undefined && hotTier !== undefined && hotTier.maxBytes > 0
  return isTier ? ['hotTier.maxBytes', hotTier.maxBytes] : ['storage.maxBytes', storage.maxBytes]
}

async function bytesIn(directory: string, signal: AbortSignal): Promise<number> {
  let bytes = 0
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    signal.throwIfAborted()
    if (!entry.isFile()) continue
    // Evicted meanwhile: no longer there, no longer counted.
    const found = await stat(join(entry.parentPath, entry.name)).catch(() => undefined)
    bytes += (found?.blocks ?? 0) * 512
  }
  return bytes
}

const kindAdvice = 'a local disk or volume of its own (ext4, xfs) is what it is made for'
const inMemory = 'it is memory, and gone after a restart of the machine'
const network = 'a network file system is slow here, and its locks are not always what SQLite needs'

type Kind = { readonly name: string; readonly problem?: string }

/** Magic numbers of statfs(2). https://man7.org/linux/man-pages/man2/statfs.2.html */
const kinds: ReadonlyMap<number, Kind> = new Map([
  [0xef53, { name: 'ext4' }],
  [0x58465342, { name: 'xfs' }],
  [0x9123683e, { name: 'btrfs' }],
  [0x2fc12fc1, { name: 'zfs' }],
  [0xf2f52010, { name: 'f2fs' }],
  [0x01021994, { name: 'tmpfs', problem: inMemory }],
  [0x858458f6, { name: 'ramfs', problem: inMemory }],
  [0x794c7630, { name: 'overlay', problem: "it is the container's own layer, and gone with the container" }],
  [0x6969, { name: 'nfs', problem: network }],
  [0xff534d42, { name: 'cifs', problem: network }],
  [0xfe534d42, { name: 'smb', problem: network }],
  [0x00c36400, { name: 'ceph', problem: network }],
  [0x65735546, { name: 'fuse', problem: 'programs behind FUSE often promise less than a disk does' }],
])
