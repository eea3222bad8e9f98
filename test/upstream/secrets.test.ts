import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { createLog } from '../../src/log/log.ts'
import { digestOf } from '../../src/oci/digest.ts'
import type { Upstream } from '../../src/upstream/upstream.ts'
import { type FakeRegistry, presignedSecret } from '../fakes/registry.ts'
import { bytesOf, client, failureOf, fakeRegistry } from './setup.ts'

const password = 'password-canary-8b1c'
const tokenCanary = 'token-canary-77aa'
const canaries = [
  password,
  Buffer.from(`ci:${password}`).toString('base64'),
  tokenCanary,
  presignedSecret,
  'user-canary',
  'X-Amz-Signature',
]

type Case = readonly [name: string, prepare: (registry: FakeRegistry) => unknown]

const signed = `?X-Amz-Signature=${presignedSecret}`
const digest = digestOf(Buffer.from('hello'))
const readBlob = async (upstream: Upstream): Promise<unknown> => {
  const { body } = await upstream.getBlob('a/b', digest, { offset: 0, source: 0 })
  return bytesOf(body)
}
const respondWithToken = (registry: FakeRegistry, status: number, body: string): void => {
  registry.tokens.answer = { status, headers: {}, body: Buffer.from(body) }
}

const cases: readonly Case[] = [
  ['a redirect to a private address', r => r.fault({}, { kind: 'redirect', location: `http://10.0.0.1/${signed}` })],
  ['a redirect to a broken URL', r => r.fault({}, { kind: 'redirect', location: `http://[${signed}` })],
  [
    'a redirect with a user',
    r => r.fault({}, { kind: 'redirect', location: `http://user-canary:x@127.0.0.1/${signed}` }),
  ],
  ['a redirect to nowhere', r => r.fault({ times: 2 }, { kind: 'redirect', location: `http://127.0.0.1:1/${signed}` })],
  [
    'a redirect to no name',
    r => r.fault({ times: 2 }, { kind: 'redirect', location: `http://gone.invalid/${signed}` }),
  ],
  ['endless redirects', r => r.fault({ times: 99 }, { kind: 'redirect', location: `/v2/again${signed}` })],
  ['a storage host that refuses', r => r.fault({ origin: 'cdn', times: 9 }, { kind: 'status', status: 403 })],
  ['a storage host that fails', r => r.fault({ origin: 'cdn', times: 9 }, { kind: 'status', status: 500 })],
  ['a storage host that resets', r => r.fault({ origin: 'cdn', times: 9 }, { kind: 'reset' })],
  ['a storage host that cuts', r => r.fault({ origin: 'cdn', times: 9 }, { kind: 'cut', at: 1, how: 'fin' })],
  ['a storage host that lies', r => r.fault({ origin: 'cdn', times: 9 }, { kind: 'lie', contentLength: 50 })],
  ['a token without the right', r => respondWithToken(r, 200, JSON.stringify({ token: tokenCanary }))],
  ['a token that is not JSON', r => respondWithToken(r, 200, `token=${tokenCanary}`)],
  ['a token server that echoes', r => respondWithToken(r, 403, `${password} ${tokenCanary}`)],
  ['a token server that refuses', r => respondWithToken(r, 401, password)],
  ['a token server that fails', r => respondWithToken(r, 500, password)],
  ['a token server that resets', r => r.fault({ path: /^\/token$/, times: 9 }, { kind: 'reset' })],
  [
    'a realm with a user',
    r => Object.assign(r.settings, { challenge: `Bearer realm="https://user-canary@${r.host}/t"` }),
  ],
  ['a realm elsewhere', r => Object.assign(r.settings, { challenge: `Bearer realm="https://x.test/${signed}"` })],
  [
    'half an HTTP answer',
    r => r.fault({ times: 9 }, { kind: 'raw', bytes: `HTTP/1.1 307 x\r\nbad\x00: y\r\nlocation: /${signed}\r\n\r\n` }),
  ],
  [
    'too long headers',
    r => r.fault({ times: 9 }, { kind: 'status', status: 200, headers: { 'x-y': 'a'.repeat(40_000) } }),
  ],
]

describe('T-10: no secret in an error, its causes or the log', () => {
  test.each(cases)('after %s', async (_, prepare) => {
    const registry = await fakeRegistry({ auth: 'bearer', username: 'ci', password, blobRedirect: 'absolute' })
    registry.addBlobTo('a/b', Buffer.from('hello'))
    prepare(registry)
    const lines: string[] = []
    const log = createLog({ level: 'trace', stream: { write: line => lines.push(line) } })
    const upstream = client(registry.url, {
      credentials: { kind: 'password', username: 'ci', password },
      with: { log },
    })
    const failure = await failureOf(readBlob(upstream))
    const shown = inspect(failure, { depth: Number.POSITIVE_INFINITY, showHidden: true }) + lines.join('\n')
    expect(canaries.filter(canary => shown.includes(canary))).toEqual([])
    expect(failure.message.length).toBeGreaterThan(10)
    expect(inspect(upstream.health())).not.toContain('canary')
  })
})
