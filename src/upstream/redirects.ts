import { classOfHost } from './addresses.ts'
import { isHost } from './realm.ts'
import { mayConnect, type Trust } from './trust.ts'
import { UpstreamError } from './upstream.ts'

/** Registries need one or two; more is a loop. */
export const maxHops = 10

export function isRedirect(status: number): boolean {
  return status === 301 || status === 302 || status === 303 || status === 307 || status === 308
}

type Hop = {
  readonly upstream: string
  /** The URL that answered with the redirect. */
  readonly from: URL
  readonly location: string | undefined
  /** The URL that the operator configured. */
  readonly registry: URL
  readonly redirectHosts: readonly string[]
  /** Trust of a target that nobody named. */
  readonly foreign: Trust
}

/**
 * Where a redirect leads and how far that place is trusted. Relative locations are fine; user info, other schemes, https → http and
 * addresses that the trust does not allow are refused before anything is dialled. Names are checked when they resolve (T-2).
 */
export function nextHop(hop: Hop): { readonly url: URL; readonly trust: Trust } {
  const { upstream, from, registry } = hop
  const url = hop.location === undefined ? null : URL.parse(hop.location, from)
  // The location itself is in no message: it may be presigned (T-10).
  if (url === null)
    throw new UpstreamError('invalid', upstream, 'bad_redirect', 'upstream redirects without a usable location')
  url.hash = ''
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refusal(upstream, 'another scheme')
  if (url.username !== '' || url.password !== '') throw refusal(upstream, 'a URL with a user name')
  if (from.protocol === 'https:' && url.protocol === 'http:') throw refusal(upstream, 'plain http')
  if (url.origin === registry.origin) return { url, trust: { kind: 'configured' } }
  const trust: Trust = hop.redirectHosts.some(host => isHost(url, host)) ? { kind: 'listed' } : hop.foreign
  const literal = classOfHost(url.hostname)
  if (literal !== undefined && !mayConnect(trust, literal)) throw refusal(upstream, 'an address that is not allowed')
  return { url, trust }
}

function refusal(upstream: string, what: string): UpstreamError {
  return new UpstreamError('refused', upstream, 'redirect', `upstream redirects to ${what}`)
}
