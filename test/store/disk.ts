import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { temporaryDirectory } from './opened.ts'

/** Writes to a new file until the disk takes nothing any more. */
export function fill(path: string): void {
  const file = openSync(path, 'wx')
  try {
    for (let size = 1024 * 1024; size >= 1; )
      try {
        writeSync(file, Buffer.alloc(size))
      } catch {
        size /= 16
      }
  } finally {
    closeSync(file)
  }
}

/** A file system of its own, so small that it can be filled. */
export function smallDisk(bytes: number): string {
  const path = join(temporaryDirectory(), 'disk')
  mkdirSync(path)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path])
  onTestFinished(() => void execFileSync('umount', ['-l', path]))
  return path
}

export function mayMount(): boolean {
  return process.getuid?.() === 0 && process.platform === 'linux'
}
