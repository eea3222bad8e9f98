import { formatAddress, isHostname, isUnspecified } from '../config/address.ts'
import type { Address } from '../config/config.ts'

/** What keeps this from being the URL of a mirror: scheme, host and port. Undefined: nothing. Says nothing of a user name or password that may be in it. */
export function problemOfUrl(given: string): string | undefined {
  if (!/^https?:\/\//i.test(given)) return 'http:// or https:// is missing'
  if (!URL.canParse(given)) return 'host or port is wrong'
  const { hostname, username, password, pathname, search, hash } = new URL(given)
  if (username !== '' || password !== '') return 'a user name or password cannot be part of it'
  // URLs allow quotes, `;` and `$(` there, and this one is put into files and copied into shells.
  if (!isHostname(hostname.replace(/\.$/, ''))) return 'host or port is wrong'
  if (pathname !== '/') return `the path ${pathname} cannot be part of it`
  return search === '' && hash === '' ? undefined : 'nothing may follow ? or #'
}

/** True when the URL names no machine: `http://0.0.0.0:5000`. */
export const isUndialable = ({ hostname }: URL): boolean => isUnspecified(hostname.replace(/^\[(.*)\]$/, '$1'))

/** How nodes reach a listener, as far as the listener knows; `machine` stands for it where it listens on every interface. Undefined: `machine` is no host name. */
export function urlOfListener(listen: Address, machine: string): URL | undefined {
  const host = isUnspecified(listen.host) ? machine.toLowerCase() : listen.host
  const url = `http://${formatAddress({ host, port: listen.port })}`
  return URL.canParse(url) ? new URL(url) : undefined
}
