import { mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { codeOf } from './system-error.ts'

/**
 * Creates `path` and the directories above it that are missing; gives what was created, outermost first. Throws the system's error.
 * Not `mkdir` with `recursive`: that one never returns where the system answers ENOENT for good, as /proc does.
 */
export function makeDirectory(path: string, mode: number): readonly string[] {
  const above: string[] = []
  try {
    if (statSync(path).isDirectory()) return []
  } catch (error) {
    if (codeOf(error) !== 'ENOENT' || dirname(path) === path) throw error
    above.push(...makeDirectory(dirname(path), mode))
  }
  try {
    mkdirSync(path, { mode })
  } catch (error) {
    // Someone else was faster.
    if (codeOf(error) !== 'EEXIST' || !statSync(path).isDirectory()) throw error
  }
  return [...above, path]
}
