import { BlockList, isIP, isIPv4 } from 'node:net'

/**
 * What kind of place an address is. `never` is what no redirect or realm may lead to, wherever the upstream is: link-local and with it
 * the cloud metadata services, multicast, unspecified and reserved ranges (T-2).
 */
export type AddressClass = 'public' | 'private' | 'shared' | 'loopback' | 'never'

const ranges: readonly (readonly [AddressClass, readonly string[]])[] = [
  [
    'never',
    [
      // fd00:ec2::254, 100.100.100.200 and 168.63.129.16 are metadata services outside of link-local.
      '169.254.0.0/16 fe80::/10 fd00:ec2::254/128 100.100.100.200/32 168.63.129.16/32',
      '0.0.0.0/8 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24',
      '224.0.0.0/4 240.0.0.0/4 ::/128 100::/64 2001::/23 2001:db8::/32 3fff::/20 5f00::/16 fec0::/10 ff00::/8',
      '64:ff9b:1::/48',
    ],
  ],
  ['loopback', ['127.0.0.0/8 ::1/128']],
  ['private', ['10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7']],
  ['shared', ['100.64.0.0/10']],
]

const lists = ranges.map(([kind, subnets]) => {
  const list = new BlockList()
  for (const subnet of subnets.flatMap(line => line.split(' '))) {
    const [network = '', prefix] = subnet.split('/')
    list.addSubnet(network, Number(prefix), isIPv4(network) ? 'ipv4' : 'ipv6')
  }
  return [kind, list] as const
})

/** The class of an IP address as text; anything that is not an address is `never`. IPv6 forms that carry an IPv4 address are judged by it. */
export function classOf(address: string): AddressClass {
  const family = isIP(address)
  if (family === 0) return 'never'
  const plain = address.split('%', 1)[0] ?? ''
  const embedded = family === 6 ? embeddedIPv4(plain) : undefined
  if (embedded !== undefined) return classOf(embedded)
  return lists.find(([, list]) => list.check(plain, family === 4 ? 'ipv4' : 'ipv6'))?.[0] ?? 'public'
}

/** The class of a URL's host when it is an address, undefined when it is a name that has to be resolved. */
export function classOfHost(hostname: string): AddressClass | undefined {
  const bare = hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
  return isIP(bare) === 0 ? undefined : classOf(bare)
}

/** v4-mapped, v4-translated and v4-compatible (::ffff:a.b.c.d, ::ffff:0:a.b.c.d, ::a.b.c.d), NAT64 (64:ff9b::/96) and 6to4 (2002::/16). */
function embeddedIPv4(address: string): string | undefined {
  const groups = groupsOf(address)
  if (groups === undefined) return undefined
  const [g0 = 0, g1 = 0, g2 = 0, g3 = 0, g4 = 0, g5 = 0, g6 = 0, g7 = 0] = groups
  const middle = g2 | g3 | g4
  if (g0 === 0x2002) return dotted(g1, g2)
  if (g0 === 0x64 && g1 === 0xff9b && (middle | g5) === 0) return dotted(g6, g7)
  if ((g0 | g1 | g2 | g3 | g5) === 0 && g4 === 0xffff) return dotted(g6, g7)
  const isLow = (g0 | g1 | middle) === 0
  if (isLow && g5 === 0xffff) return dotted(g6, g7)
  return isLow && g5 === 0 && g6 !== 0 ? dotted(g6, g7) : undefined
}

function groupsOf(address: string): readonly number[] | undefined {
  // WHATWG URLs normalise every spelling of an IPv6 address to hexadecimal groups.
  const canonical = URL.parse(`http://[${address}]/`)?.hostname.slice(1, -1)
  if (canonical === undefined) return undefined
  const [head = '', tail] = canonical.split('::')
  const groups = (text: string | undefined): number[] =>
    text === undefined || text === '' ? [] : text.split(':').map(group => Number.parseInt(group, 16))
  const front = groups(head)
  const back = groups(tail)
  return [...front, ...Array.from({ length: 8 - front.length - back.length }, () => 0), ...back]
}

function dotted(high: number, low: number): string {
  return [high >> 8, high & 255, low >> 8, low & 255].join('.')
}
