import { type Digest, isDigest } from '../../oci/digest.ts'
import { isRepository } from '../../oci/name.ts'
import { isTag } from '../../oci/reference.ts'

/** What a page below `/cache/` is about. */
export type CachePlace = {
  readonly upstream: string
  readonly repository?: string
  readonly tag?: string
  readonly digest?: Digest
}

/** The path of a page: `/cache/docker.io/library/alpine:3.20`. Names and digests need no escaping but for what a host may hold. */
export function cachePath({ upstream, repository, tag, digest }: CachePlace): string {
  const name = repository === undefined ? '' : `/${repository}`
  const reference = digest !== undefined ? `@${digest}` : tag !== undefined ? `:${tag}` : ''
  return `/cache/${encodeURIComponent(upstream).replaceAll('%3A', ':')}${name}${reference}`
}

/** Reads what stands behind `/cache/`. Undefined: no upstream that is configured, or nothing that a repository, tag or digest may look like. */
export function parseCachePath(rest: string, upstreams: readonly string[]): CachePlace | undefined {
  const [first = '', ...others] = rest.split('/')
  const upstream = decode(first)
  if (upstream === undefined || !upstreams.includes(upstream)) return undefined
  const name = others.join('/')
  if (name === '') return others.length === 0 ? { upstream } : undefined
  const [, repository = '', separator, reference = ''] = /^([^:@]*)(?:([:@])(.*))?$/.exec(name) ?? []
  if (!isRepository(repository)) return undefined
  if (separator === undefined) return { upstream, repository }
  if (separator === '@') return isDigest(reference) ? { upstream, repository, digest: reference } : undefined
  return isTag(reference) ? { upstream, repository, tag: reference } : undefined
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
