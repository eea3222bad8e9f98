import { isImageHost, isRegistryHost, isUnspecified, parseAddress } from './address.ts'
import { type Address, defaultAddresses } from './config.ts'
import { shownValue } from './problem.ts'
import { isTree, type Path, type Settings, type Tree } from './settings.ts'

/** Says that something at `path` is wrong; `key`: the key is what to point at, not its value. */
export type Report = (path: Path, message: string, options?: { readonly key?: boolean }) => void

export const passwordKeys = ['password', 'passwordFile', 'passwordEnv'] as const
export const credentialKeys = [...passwordKeys, 'dockerConfig'] as const

/**
 * What no single value can tell. Works on the settings as they are written, so that these problems come together with those of the values;
 * values of a wrong kind are passed over, they are reported already.
 */
export function checkTogether(settings: Settings, upstreams: ReadonlyMap<string, Tree>, report: Report): void {
  checkAddresses(settings, report)
  if (upstreams.size === 0 && isTree(settings.get(['upstreams'])))
    report(['upstreams'], 'no upstream is left: keep at least one')
  for (const [name, upstream] of upstreams) {
    checkName(name, report)
    checkInsecure(name, upstream, report)
    checkCredentials(name, upstream, report)
  }
  checkDefaults(settings, upstreams, report)
  checkAliases(settings, upstreams, report)
}

function checkAddresses(settings: Settings, report: Report): void {
  const [listen, admin] = [settings.get(['listen']), settings.get(['admin'])]
  const registry = addressOf(listen ?? defaultAddresses.listen)
  const other = addressOf(admin ?? defaultAddresses.admin)
  if (!registry || !other || registry.port !== other.port || registry.port === 0) return
  if (registry.host !== other.host && !isUnspecified(registry.host) && !isUnspecified(other.host)) return
  const [key, name] = admin === undefined ? (['listen', 'admin'] as const) : (['admin', 'listen'] as const)
  report([key], `takes port ${registry.port}, which ${name} has: give it another one`)
}

const addressOf = (value: unknown): Address | undefined => (typeof value === 'string' ? parseAddress(value) : undefined)

function checkName(name: string, report: Report): void {
  if (isImageHost(name)) return
  report(['upstreams', name], nameProblem(name), { key: true })
}

function nameProblem(name: string): string {
  if (/^[a-z]+:\/\//i.test(name)) return 'expected a host such as quay.io, not a URL: put the URL in url'
  if (name.includes('/')) return 'expected a host such as quay.io, without a path'
  if (isImageHost(name.toLowerCase())) return `hosts are written in lower case here: ${name.toLowerCase()}`
  if (isRegistryHost(name))
    return `is not a registry host in image names: it needs a dot or a port, such as ${name}.example.com or ${name}:5000`
  return `expected a host such as quay.io or registry.example.com:5000, got ${shownValue(name)}`
}

function checkInsecure(name: string, upstream: Tree, report: Report): void {
  if (upstream['insecure'] === true) return
  const mirrors = Array.isArray(upstream['mirrors']) ? (upstream['mirrors'] as unknown[]) : []
  const urls: [unknown, string[]][] = [
    [upstream['url'], ['url']],
    ...mirrors.map((mirror, index): [unknown, string[]] => [mirror, ['mirrors', String(index)]]),
  ]
  for (const [url, key] of urls)
    if (typeof url === 'string' && /^http:\/\//i.test(url))
      report(
        ['upstreams', name, ...key],
        'plain http can be read and changed on the way: use https://, or accept that with insecure: true beside it',
      )
}

function checkCredentials(name: string, upstream: Tree, report: Report): void {
  const path = ['upstreams', name]
  const present = credentialKeys.filter(key => upstream[key] !== undefined)
  const password = passwordKeys.find(key => upstream[key] !== undefined)
  const [, second] = present
  if (second !== undefined)
    report([...path, second], `only one of ${credentialKeys.join(', ')} can be used: here are ${present.join(' and ')}`)
  if (password !== undefined && upstream['username'] === undefined)
    report([...path, password], 'a password needs a user name: set username beside it')
  if (upstream['username'] !== undefined && present.length === 0)
    report([...path, 'username'], 'a user name needs one of password, passwordFile or passwordEnv beside it')
}

function checkDefaults(settings: Settings, upstreams: ReadonlyMap<string, Tree>, report: Report): void {
  const defaults = [...upstreams].filter(([, upstream]) => upstream['default'] === true).map(([name]) => name)
  if (defaults.length < 2) return
  const written = defaults.filter(name => settings.originOf(['upstreams', name, 'default']) !== undefined)
  for (const name of written.slice(1))
    report(['upstreams', name, 'default'], `only one upstream can be the default: ${written[0]} is it already`)
}

function checkAliases(settings: Settings, upstreams: ReadonlyMap<string, Tree>, report: Report): void {
  const owner = new Map<string, string>([...upstreams.keys()].map(name => [name, name]))
  for (const [name, upstream] of upstreams) {
    const aliases = Array.isArray(upstream['aliases']) ? (upstream['aliases'] as unknown[]) : []
    for (const [index, alias] of aliases.entries()) {
      if (typeof alias !== 'string') continue
      const other = owner.get(alias)
      if (other !== undefined && other !== name) reportCollision({ settings, report, name, index, alias, other })
      else owner.set(alias, name)
    }
  }
}

/** Points at what somebody wrote: a built-in alias that collides with a written upstream is that upstream's matter. */
function reportCollision(found: {
  settings: Settings
  report: Report
  name: string
  index: number
  alias: string
  other: string
}): void {
  const { settings, report, name, index, alias, other } = found
  const path = ['upstreams', name, 'aliases', String(index)]
  if (settings.originOf(path) !== undefined || alias !== other) {
    report(path, `${alias} is already ${alias === other ? 'an upstream of its own' : `another name of ${other}`}`)
    return
  }
  report(
    ['upstreams', alias],
    `is another name of ${name}: write these settings under upstreams.${name}, or give ${name} other aliases`,
    { key: true },
  )
}

/** The mappings of `upstreams`; `false` removes one. Anything else is reported. */
export function upstreamTrees(settings: Settings, report: Report): Map<string, Tree> {
  const all = settings.get(['upstreams'])
  const trees = new Map<string, Tree>()
  if (!isTree(all)) {
    report(['upstreams'], `expected a mapping of registries, got ${shownValue(all)}`)
    return trees
  }
  for (const [name, upstream] of Object.entries(all))
    if (isTree(upstream)) trees.set(name, upstream)
    else if (upstream !== false)
      report(['upstreams', name], `expected a mapping of settings, or false to remove it, got ${shownValue(upstream)}`)
  return trees
}
