import { allKeys, type Key } from './keys.ts'
import { isImageHost } from './address.ts'
import type { Problem } from './problem.ts'
import { isTree, type Path, type Settings } from './settings.ts'
import { nearest } from './suggestion.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** Variables that mean something without being a key of the file. */
export const configVariable = 'LAYOVER_CONFIG'

/**
 * Reads the LAYOVER_ variables into `settings`. An empty variable counts as not set. Gives what is wrong with their names and forms.
 * Values are not quoted in problems of names: what was meant is unknown, it may be a password (T-10).
 */
export function readEnvironmentLayer(environment: Environment, settings: Settings): readonly Problem[] {
  const variables = Object.entries(environment).filter(
    (entry): entry is [string, string] =>
      entry[0].startsWith('LAYOVER_') && entry[0] !== configVariable && entry[1] !== undefined && entry[1] !== '',
  )
  const own = variables.filter(([name, value]) => !isServiceLink(name, value))
  const named = own.filter(([name]) => /^LAYOVER_UPSTREAMS_.+_NAME$/.test(name))
  const problems: Problem[] = []
  const upstreams = knownUpstreams(settings)
  for (const [name, value] of named) problems.push(...declareUpstream(name, value, upstreams, settings))
  for (const [name, value] of own)
    if (!named.some(([taken]) => taken === name)) problems.push(...readVariable(name, value, upstreams, settings))
  return problems
}

/** `fills.finishWithin` → `LAYOVER_FILLS_FINISH_WITHIN`; for keys of an upstream, its name in capitals with `_` for every other sign. */
export function variableOf(path: Path): string {
  return ['LAYOVER', ...path.map(part => (part === '*' ? '<NAME>' : token(part)))].join('_')
}

/**
 * Kubernetes and `docker --link` tell a container about services by variables such as LAYOVER_PORT_5000_TCP_ADDR: a service that is called
 * `layover` must not keep Layover from starting.  https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
 */
function isServiceLink(name: string, value: string): boolean {
  if (/_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$/.test(name)) return true
  return (
    /_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$/.test(name) &&
    (/\d_(TCP|UDP|SCTP)/.test(name) || value.includes('://'))
  )
}

type Upstreams = Map<string, readonly string[]>

/** Token → the names it may stand for. */
function knownUpstreams(settings: Settings): Upstreams {
  const known: Upstreams = new Map()
  const upstreams = settings.get(['upstreams'])
  for (const name of isTree(upstreams) ? Object.keys(upstreams) : [])
    known.set(token(name), [...(known.get(token(name)) ?? []), name])
  return known
}

function declareUpstream(variable: string, name: string, upstreams: Upstreams, settings: Settings): Problem[] {
  if (!isImageHost(name))
    return [{ where: variable, message: 'expected the host of a registry in lower case, such as registry.example.com' }]
  upstreams.set(variable.slice('LAYOVER_UPSTREAMS_'.length, -'_NAME'.length), [name])
  settings.open(['upstreams', name], { kind: 'environment', name: variable })
  return []
}

function readVariable(variable: string, value: string, upstreams: Upstreams, settings: Settings): Problem[] {
  const key = allKeys().find(candidate => candidate.path[1] !== '*' && variableOf(candidate.path) === variable)
  if (key !== undefined) return assign(variable, value, key, key.path, settings)
  return variable.startsWith('LAYOVER_UPSTREAMS_')
    ? readUpstreamVariable(variable, value, upstreams, settings)
    : [unknownVariable(variable, upstreams)]
}

function readUpstreamVariable(variable: string, value: string, upstreams: Upstreams, settings: Settings): Problem[] {
  const rest = variable.slice('LAYOVER_UPSTREAMS_'.length)
  // The longest name first: REGISTRY_EXAMPLE_COM_5000 before REGISTRY_EXAMPLE_COM.
  const tokens = [...upstreams.keys()].sort((a, b) => b.length - a.length)
  for (const name of tokens) {
    const key = rest.startsWith(`${name}_`) ? upstreamKey(rest.slice(name.length + 1)) : undefined
    if (rest !== name && key === undefined) continue
    const [host = '', ...others] = upstreams.get(name) ?? []
    if (others.length > 0)
      return [{ where: variable, message: `can mean ${[host, ...others].join(' and ')}: set it in the file instead` }]
    if (key !== undefined) return assign(variable, value, key, ['upstreams', host, ...key.path.slice(2)], settings)
    return removeUpstream(variable, value, host, settings)
  }
  return [unknownVariable(variable, upstreams)]
}

function removeUpstream(variable: string, value: string, host: string, settings: Settings): Problem[] {
  if (value !== 'false')
    return [
      { where: variable, message: 'only false can stand here, which removes the registry; or add a key, such as _URL' },
    ]
  settings.set(['upstreams', host], false, { kind: 'environment', name: variable })
  return []
}

const upstreamKey = (rest: string): Key | undefined =>
  allKeys().find(key => key.path[1] === '*' && key.path.slice(2).map(token).join('_') === rest)

/** A value that does not fit its kind goes on as text: the schema then says what it expected. */
function assign(variable: string, text: string, key: Key, path: Path, settings: Settings): Problem[] {
  settings.set(path, convert(text, key.kind), { kind: 'environment', name: variable })
  return []
}

function convert(text: string, kind: Key['kind']): unknown {
  if (kind === 'boolean') return text === 'true' ? true : text === 'false' ? false : text
  if (kind === 'number') return /^-?\d+$/.test(text) ? Number(text) : text
  if (kind === 'list')
    return text
      .split(',')
      .map(part => part.trim())
      .filter(part => part !== '')
  return text
}

function unknownVariable(variable: string, upstreams: Upstreams): Problem {
  const names = allKeys().flatMap(({ path }) =>
    path[1] === '*'
      ? [...upstreams.keys()].map(name => variableOf(['upstreams', name, ...path.slice(2)]))
      : [variableOf(path)],
  )
  const near = nearest(variable, [...names, configVariable])
  const hint = near === undefined ? '' : ` Did you mean ${near}?`
  const newName = variable.startsWith('LAYOVER_UPSTREAMS_')
    ? ' A registry that is neither built in nor in the file is named by LAYOVER_UPSTREAMS_<ANY>_NAME.'
    : ''
  return { where: variable, message: `no such setting.${hint}${near === undefined ? newName : ''}` }
}

/** `finishWithin` → `FINISH_WITHIN`, `quay.io` → `QUAY_IO` */
function token(part: string): string {
  return part
    .replaceAll(/([a-z0-9])([A-Z])/g, '$1_$2')
    .toUpperCase()
    .replaceAll(/[^A-Z0-9]+/g, '_')
}
