import type { LookupAddress, LookupOptions } from 'node:dns'
import { lookup as systemLookup } from 'node:dns'
import type { LookupFunction } from 'node:net'
import { type AddressClass, classOf } from './addresses.ts'

/**
 * How far a target is believed. `configured`: the operator named this URL, any address is fine. `listed`: the operator named the host
 * as a place to be sent to. `foreign`: an upstream sent us there; `from` is the class of that upstream's own address.
 */
export type Trust =
  | { readonly kind: 'configured' }
  | { readonly kind: 'listed' }
  | { readonly kind: 'foreign'; readonly from: AddressClass | undefined }

/** A name resolver of the form that sockets use. */
export type Lookup = LookupFunction

/** Thrown into the socket, before anything is dialled, when a name leads to where Layover does not go. */
export class AddressRefused extends Error {
  override readonly name = 'AddressRefused'
  readonly code = 'ERR_ADDRESS_REFUSED'
}

/** True when a target of this trust may be at an address of this class (T-2). */
export function mayConnect(trust: Trust, address: AddressClass): boolean {
  if (trust.kind === 'configured') return true
  if (address === 'never') return false
  return address === 'public' || trust.kind === 'listed' || trust.from === address
}

/**
 * A lookup that gives only addresses that `trust` allows. It runs inside the connection, so that what is checked is what is dialled (T-3).
 * `onResolved` learns the class of what remains.
 */
export function guardedLookup(
  trust: Trust,
  lookup: Lookup = systemLookup,
  onResolved?: (hostname: string, addressClass: AddressClass) => void,
): Lookup {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, [])
      const addresses = listed(found, options)
      const allowed = addresses.filter(({ address }) => mayConnect(trust, classOf(address)))
      const [first] = allowed
      if (first === undefined) return callback(refusal(addresses.length), [])
      onResolved?.(hostname, commonClass(allowed))
      if (options.all === true) callback(null, allowed)
      else callback(null, first.address, first.family)
    })
  }
}

function listed(found: string | LookupAddress[], options: LookupOptions): LookupAddress[] {
  if (typeof found !== 'string') return found
  return [{ address: found, family: options.family === 6 || found.includes(':') ? 6 : 4 }]
}

function refusal(resolved: number): NodeJS.ErrnoException {
  if (resolved > 0) return new AddressRefused('the name leads to an address that is not allowed here')
  return Object.assign(new Error('the name has no address'), { code: 'ENOTFOUND' })
}

/** One class for all addresses of a name; mixed ones count as public, which allows least. */
function commonClass(addresses: readonly LookupAddress[]): AddressClass {
  const classes = new Set(addresses.map(({ address }) => classOf(address)))
  const [only] = classes
  return classes.size === 1 && only !== undefined ? only : 'public'
}
