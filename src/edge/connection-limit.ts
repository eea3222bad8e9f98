import { BlockList, isIPv4, isIPv6, type Socket } from 'node:net'

export type ConnectionLimitOptions = {
  /** Connections of one address at once. */
  readonly max: number
  /** A connection was turned away. */
  readonly onRefused?: (address: string) => void
  /** Whose connection it is; undefined: not counted. Default: {@link ownerOf}. */
  readonly ownerOf?: (address: string) => string | undefined
}

/** How many connections each address may have, so that one cannot take the places of all (T-34). */
export class ConnectionLimit {
  readonly #options: ConnectionLimitOptions
  readonly #open = new Map<string, number>()

  constructor(options: ConnectionLimitOptions) {
    this.#options = options
  }

  /** Counts a new connection until it is closed. False: its address has as many as it may; it is not counted. */
  admit(socket: Pick<Socket, 'remoteAddress' | 'once'>): boolean {
    const { max, onRefused, ownerOf: owner = ownerOf } = this.#options
    const { remoteAddress } = socket
    // It is gone already.
    if (remoteAddress === undefined) return true
    const key = owner(remoteAddress)
    if (key === undefined) return true
    const open = this.#open.get(key) ?? 0
    if (open >= max) {
      onRefused?.(remoteAddress)
      return false
    }
    this.#open.set(key, open + 1)
    socket.once('close', () => this.#closed(key))
    return true
  }

  #closed(key: string): void {
    const open = (this.#open.get(key) ?? 1) - 1
    if (open > 0) this.#open.set(key, open)
    else this.#open.delete(key)
  }
}

/**
 * Whose connection it is: an IPv4 address, or the /64 network of an IPv6 address, of which one machine has all. Undefined for this machine itself: a
 * proxy in front of us brings everybody.
 */
export function ownerOf(address: string): string | undefined {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '')
  if (loopback.check(plain, isIPv4(plain) ? 'ipv4' : 'ipv6')) return undefined
  return isIPv6(plain) ? networkOf(plain) : plain
}

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** The first four groups. What a zone says after `%` is no part of it. */
function networkOf(address: string): string {
  const [bare = ''] = address.split('%')
  const [head = '', tail = ''] = bare.split('::')
  const front = head === '' ? [] : head.split(':')
  const back = tail === '' ? [] : tail.split(':')
  const zeros = bare.includes('::') ? Array.from({ length: 8 - front.length - back.length }, () => '0') : []
  return [...front, ...zeros, ...back].slice(0, 4).join(':')
}
