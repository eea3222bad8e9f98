import { type Digest, parseDigest } from '../oci/digest.ts'
import { nameInvalid } from '../oci/errors.ts'
import { parseReference, type Reference } from '../oci/reference.ts'

/** What a request path asks for. Names are decoded but not yet checked against the grammar: `locate` does that, after it took off a prefix. */
export type Route = (Common & { readonly kind: 'base' | 'catalog' | 'upload' | 'none' }) | NamedRoute

/** A route about one repository. */
export type NamedRoute = Common & Named & Endpoint

type Endpoint =
  | { readonly kind: 'manifest'; readonly reference: Reference }
  | { readonly kind: 'blob'; readonly digest: Digest }
  | { readonly kind: 'tags' }
  | { readonly kind: 'referrers'; readonly digest: Digest }

type Named = { readonly name: string }

type Common = {
  /** The upstream in front of `/v2/`, as sent: `/registry.example.com/v2/app/manifests/1`. */
  readonly host: string | undefined
  readonly query: URLSearchParams
  /** The first `ns` of the query, as sent. */
  readonly ns: string | undefined
  /** The path up to and including the name, decoded: `/v2/docker.io/library/alpine`. Safe to send only after `locate` accepted the name. */
  readonly basePath: string
}

/**
 * Parses a raw request target (`req.url`): origin-form or absolute-form, whose authority is ignored (P-18). Read from the right (P-7).
 * Throws NAME_INVALID, DIGEST_INVALID (400) or MANIFEST_UNKNOWN (404) for what cannot name anything; `none` is a path that is no endpoint.
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#endpoints
 */
export function parsePath(rawUrl: string): Route {
  const { path, query } = splitTarget(rawUrl)
  const ns = query.get('ns') ?? undefined
  const { host, rest } = splitHost(path)
  const root = host === undefined ? '/v2' : `/${host}/v2`
  const common = { host, query, ns, basePath: root }
  if (rest === undefined) return { ...common, kind: 'none' }
  if (rest === '') return { ...common, kind: 'base' }
  const segments = rest.split('/')
  if (isUpload(segments)) return { ...common, kind: 'upload' }
  // Endpoints before the catalog: `_catalog` is a valid tag.
  return parseEndpoint(segments, common) ?? { ...common, kind: segments.at(-1) === '_catalog' ? 'catalog' : 'none' }
}

function parseEndpoint(segments: readonly string[], common: Common): NamedRoute | undefined {
  const [word = '', last = ''] = segments.slice(-2)
  const leading = segments.slice(0, -2)
  if (leading.length === 0 || last === '') return undefined
  const named = (): Common & Named => {
    const name = leading.map(decodeSegment).join('/')
    return { ...common, name, basePath: `${common.basePath}/${name}` }
  }
  switch (word) {
    case 'manifests':
      return { ...named(), kind: 'manifest', reference: parseReference(decodeSegment(last)) }
    case 'blobs':
      return { ...named(), kind: 'blob', digest: parseDigest(decodeSegment(last)) }
    case 'referrers':
      return { ...named(), kind: 'referrers', digest: parseDigest(decodeSegment(last)) }
    case 'tags':
      return last === 'list' ? { ...named(), kind: 'tags' } : undefined
    default:
      return undefined
  }
}

/** `…/blobs/uploads`, `…/blobs/uploads/` and `…/blobs/uploads/<id>`, of some repository. */
function isUpload(segments: readonly string[]): boolean {
  const at = segments.at(-1) === 'uploads' ? segments.length - 2 : segments.length - 3
  return at >= 1 && segments[at] === 'blobs' && segments[at + 1] === 'uploads'
}

function splitTarget(rawUrl: string): { path: string; query: URLSearchParams } {
  const target = rawUrl.replace(/^[a-z][a-z0-9+.-]{0,15}:\/\/[^/?]*/i, '')
  const mark = target.indexOf('?')
  if (mark < 0) return { path: target, query: new URLSearchParams() }
  return { path: target.slice(0, mark), query: new URLSearchParams(target.slice(mark + 1)) }
}

/** What follows `/v2/`; undefined when the path is outside of the API. `/v2` is answered as `/v2/` (P-3). */
function splitHost(path: string): { host: string | undefined; rest: string | undefined } {
  const plain = behindRoot(path)
  if (plain !== undefined) return { host: undefined, rest: plain }
  const slash = path.indexOf('/', 1)
  const first = path.startsWith('/') && slash > 1 ? path.slice(1, slash) : ''
  const host = first.replace(/%3a/i, ':')
  if (!looksLikeHost(host)) return { host: undefined, rest: undefined }
  return { host, rest: behindRoot(path.slice(slash)) }
}

function behindRoot(path: string): string | undefined {
  if (path === '/v2') return ''
  return path.startsWith('/v2/') ? path.slice('/v2/'.length) : undefined
}

/** The rule of image references: a first part with a dot or a colon, or `localhost`, is a host. */
export function looksLikeHost(part: string): boolean {
  return part === 'localhost' || part.includes('.') || part.includes(':')
}

/** Decodes once; what could be read as another path later is refused (P-13, P-14). */
function decodeSegment(raw: string): string {
  const text = decodeOnce(raw)
  if (text === '') throw nameInvalid(raw, 'it has an empty part')
  if (text === '.' || text === '..' || /[/\\%\x00-\x1f\x7f]/.test(text))
    throw nameInvalid(raw, 'it has a part that is not allowed in a name')
  return text
}

function decodeOnce(raw: string): string {
  try {
    return decodeURIComponent(raw)
  } catch (cause) {
    throw nameInvalid(raw, 'its percent-encoding is broken', cause)
  }
}
