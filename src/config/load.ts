import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type * as z from 'zod'
import { builtinUpstreams } from './builtin.ts'
import { checkTogether, credentialKeys, type Report, upstreamTrees } from './checks.ts'
import type { Config, CredentialsConfig, UpstreamConfig } from './config.ts'
import { configVariable, type Environment, readEnvironmentLayer } from './environment.ts'
import { readFileLayer } from './file.ts'
import { keysUnder } from './keys.ts'
import { ConfigError, type Problem, shownValue, withoutUserinfo } from './problem.ts'
import { readPricing } from './pricing.ts'
import { readDistributed } from './read-distributed.ts'
import { readTracing } from './read-tracing.ts'
import { type ServerInput, serverSchema, type UpstreamInput, upstreamSchema } from './schema.ts'
import { describeSystemError, readCa, readCredentials, readDockerConfig, type Surroundings } from './secrets.ts'
import { describeOrigin, describePath, isTree, type Origin, type Path, Settings, type Tree } from './settings.ts'
import { nearest } from './suggestion.ts'

/** The settings that have a flag of `layover serve`, as text from the command line. */
export type Flags = {
  readonly listen?: string | undefined
  readonly admin?: string | undefined
  readonly dataDir?: string | undefined
  readonly maxBytes?: string | undefined
  readonly prefetch?: string | undefined
  readonly offline?: boolean | undefined
  readonly logLevel?: string | undefined
}

export type ConfigInput = {
  /** `--config`; undefined: LAYOVER_CONFIG, else `layover.yaml` in the current directory if there is one. */
  readonly file?: string | undefined
  readonly env?: Environment
  readonly flags?: Flags
  /** Gives the text of a file, throws the system's error (ENOENT, …). Default: the real file system. */
  readonly readFile?: (path: string) => string
  /** What relative paths of flags and variables start from. Default: the current directory. */
  readonly cwd?: string
}

export type LoadedConfig = {
  readonly config: Config
  /** What was written, and where. */
  readonly settings: Settings
  /** The file that was read, as it was named; undefined: none. */
  readonly file: string | undefined
}

export const defaultFile = 'layover.yaml'

/**
 * The effective configuration: flags over environment over file over defaults, frozen.
 * Throws {@link ConfigError} with every problem that was found.
 */
export function loadConfig(input: ConfigInput = {}): Config {
  return readConfig(input).config
}

/** Like {@link loadConfig}, with where every value came from. */
export function readConfig(input: ConfigInput = {}): LoadedConfig {
  const cwd = input.cwd ?? process.cwd()
  const readFile = input.readFile ?? ((path: string) => readFileSync(path, 'utf8'))
  const environment = input.env ?? {}
  const settings = new Settings()
  writeBuiltins(settings)

  const { file, problems } = readFileOf({ input, environment, cwd, readFile, settings })
  // Without a readable file every later complaint would be a guess.
  if (problems.length > 0) throw new ConfigError(problems)
  problems.push(...readEnvironmentLayer(environment, settings))
  writeFlags(input.flags ?? {}, settings)
  yieldToWritten(settings)

  const report = reporter(settings, problems)
  const resolvePath = (at: Path, written: string): string => {
    const origin = settings.originOf(at)
    return resolve(origin?.kind === 'file' ? dirname(resolve(cwd, origin.file)) : cwd, written)
  }
  const config = validate(settings, { environment, readFile, resolvePath, report })
  if (config === undefined || problems.length > 0) throw new ConfigError(inReadingOrder(problems))
  return { config, settings, file }
}

function writeBuiltins(settings: Settings): void {
  for (const [name, upstream] of Object.entries(builtinUpstreams)) {
    settings.open(['upstreams', name])
    for (const [key, value] of Object.entries(upstream)) settings.set(['upstreams', name, key], value)
  }
}

function readFileOf(from: {
  input: ConfigInput
  environment: Environment
  cwd: string
  readFile: (path: string) => string
  settings: Settings
}): { file: string | undefined; problems: Problem[] } {
  const variable = from.environment[configVariable] || undefined
  const asked = from.input.file ?? variable
  const file = asked ?? defaultFile
  try {
    const text = from.readFile(resolve(from.cwd, file))
    return { file, problems: [...readFileLayer(file, text, from.settings)] }
  } catch (error) {
    if (asked === undefined && isMissing(error)) return { file: undefined, problems: [] }
    const where = from.input.file === undefined && variable !== undefined ? `${configVariable}: ${file}` : file
    return { file, problems: [{ where, message: `cannot read the configuration: ${describeSystemError(error)}` }] }
  }
}

const isMissing = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'ENOENT'

const flagPaths: Readonly<Record<keyof Flags, { readonly path: Path; readonly name: string }>> = {
  listen: { path: ['listen'], name: '--listen' },
  admin: { path: ['admin'], name: '--admin' },
  dataDir: { path: ['dataDir'], name: '--data-dir' },
  maxBytes: { path: ['storage', 'maxBytes'], name: '--max-bytes' },
  prefetch: { path: ['prefetch'], name: '--prefetch' },
  offline: { path: ['offline'], name: '--offline' },
  logLevel: { path: ['log', 'level'], name: '--log-level' },
}

function writeFlags(flags: Flags, settings: Settings): void {
  for (const [flag, { path, name }] of Object.entries(flagPaths)) {
    const value = flags[flag as keyof Flags]
    if (value !== undefined) settings.set(path, value, { kind: 'flag', name })
  }
}

/** What is built in gives way to what is written, and a password of a lower layer to one of a higher layer. */
function yieldToWritten(settings: Settings): void {
  const upstreams = settings.get(['upstreams'])
  if (!isTree(upstreams)) return
  const names = Object.keys(upstreams)
  const written = (name: string): Origin | undefined => settings.originOf(['upstreams', name, 'default'])
  const chosen = names.some(
    name => settings.get(['upstreams', name, 'default']) === true && written(name) !== undefined,
  )
  for (const name of names) {
    if (chosen && written(name) === undefined) settings.delete(['upstreams', name, 'default'])
    const present = credentialKeys.filter(key => settings.get(['upstreams', name, key]) !== undefined)
    const fromEnvironment = present.filter(key => settings.originOf(['upstreams', name, key])?.kind === 'environment')
    for (const key of fromEnvironment.length > 0 ? present : [])
      if (!fromEnvironment.includes(key)) settings.delete(['upstreams', name, key])
  }
}

function reporter(settings: Settings, problems: Problem[]): Report {
  return (path, message, options) => {
    const origin = options?.key === true ? settings.keyOrigin(path) : settings.nearestOrigin(path)
    const name = withoutUserinfo(describePath(path))
    // A variable or a flag is its own name: LAYOVER_LISTEN: expected …
    const text = origin === undefined || origin.kind === 'file' ? `${name}: ${message}` : message
    problems.push({ where: origin === undefined ? 'defaults' : describeOrigin(origin), message: text })
  }
}

function validate(settings: Settings, surroundings: Surroundings): Config | undefined {
  const { report } = surroundings
  const trees = upstreamTrees(settings, report)
  const { upstreams: _, ...serverTree } = settings.tree
  const server = parse(serverSchema, serverTree, [], report)
  const parsed = [...trees].map(([name, tree]) => ({
    name,
    input: parse(upstreamSchema, tree, ['upstreams', name], report),
  }))
  checkTogether(settings, trees, report)

  const shared = readDockerConfig(surroundings, ['dockerConfig'], server?.dockerConfig)
  const upstreams = parsed.flatMap(({ name, input }) =>
    input === undefined ? [] : [toUpstream({ name, input, shared, surroundings })],
  )
  if (server === undefined) return undefined
  const dataDir = surroundings.resolvePath(['dataDir'], server.dataDir)
  const tracing = readTracing(server.tracing, surroundings.environment)
  const pricing = server.pricing && readPricing(server.pricing, [...trees.keys()], report)
  return freeze({
    ...toConfig(server, dataDir, upstreams),
    ...readDistributed(surroundings, server),
    ...(tracing && { tracing }),
    ...(pricing && { pricing }),
  })
}

function parse<T extends z.ZodType>(schema: T, tree: Tree, at: Path, report: Report): z.output<T> | undefined {
  const result = schema.safeParse(tree)
  if (result.success) return result.data
  for (const issue of result.error.issues) reportIssue(issue, at, tree, report)
  return undefined
}

function reportIssue(issue: z.core.$ZodIssue, at: Path, tree: Tree, report: Report): void {
  const path = [...at, ...issue.path.map(String)]
  if (issue.code === 'unrecognized_keys') {
    const candidates = keysUnder(path)
    for (const key of issue.keys) report([...path, key], unknownKey(key, candidates), { key: true })
  } else if (issue.code === 'invalid_type') {
    const value = issue.path.reduce<unknown>((inner, part) => (isTree(inner) ? inner[String(part)] : undefined), tree)
    report(path, `expected a mapping with ${keysUnder(path).join(', ')}, got ${shownValue(value)}`)
  } else report(path, issue.message)
}

function unknownKey(key: string, candidates: readonly string[]): string {
  const near = nearest(key, candidates)
  return near === undefined
    ? `no such setting: possible here are ${candidates.join(', ')}`
    : `no such setting, did you mean ${near}?`
}

function toUpstream(from: {
  name: string
  input: UpstreamInput
  shared: CredentialsConfig | undefined
  surroundings: Surroundings
}): UpstreamConfig {
  const { name, input, shared, surroundings } = from
  const at = ['upstreams', name]
  return {
    name,
    aliases: input.aliases,
    url: input.url ?? `https://${name}`,
    mirrors: input.mirrors,
    default: input.default,
    credentials: readCredentials(surroundings, at, input) ?? shared,
    ca: readCa(surroundings, [...at, 'ca'], input.ca),
    insecure: input.insecure,
    proxy: input.proxy,
    realmHosts: input.realmHosts,
    redirectHosts: input.redirectHosts,
    maxConnections: input.maxConnections,
    connectTimeoutMs: input.timeouts.connect,
    headersTimeoutMs: input.timeouts.headers,
    idleTimeoutMs: input.timeouts.idle,
    tagTtlMs: input.tagTtl,
    maxStaleMs: input.maxStale,
    whenGone: input.whenGone,
  }
}

function toConfig(server: ServerInput, dataDir: string, upstreams: readonly UpstreamConfig[]): Config {
  const { fills, clients, log } = server
  return {
    listen: server.listen,
    admin: server.admin,
    dataDir,
    storage: { maxBytes: server.storage.maxBytes },
    upstreams,
    prefetch: server.prefetch,
    offline: server.offline,
    fills: {
      finishWithinBytes: fills.finishWithin,
      finishFromShare: fills.finishFrom,
      abandonMs: fills.abandon,
      nearBytes: fills.near,
      maxSideReads: fills.sideReads,
      maxAttempts: fills.attempts,
      earlyRanges: fills.earlyRanges,
    },
    clients: {
      maxConnections: clients.maxConnections,
      maxConnectionsPerAddress: clients.maxConnectionsPerAddress ?? Math.ceil(clients.maxConnections / 2),
      stallMs: clients.stall,
    },
    rights: { maxAgeMs: server.rights.maxAge },
    drainMs: server.drain,
    log: { level: log.level, access: log.access },
  }
}

function freeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  for (const inner of Object.values(value)) freeze(inner)
  return Object.freeze(value)
}

/** Lines of the file from top to bottom, then variables, then flags. */
function inReadingOrder(problems: readonly Problem[]): Problem[] {
  const place = ({ where }: Problem): number => {
    const [, line, column] = /:(\d+):(\d+)$/.exec(where) ?? []
    return line === undefined ? Number.MAX_SAFE_INTEGER : Number(line) * 100_000 + Number(column)
  }
  return problems
    .map((problem, index) => ({ problem, index }))
    .sort((a, b) => place(a.problem) - place(b.problem) || a.index - b.index)
    .map(({ problem }) => problem)
}
