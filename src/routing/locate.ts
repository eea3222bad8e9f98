import { nameInvalid, nameUnknown } from '../oci/errors.ts'
import { maxNameLength, parseRepository } from '../oci/name.ts'
import { normaliseHost } from './host.ts'
import { looksLikeHost, type NamedRoute } from './path.ts'
import type { Target } from './target.ts'

/** What the locator needs to know of a configured upstream. */
export type LocatableUpstream = {
  readonly name: string
  readonly aliases: readonly string[]
  readonly default: boolean
}

export interface Locator {
  /**
   * Finds the upstream and the repository that a route means, whichever way it was addressed: by `ns`, by a path prefix, by a host in front of `/v2/`,
   * or plainly for the default upstream (P-23). Equal meanings give equal `upstream` and `repository`.
   * Throws NAME_INVALID (400) for what cannot be a name or a host, NAME_UNKNOWN (404) for an upstream that is not configured.
   */
  locate(route: LocatableRoute): Target
}

export type LocatableRoute = Pick<NamedRoute, 'name' | 'host' | 'query' | 'basePath'>

/** One registry under several names (P-21). */
const dockerHub = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io'])

/** Throws when two upstreams claim the same name: the configuration is wrong then, and was not validated. */
export function createLocator(upstreams: readonly LocatableUpstream[]): Locator {
  const names = indexNames(upstreams)
  const hub = names.get('docker.io')
  const plain = upstreams.find(upstream => upstream.default)?.name

  function configured(host: string, spelled: string): string {
    const name = names.get(host)
    if (name === undefined) throw nameUnknown(spelled, 'no upstream of this name is configured here')
    return name
  }

  function named(text: string, what: string): string {
    const host = normaliseHost(text)
    if (host === undefined) throw nameInvalid(text, `${what} must be a host name, with a port where it needs one`)
    return configured(host, text)
  }

  /** The upstream that `ns` and the host in front of `/v2/` agree upon. */
  function scopeOf(route: LocatableRoute): string | undefined {
    const spaces = route.query.getAll('ns')
    if (spaces.length > 1) throw nameInvalid(spaces.join(' '), 'ns is given more than once')
    const [space] = spaces
    const byNs = space === undefined ? undefined : named(space, 'ns')
    const byHost = route.host === undefined ? undefined : named(route.host, 'the part in front of /v2/')
    if (byNs !== undefined && byHost !== undefined && byNs !== byHost)
      throw nameInvalid(route.name, 'ns and the part in front of /v2/ name different upstreams')
    return byNs ?? byHost
  }

  function split(route: LocatableRoute): { upstream: string; repository: string } {
    const scope = scopeOf(route)
    const { prefix, rest } = splitPrefix(route.name)
    if (scope !== undefined) {
      const repeated = prefix !== undefined && names.get(normaliseHost(prefix) ?? '') === scope
      return { upstream: scope, repository: repeated ? rest : route.name }
    }
    if (prefix !== undefined) return { upstream: named(prefix, 'its first part'), repository: rest }
    if (plain === undefined) throw nameUnknown(route.name, noDefault)
    return { upstream: plain, repository: route.name }
  }

  function locate(route: LocatableRoute): Target {
    const { upstream, repository: requestedRepository } = split(route)
    const repository = parseRepository(withLibrary(upstream === hub, requestedRepository))
    if (upstream.length + 1 + repository.length > maxNameLength)
      throw nameInvalid(repository, `with its host it is longer than ${maxNameLength} characters`)
    const ns = route.query.get('ns') ?? undefined
    return { upstream, repository, requestedRepository, basePath: route.basePath, ns }
  }

  return { locate }
}

const noDefault =
  'no default upstream is configured here; name one as the first part of the path (docker.io/library/alpine) or by ?ns='

function indexNames(upstreams: readonly LocatableUpstream[]): ReadonlyMap<string, string> {
  const names = new Map<string, string>()
  for (const upstream of upstreams) {
    const own = [upstream.name, ...upstream.aliases].map(name => normaliseHost(name) ?? name)
    const all = own.some(name => dockerHub.has(name)) ? [...own, ...dockerHub] : own
    for (const name of all) {
      const taken = names.get(name)
      if (taken !== undefined && taken !== upstream.name)
        throw new Error(`two upstreams are called ${name}: ${taken} and ${upstream.name}`)
      names.set(name, upstream.name)
    }
  }
  return names
}

/** A first part that looks like a host is one only when a repository follows: `a.b` alone is a repository. */
function splitPrefix(name: string): { prefix: string | undefined; rest: string } {
  const slash = name.indexOf('/')
  const first = name.slice(0, Math.max(0, slash))
  return looksLikeHost(first) ? { prefix: first, rest: name.slice(slash + 1) } : { prefix: undefined, rest: name }
}

/** Docker Hub's official images live in `library/`, and only there is a name of one part completed (P-22). */
function withLibrary(isDockerHub: boolean, repository: string): string {
  return isDockerHub && !repository.includes('/') ? `library/${repository}` : repository
}
