import type { Exchange } from './exchange.ts'

/** Response headers as `writeHead` takes them: lower-case name, value, name, value … */
export type HeaderList = string[]

/**
 * What every answer under /v2/ carries: the version header (P-5), no sniffing and no active content (P-62, T-29), and the namespace that
 * scoped the request (P-25).
 */
export function commonHeaders(exchange: Exchange): HeaderList {
  const headers = [
    'docker-distribution-api-version',
    'registry/2.0',
    'x-content-type-options',
    'nosniff',
    'content-security-policy',
    "default-src 'none'",
  ]
  if (exchange.ns !== undefined) headers.push('oci-namespace', exchange.ns)
  return headers
}

export const immutable = 'max-age=31536000, immutable'
