import type { IncomingMessage } from 'node:http'
import { expect, test } from 'vitest'
import { parseNetwork } from '../../src/config/network.ts'
import { createRedirectRule } from '../../src/edge/redirect-rule.ts'

const networks = ['10.0.0.0/8', '192.0.2.7', 'fd00::/8', 'fe80::/10'].flatMap(text => parseNetwork(text) ?? [])
const rule = createRedirectRule({ networks, minBytes: 0, ttlMs: 60_000, endpoint: undefined })

test.each([
  ['10.1.2.3', true],
  ['11.1.2.3', false],
  ['192.0.2.7', true],
  ['192.0.2.8', false],
  ['fd12::1', true],
  ['fe80::1%eth0', true],
  ['2001:db8::1', false],
  // An IPv4 client of a listener on both.
  ['::ffff:10.1.2.3', true],
  ['::ffff:11.1.2.3', false],
  [undefined, false],
])('P-63: %s is sent to the bucket: %s', (remoteAddress, expected) => {
  const request = { headers: {}, socket: { remoteAddress } } as unknown as IncomingMessage
  expect(rule.isFor(request)).toBe(expected)
})
