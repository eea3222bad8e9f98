import { existsSync, readdirSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { scratch } from './process.ts'

/** The wall clock of one process, in the test's hands; its monotonic clock goes on as ever (F-42). Debian's libfaketime between the process and the system. */
export type WallClock = {
  /** For the process whose clock it is. */
  readonly env: Readonly<Record<string, string>>
  /** From now on it is off by so many days; 0: right again. */
  jump(days: number): Promise<void>
  remove(): Promise<void>
}

export async function startWallClock(): Promise<WallClock> {
  const directory = await scratch('clock')
  const file = join(directory.path, 'offset')
  const jump = async (days: number): Promise<void> => {
    // In one step: half a file is another time.
    await writeFile(`${file}.new`, `${days < 0 ? '' : '+'}${days}d\n`)
    await rename(`${file}.new`, file)
  }
  await jump(0)
  const env = {
    LD_PRELOAD: library(),
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  }
  return { env, jump, remove: () => directory.remove() }
}

function library(): string {
  const places = readdirSync('/usr/lib').map(name => join('/usr/lib', name, 'faketime/libfaketimeMT.so.1'))
  const found = places.find(path => existsSync(path))
  if (found === undefined) throw new Error('libfaketime is missing: apt-get install faketime')
  return found
}
