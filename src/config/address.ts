import { BlockList, isIP, isIPv4, isIPv6 } from 'node:net'
import type { Address } from './config.ts'

const label = /^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?$/i
const addressGrammar = /^(\[[^\]]*\]|[^:[\]]*):(\d{1,5})$/

/** Parses `host:port`, `:5000` (all IPv4 addresses) or `[::1]:5000`. Undefined for anything else. Port 0 lets the system choose. */
export function parseAddress(text: string): Address | undefined {
  const [, host = '', digits] = addressGrammar.exec(text) ?? []
  const port = Number(digits)
  if (digits === undefined || port > 65_535) return undefined
  if (host === '') return { host: '0.0.0.0', port }
  if (!isHostname(host)) return undefined
  return { host: host.startsWith('[') ? host.slice(1, -1) : host, port }
}

/** `0.0.0.0:5000`, `[::1]:5000`. */
export function formatAddress({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** True for addresses that only this machine reaches, however they are written. */
export function isLoopback(host: string): boolean {
  if (isIP(host) === 0) return host.toLowerCase() === 'localhost'
  return loopback.check(host, isIPv4(host) ? 'ipv4' : 'ipv6')
}

// It knows IPv4 addresses also as IPv6 writes them: ::ffff:127.0.0.1.
const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** True for addresses that stand for every interface, which nobody can dial. */
export function isUnspecified(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

/** A DNS name, an IPv4 address or an IPv6 address in brackets; no port. */
export function isHostname(text: string): boolean {
  if (text.startsWith('[')) return text.endsWith(']') && isIPv6(text.slice(1, -1))
  if (/^[\d.]+$/.test(text)) return isIPv4(text)
  return text.length <= 253 && text.split('.').every(part => label.test(part))
}

/** A host with or without a port, lower case, as it stands in front of an image name. */
export function isRegistryHost(text: string): boolean {
  const [, host, port] = /^(\[[^\]]*\]|[^:[\]]*)(?::(\d{1,5}))?$/.exec(text) ?? []
  if (host === undefined || text !== text.toLowerCase()) return false
  return isHostname(host) && (port === undefined || (Number(port) > 0 && Number(port) <= 65_535))
}

/**
 * True when an image reference can begin with this host: without a dot, a port or `localhost`, `name/repository` means a repository
 * on the default registry.  https://github.com/distribution/reference/blob/main/normalize.go
 */
export function isImageHost(text: string): boolean {
  return isRegistryHost(text) && (/[.:]/.test(text) || text === 'localhost')
}
