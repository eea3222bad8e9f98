import { algorithmOf, type Digest, hexOf, isDigest } from '../oci/digest.ts'
import { isRepository } from '../oci/name.ts'
import { isTagName } from './redis-records.ts'
import type { TagKey } from './stores.ts'

/*
 * Names in the archive, after the configured prefix:
 *   manifests/sha256/ab/<hex>                                the bytes, with their media type as Content-Type
 *   tags/<upstream>/<repository>/_/<tag>.json                a tag record
 *   links/<upstream>/sha256/ab/<hex>/<repository>/_          nothing: that it is there says that upstream confirmed it (T-11)
 * A part of a repository never begins with `_`, so no two names share a key, and none is the directory of another (T-24). Names that
 * do not follow their grammar have no key (T-25). Each fact has an object of its own: replicas that write at once need no lock.
 */

export const manifestPrefix = 'manifests/'
export const tagPrefix = 'tags/'
export const linkPrefix = 'links/'

export type ConfirmedLink = { readonly upstream: string; readonly repository: string; readonly digest: Digest }

const upstreamName = /^[a-z0-9](?:[a-z0-9.:_-]{0,253}[a-z0-9])?$/i
const isUpstream = (text: string): boolean => upstreamName.test(text)

export function manifestKey(digest: Digest): string {
  return manifestPrefix + pathOf(digest)
}

/** The digest whose manifest lies under `key`; undefined for keys that are not ours. */
export function digestOfManifestKey(key: string): Digest | undefined {
  const digest = digestOfPath(key.split('/').slice(1))
  return digest !== undefined && manifestKey(digest) === key ? digest : undefined
}

/** What the keys of all tags of a repository begin with. Undefined: these are no names. */
export function tagsPrefix(upstream: string, repository: string): string | undefined {
  return isUpstream(upstream) && isRepository(repository) ? `${tagPrefix}${upstream}/${repository}/_/` : undefined
}

export function tagObjectKey({ upstream, repository, tag }: TagKey): string | undefined {
  const prefix = tagsPrefix(upstream, repository)
  return prefix !== undefined && isTagName(tag) ? `${prefix}${tag}${tagSuffix}` : undefined
}

/** The tag that a key stands for; undefined for keys that are not ours. */
export function tagOfKey(key: string): TagKey | undefined {
  const [, upstream = '', ...rest] = key.split('/')
  const tag = (rest.at(-1) ?? '').slice(0, -tagSuffix.length)
  const found = { upstream, repository: rest.slice(0, -2).join('/'), tag }
  return tagObjectKey(found) === key ? found : undefined
}

/** What the keys of all links to a digest at an upstream begin with. Undefined: this is no name. */
export function linksPrefix(upstream: string, digest: Digest): string | undefined {
  return isUpstream(upstream) ? `${linkPrefix}${upstream}/${pathOf(digest)}/` : undefined
}

export function linkKey({ upstream, repository, digest }: ConfirmedLink): string | undefined {
  const prefix = linksPrefix(upstream, digest)
  return prefix !== undefined && isRepository(repository) ? `${prefix}${repository}/_` : undefined
}

/** The link that a key stands for; undefined for keys that are not ours. */
export function linkOfKey(key: string): ConfirmedLink | undefined {
  const [, upstream = '', algorithm = '', start = '', hex = '', ...rest] = key.split('/')
  const digest = digestOfPath([algorithm, start, hex])
  if (digest === undefined) return undefined
  const found = { upstream, repository: rest.slice(0, -1).join('/'), digest }
  return linkKey(found) === key ? found : undefined
}

const tagSuffix = '.json'

function pathOf(digest: Digest): string {
  const hex = hexOf(digest)
  return `${algorithmOf(digest)}/${hex.slice(0, 2)}/${hex}`
}

function digestOfPath([algorithm = '', , hex = '']: readonly string[]): Digest | undefined {
  const digest = `${algorithm}:${hex}`
  return isDigest(digest) ? digest : undefined
}
