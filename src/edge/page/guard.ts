import { isIP } from 'node:net'
import type { Context, MiddlewareHandler } from 'hono'
import { isLoopback } from '../../config/address.ts'
import type { Address } from '../../config/config.ts'

/**
 * What a page may do in a browser: show what this listener serves, and nothing else. No script and no style but the two files, nobody's frame, no address
 * given away to where a link leads.
 */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  'trusted-types layover',
].join('; ')

const headers: Readonly<Record<string, string>> = {
  'content-security-policy': policy,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
}

/**
 * Refuses what another site makes a browser ask, and puts the headers on what is answered. The pages tell names of repositories, so on loopback a
 * request must name this machine: a name that a stranger pointed at 127.0.0.1 is not one of it (DNS rebinding).
 */
export function guardPages(admin: Address): MiddlewareHandler {
  return async (c, next) => {
    const refusal = refusalOf(c, admin)
    if (refusal !== undefined) return c.text(`${refusal.why}\n`, refusal.status, headers)
    await next()
    for (const [name, value] of Object.entries(headers)) c.res.headers.set(name, value)
    return undefined
  }
}

function refusalOf(c: Context, admin: Address): { readonly status: 403 | 421; readonly why: string } | undefined {
  const host = c.req.header('host')
  if (isLoopback(admin.host) && host !== undefined && !namesThisMachine(host))
    return {
      status: 421,
      why: `This listener is on ${admin.host}: ask it as localhost or by its address. A proxy before it has to set Host.`,
    }
  const site = c.req.header('sec-fetch-site')
  const isForeign = site === 'cross-site' || site === 'same-site'
  // Following a link from elsewhere is fine; loading a page as a picture, a script or a stream is not.
  if (isForeign && c.req.header('sec-fetch-mode') !== 'navigate')
    return { status: 403, why: 'Another site may link to this page, not load it.' }
  return undefined
}

/** An address, or a name that never leaves the machine. https://www.rfc-editor.org/rfc/rfc6761#section-6.3 */
function namesThisMachine(host: string): boolean {
  const name = host
    .toLowerCase()
    .replace(/:\d*$/, '')
    .replace(/^\[(.*)\]$/, '$1')
  return name === 'localhost' || name.endsWith('.localhost') || isIP(name) !== 0
}
