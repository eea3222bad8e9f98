import {
  chmodSync,
  closeSync,
  fsyncSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { makeDirectory } from '../../store/make-directory.ts'

/** A file that shall be there. `path` starts at the root: `docker.io/hosts.toml` or `50-layover.conf`. */
export type WantedFile = { readonly path: string; readonly text: string }

/** What has to be done about one file. `refuse`: something else is in its place, and `why` says what. */
export type Step =
  | { readonly kind: 'write'; readonly path: string; readonly text: string; readonly intoNewDirectory: boolean }
  | { readonly kind: 'keep'; readonly path: string }
  | { readonly kind: 'remove'; readonly path: string; readonly withDirectory: boolean }
  | { readonly kind: 'refuse'; readonly path: string; readonly why: string }

/** The first line of a file of ours. TOML, like all that is written here. */
const marker =
  '# Written by "layover node install"; "layover node uninstall" removes it. Without this line it is left alone.'
/** The second line, where the directory was not there before. */
const ownDirectory = '# Its directory was made for it.'
/** What is written or removed passes through a directory of this name in the root, so that a name holds a whole file or none. */
const stagePrefix = '.layover-'

/** The steps from what is under `root` to the wanted files, and to no others of ours. Reads only. */
export function stepsTo(root: string, wanted: readonly WantedFile[]): Step[] {
  const left = ownPaths(root).filter(path => !wanted.some(each => each.path === path))
  return [...left.map(path => removal(root, path)), ...wanted.map(file => stepTo(root, file))]
}

/** The steps that leave nothing of ours under `root`. Reads only. */
export const stepsBack = (root: string): Step[] => stepsTo(root, [])

/** Names under `root` that a registry may have besides ours: each is a directory with settings that win over `_default`. */
export function otherDirectories(root: string): string[] {
  const ours = new Set(ownPaths(root).map(path => dirname(path)))
  return entriesOf(root)
    .filter(entry => !entry.isFile() && !entry.name.startsWith('.') && entry.name !== '_default')
    .map(({ name }) => name)
    .filter(name => !ours.has(name))
    .sort()
}

/** Does one step. Whoever reads meanwhile sees the old file or the new one; so does who looks after a crash. Throws the system's errors. */
export function carryOut(root: string, step: Step): void {
  if (step.kind === 'write') write(root, step)
  if (step.kind === 'remove') remove(root, step)
}

/** Removes what a killed run left behind under names that no client reads. */
export function sweep(root: string): void {
  for (const { name } of entriesOf(root))
    if (name.startsWith(stagePrefix)) rmSync(join(root, name), { recursive: true, force: true })
}

function stepTo(root: string, { path, text }: WantedFile): Step {
  const found = look(root, path)
  if (found.state === 'foreign') return { kind: 'refuse', path, why: found.why }
  const intoNewDirectory = found.state === 'absent' && !isTopLevel(path) && kindOf(join(root, dirname(path))) === 'none'
  const madeDirectory = intoNewDirectory || (found.state === 'ours' && saysOwnDirectory(found.text))
  const full = [marker, ...(madeDirectory ? [ownDirectory] : []), text].join('\n')
  return found.state === 'ours' && found.text === full
    ? { kind: 'keep', path }
    : { kind: 'write', path, text: full, intoNewDirectory }
}

function removal(root: string, path: string): Step {
  const found = look(root, path)
  return { kind: 'remove', path, withDirectory: found.state === 'ours' && saysOwnDirectory(found.text) }
}

const isTopLevel = (path: string): boolean => dirname(path) === '.'
const saysOwnDirectory = (text: string): boolean => text.startsWith(`${marker}\n${ownDirectory}\n`)

type Found =
  | { readonly state: 'absent' }
  | { readonly state: 'ours'; readonly text: string }
  | { readonly state: 'foreign'; readonly why: string }

function look(root: string, path: string): Found {
  const foreign = (why: string): Found => ({ state: 'foreign', why })
  if (!isTopLevel(path)) {
    const directory = kindOf(join(root, dirname(path)))
    if (directory === 'none') return { state: 'absent' }
    if (directory !== 'directory') return foreign(`${dirname(path)} is no directory`)
  }
  const file = kindOf(join(root, path))
  if (file === 'none') return certificatesBeside(root, path)
  if (file !== 'file') return foreign('it is no regular file')
  const text = readFileSync(join(root, path), 'utf8')
  return text.startsWith(`${marker}\n`) ? { state: 'ours', text } : foreign('layover node install did not write it')
}

/** A client that finds certificates and no hosts.toml uses them; a hosts.toml would take them away from it. */
function certificatesBeside(root: string, path: string): Found {
  const beside = isTopLevel(path) ? [] : entriesOf(join(root, dirname(path)))
  const certificate = beside.find(({ name }) => /\.(crt|cert|key)$/.test(name))
  if (certificate === undefined) return { state: 'absent' }
  return { state: 'foreign', why: `${certificate.name} beside it would no longer be used` }
}

type Kind = 'none' | 'file' | 'directory' | 'other'

function kindOf(path: string): Kind {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return 'none'
  return found.isFile() ? 'file' : found.isDirectory() ? 'directory' : 'other'
}

function entriesOf(directory: string) {
  return kindOf(directory) === 'none' ? [] : readdirSync(directory, { withFileTypes: true })
}

/** Our files: at most one directory deep. */
function ownPaths(root: string): string[] {
  return entriesOf(root)
    .filter(({ name }) => !name.startsWith(stagePrefix))
    .map(entry => (entry.isDirectory() ? `${entry.name}/hosts.toml` : entry.name))
    .filter(path => look(root, path).state === 'ours')
    .sort()
}

function write(root: string, { path, text, intoNewDirectory }: Extract<Step, { kind: 'write' }>): void {
  makeDirectory(root, 0o755)
  const stage = mkdtempSync(join(root, stagePrefix))
  try {
    const staged = join(stage, basename(path))
    // Nothing in it is secret, and rootless clients read it too.
    writeFileSync(staged, text, { flag: 'wx' })
    chmodSync(staged, 0o644)
    sync(staged)
    if (intoNewDirectory) {
      // The directory appears with the file in it: an empty one would already win over _default.
      chmodSync(stage, 0o755)
      sync(stage)
      renameSync(stage, join(root, dirname(path)))
    } else {
      renameSync(staged, join(root, path))
      sync(join(root, dirname(path)))
    }
    sync(root)
  } finally {
    rmSync(stage, { recursive: true, force: true })
  }
}

function remove(root: string, { path, withDirectory }: Extract<Step, { kind: 'remove' }>): void {
  const directory = join(root, dirname(path))
  if (withDirectory && readdirSync(directory).length === 1) removeDirectory(root, directory, basename(path))
  else unlinkSync(join(root, path))
  sync(root)
}

/** Out of sight first: a directory without its file would hide `_default`. */
function removeDirectory(root: string, directory: string, file: string): void {
  const stage = mkdtempSync(join(root, stagePrefix))
  renameSync(directory, stage)
  unlinkSync(join(stage, file))
  try {
    rmdirSync(stage)
  } catch (error) {
    // Somebody put a file there just now. It is not ours.
    renameSync(stage, directory)
    throw error
  }
}

function sync(path: string): void {
  const descriptor = openSync(path, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}
