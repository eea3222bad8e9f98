import type { IncomingMessage } from 'node:http'
import { BlockList, isIPv6 } from 'node:net'
import type { RedirectConfig } from '../config/config.ts'

/** Which requests for blobs may be answered with the address of the bucket. */
export type RedirectRule = {
  /** Blobs of fewer bytes are answered from here. */
  readonly minBytes: number
  isFor(request: IncomingMessage): boolean
}

/**
 * By the address at the other end of the connection: what a header says of it, anybody can say. Requests with `If-Range` stay, because the entity tags of the
 * service are others than ours.
 */
export function createRedirectRule({ networks, minBytes }: RedirectConfig): RedirectRule {
  const allowed = new BlockList()
  for (const { address, prefix, family } of networks) allowed.addSubnet(address, prefix, family)
  return {
    minBytes,
    isFor: ({ headers, socket }) => {
      // Without the zone of a link-local address.
      const [address = ''] = (socket.remoteAddress ?? '').split('%')
      if (headers['if-range'] !== undefined || address === '') return false
      return allowed.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
    },
  }
}
