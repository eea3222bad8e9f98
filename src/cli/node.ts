import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Config } from '../config/config.ts'
import { parseDuration } from '../config/duration.ts'
import { ConfigError } from '../config/problem.ts'
import { describeError } from '../log/redact.ts'
import { exitCode } from './exit.ts'
import { adviceOn } from './node/containerd-config.ts'
import { hold, listenForStop } from './node/hold.ts'
import { carryOut, otherDirectories, type Step, stepsBack, stepsTo, sweep } from './node/own-files.ts'
import { defaultRootOf, wantedFiles, type WantedOptions } from './node/wanted.ts'
import { type ConfigOptions, readConfigFor, reportConfigError } from './options.ts'
import type { Terminal } from './terminal.ts'

type PlaceOptions = {
  /** Default: the directory that the client reads. */
  readonly root?: string
  readonly dryRun?: boolean
  /** Stay until SIGTERM or SIGINT. */
  readonly hold?: boolean
}

export type NodeInstallOptions = ConfigOptions &
  WantedOptions &
  PlaceOptions & {
    readonly every: string
    /** With `hold`: remove the files at the end. */
    readonly takeBack?: boolean
    readonly containerdConfig: string
  }

export type NodeUninstallOptions = PlaceOptions & { readonly client: string }

/**
 * Writes the mirror configuration of this node. Gives the exit code: 0 all is there, 1 usage, 2 a file could not be written,
 * 3 a file of somebody else is in the place of one and was left alone.
 */
export async function installNode(options: NodeInstallOptions, terminal: Terminal): Promise<number> {
  const stop = options.hold === true && options.dryRun !== true ? listenForStop() : undefined
  try {
    const { config } = readConfigFor(options, terminal)
    const root = rootOf(options, terminal)
    const everyMs = readEvery(options.every)
    const first = await install({ options, config, root }, terminal, () => true)
    if (stop === undefined) return first
    const again = (told: (line: string) => boolean): Promise<number> =>
      install({ options: { ...options, quiet: true }, config, root }, terminal, told)
    await hold({ signal: stop.signal, everyMs, again, terminal })
    return options.takeBack === true ? await uninstallNode({ client: options.client, root }, terminal) : exitCode.ok
  } catch (error) {
    return reportConfigError(error, terminal)
  } finally {
    stop?.release()
  }
}

/** Removes what {@link installNode} wrote under the root, and nothing else. Exit codes: 0, 1 and 2 as there. */
export async function uninstallNode(options: NodeUninstallOptions, terminal: Terminal): Promise<number> {
  const dryRun = options.dryRun === true
  const stop = options.hold === true && !dryRun ? listenForStop() : undefined
  try {
    const root = rootOf(options, terminal)
    const steps = stepsBack(root)
    if (steps.length === 0) terminal.out(`nothing of layover node install is under ${root}\n`)
    if (!dryRun) sweep(root)
    take({ root, steps, dryRun }, terminal)
    if (stop !== undefined)
      await hold({ signal: stop.signal, everyMs: undefined, again: () => Promise.resolve(), terminal })
    return exitCode.ok
  } catch (error) {
    return reportConfigError(error, terminal)
  } finally {
    stop?.release()
  }
}

const rootOf = ({ root, client }: { root?: string; client: string }, { cwd }: Terminal): string =>
  root === undefined ? defaultRootOf(client) : resolve(cwd, root)

function readEvery(text: string): number {
  const ms = parseDuration(text)
  if (ms !== undefined && ms > 0 && ms <= 2 ** 31 - 1) return ms
  throw new ConfigError([{ where: '--every', message: `expected a duration such as 10s, got ${JSON.stringify(text)}` }])
}

type Installation = {
  readonly options: NodeInstallOptions & { readonly quiet?: boolean }
  readonly config: Config
  readonly root: string
}

async function install(
  { options, config, root }: Installation,
  terminal: Terminal,
  told: (line: string) => boolean,
): Promise<number> {
  const { files, notes } = await wantedFiles(options, config)
  const steps = stepsTo(root, files)
  const dryRun = options.dryRun === true
  if (!dryRun && options.quiet !== true) sweep(root)
  const todo = options.quiet === true ? steps.filter(step => step.kind !== 'keep' && toldOnce(step, told)) : steps
  take({ root, steps: todo, dryRun }, terminal)
  if (options.quiet !== true) terminal.out(describeNotes([...lookAround(options, root), ...notes]))
  return steps.some(({ kind }) => kind === 'refuse') ? exitCode.checkFailed : exitCode.ok
}

/** Who stays and looks again says once, not at every look, that a file is somebody else's. */
const toldOnce = (step: Step, told: (line: string) => boolean): boolean =>
  step.kind !== 'refuse' || told(`${step.path}: ${step.why}`)

function take(
  { root, steps, dryRun }: { root: string; steps: readonly Step[]; dryRun: boolean },
  terminal: Terminal,
): void {
  for (const step of steps) {
    if (!dryRun) carryOut(root, step)
    const line = describeStep(step, root, dryRun)
    if (step.kind === 'refuse') terminal.err(line)
    else terminal.out(line)
  }
}

function describeStep(step: Step, root: string, dryRun: boolean): string {
  const path = join(root, step.path)
  if (step.kind === 'refuse') return `left alone ${path}: ${step.why}\n`
  if (step.kind === 'keep') return `unchanged ${path}\n`
  const [did, would] = step.kind === 'write' ? ['wrote', 'would write'] : ['removed', 'would remove']
  const text = dryRun && step.kind === 'write' ? step.text.replaceAll(/^(?=.)/gm, '  ') : ''
  return `${dryRun ? would : did} ${path}\n${text}`
}

const describeNotes = (notes: readonly string[]): string => notes.map(note => `note: ${note}\n`).join('')

/** What lies around that keeps the written files from being used. */
function lookAround(
  { client, upstream, containerdConfig, containerdVersion }: NodeInstallOptions,
  root: string,
): string[] {
  if (client !== 'containerd' && client !== 'docker') return []
  const others = upstream.length > 0 ? [] : otherDirectories(root)
  return [
    ...(client === 'containerd'
      ? [adviceOn({ path: containerdConfig, text: textOf(containerdConfig), root, containerdVersion })]
      : []),
    ...(others.length === 0
      ? []
      : [
          `${others.join(', ')}: has a directory of its own, which wins over _default. It is not pulled through Layover.`,
        ]),
  ]
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    return `# ${describeError(error)}`
  }
}
