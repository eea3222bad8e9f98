import { registrableDomain } from './domain.ts'

/** Why a token realm is not asked. One word, for logs and metrics. */
export type RealmRefusal = 'malformed' | 'scheme' | 'userinfo' | 'host'

/** Token servers outside of their registry's own domain that are known to belong to it, by the host of the registry API. */
const knownRealmHosts: Readonly<Record<string, readonly string[]>> = {
  'nvcr.io': ['authn.nvidia.com'],
}

type RealmQuestion = {
  /** The realm as the challenge says it. */
  readonly realm: string
  /** Where the registry API lives. */
  readonly registry: URL
  /** Hosts that the operator allows, as `host` or `host:port`. */
  readonly realmHosts: readonly string[]
}

export type AcceptedRealm = {
  readonly url: URL
  /** `configured`: the registry's own origin; `listed`: named by the operator. */
  readonly trust: 'configured' | 'listed' | 'foreign'
}

/**
 * Decides whether a realm may be asked for tokens: the registry's own host or registrable domain, a host that the operator listed, or a
 * known token server; https unless the registry itself is http; never with user info; an address or a single label only as the
 * registry's own authority. Pure: nothing is resolved or dialled (T-1).
 */
export function acceptRealm(question: RealmQuestion): AcceptedRealm | { readonly refused: RealmRefusal } {
  const { registry } = question
  const url = URL.parse(question.realm)
  if (url === null) return { refused: 'malformed' }
  if (url.username !== '' || url.password !== '') return { refused: 'userinfo' }
  const mayBePlain = registry.protocol === 'http:' && url.protocol === 'http:'
  if (url.protocol !== 'https:' && !mayBePlain) return { refused: 'scheme' }
  url.hash = ''
  if (url.origin === registry.origin) return { url, trust: 'configured' }
  const known = knownRealmHosts[registry.hostname] ?? []
  if (question.realmHosts.some(host => isHost(url, host))) return { url, trust: 'listed' }
  if (known.some(host => isHost(url, host)) || sameOwner(url, registry)) return { url, trust: 'foreign' }
  return { refused: 'host' }
}

/** True when the URL is at this `host` or `host:port`; without a port any port is meant. */
export function isHost(url: URL, host: string): boolean {
  const wanted = host.toLowerCase()
  return url.hostname === wanted || url.host === wanted || `${url.hostname}:${portOf(url)}` === wanted
}

function portOf(url: URL): string {
  if (url.port !== '') return url.port
  return url.protocol === 'https:' ? '443' : '80'
}

function sameOwner(realm: URL, registry: URL): boolean {
  const owner = registrableDomain(registry.hostname)
  return owner !== undefined && registrableDomain(realm.hostname) === owner
}
