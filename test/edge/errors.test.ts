import { describe, expect, test } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import type { RawResponse } from '../fakes/raw-client.ts'
import { errorCode, get, head, usingLayover } from './pulling.ts'

const room = usingLayover()
const absent = digestOf(Buffer.from('absent'))

const routes = {
  manifest: '/v2/app/manifests/latest',
  blob: `/v2/app/blobs/${absent}`,
  tags: '/v2/app/tags/list',
  referrers: `/v2/app/referrers/${absent}`,
}
type Route = keyof typeof routes

/** An answer reduced to status and code; content has no code. */
const told = (answer: RawResponse): readonly [number, string | undefined] => [
  answer.status,
  answer.status < 400 ? undefined : errorCode(answer),
]

/** What upstream says, and what a client is told of it. 401 and 403 are no information, 404 is; nothing becomes 401 or 429. */
const table: readonly [number, Record<Route, readonly [number, string | undefined]>][] = [
  [401, { manifest: [403, 'DENIED'], blob: [403, 'DENIED'], tags: [403, 'DENIED'], referrers: [403, 'DENIED'] }],
  [403, { manifest: [403, 'DENIED'], blob: [403, 'DENIED'], tags: [403, 'DENIED'], referrers: [403, 'DENIED'] }],
  [
    404,
    {
      manifest: [404, 'MANIFEST_UNKNOWN'],
      blob: [404, 'BLOB_UNKNOWN'],
      tags: [404, 'NAME_UNKNOWN'],
      referrers: [200, undefined],
    },
  ],
  [
    410,
    {
      manifest: [404, 'MANIFEST_UNKNOWN'],
      blob: [404, 'BLOB_UNKNOWN'],
      tags: [404, 'NAME_UNKNOWN'],
      referrers: [200, undefined],
    },
  ],
  [
    429,
    {
      manifest: [503, 'UNAVAILABLE'],
      blob: [503, 'UNAVAILABLE'],
      tags: [503, 'UNAVAILABLE'],
      referrers: [503, 'UNAVAILABLE'],
    },
  ],
  [
    500,
    {
      manifest: [503, 'UNAVAILABLE'],
      blob: [503, 'UNAVAILABLE'],
      tags: [503, 'UNAVAILABLE'],
      referrers: [503, 'UNAVAILABLE'],
    },
  ],
  [
    503,
    {
      manifest: [503, 'UNAVAILABLE'],
      blob: [503, 'UNAVAILABLE'],
      tags: [503, 'UNAVAILABLE'],
      referrers: [503, 'UNAVAILABLE'],
    },
  ],
]

describe.each(Object.keys(routes) as Route[])('upstream fails, %s', route => {
  test.each(table)('P-97, P-98, P-99: upstream says %i', async (status, answers) => {
    const limit: Record<string, string> = status === 429 ? { 'retry-after': '7' } : {}
    const headers = { 'content-type': 'text/html', 'www-authenticate': 'Basic realm="x"', ...limit }
    room.registry.fault({ times: 1000 }, { kind: 'status', status, headers, body: '<h1>secret-upstream-text</h1>' })
    const answer = await get(room.layover, routes[route])
    expect(told(answer)).toEqual(answers[route])
    expect(answer.body.toString()).not.toContain('secret-upstream-text')
    expect(answer.body.toString()).not.toContain(room.registry.host)
    expect(answer.headers['cache-control']).toBe(answer.status < 400 ? 'no-cache' : 'no-store')
    expect(answer.headers).not.toHaveProperty('www-authenticate')
    expect(answer.headers['docker-distribution-api-version']).toBe('registry/2.0')
    const wait = Number(answer.headers['retry-after'] ?? 0)
    expect(wait).toBeGreaterThanOrEqual(status === 429 ? 7 : answer.status === 503 ? 1 : 0)
  })

  test('P-99, F-11: upstream is not there', async () => {
    await room.registry.stop()
    const answer = await get(room.layover, routes[route])
    expect([answer.status, errorCode(answer)]).toEqual([503, 'UNAVAILABLE'])
    expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1)
    const asked = await head(room.layover, routes[route])
    expect([asked.status, asked.body.length]).toEqual([503, 0])
  })
})

describe('error documents', () => {
  test('P-98, P-5: every refusal is one, with a code of the list and the version header', async () => {
    const listed = new Set([
      'BLOB_UNKNOWN',
      'DENIED',
      'DIGEST_INVALID',
      'MANIFEST_INVALID',
      'MANIFEST_UNKNOWN',
      'NAME_INVALID',
      'NAME_UNKNOWN',
      'PAGINATION_NUMBER_INVALID',
      'RANGE_INVALID',
      'SIZE_INVALID',
      'TOOMANYREQUESTS',
      'UNAUTHORIZED',
      'UNAVAILABLE',
      'UNKNOWN',
      'UNSUPPORTED',
    ])
    const targets = [
      '/v2/x',
      '/v2/x/y',
      '/v2/x/manifests',
      '/v2/x/manifests/',
      '/v2/X/manifests/latest',
      '/v2/x/manifests/.y',
      '/v2/x/blobs/y',
      `/v2/x/blobs/${absent}`,
      '/v2/x/tags',
      '/v2/x/tags/list?n=-1',
      '/v2/x/tags/list',
      '/v2/x/referrers/y',
      '/v2/%',
      '/v2/_catalog',
      '/v1/',
      '/V2/',
      '/',
      '/favicon.ico',
      '/v2/x/manifests/y?ns=unknown.test',
      '*',
      '/v2/x/blobs/uploads/',
    ]
    for (const target of targets) {
      const answer = await get(room.layover, target)
      expect([target, answer.status >= 400 && answer.status < 600, listed.has(errorCode(answer))]).toEqual([
        target,
        true,
        true,
      ])
      expect([target, answer.headers['docker-distribution-api-version']]).toEqual([target, 'registry/2.0'])
      expect([target, answer.headers['x-content-type-options']]).toEqual([target, 'nosniff'])
    }
  })

  test('P-102: after a 429 upstream is left alone until Retry-After, and then asked again', async () => {
    room.registry.image('app', 'latest')
    room.registry.image('app', 'second')
    room.registry.fault({ path: /manifests/ }, { kind: 'status', status: 429, headers: { 'retry-after': '30' } })
    const limited = await get(room.layover, '/v2/app/manifests/latest')
    expect([limited.status, Number(limited.headers['retry-after']) >= 25]).toEqual([503, true])
    const asked = room.registry.requests.length
    expect((await get(room.layover, '/v2/app/manifests/second')).status).toBe(503)
    expect(room.registry.requests.length).toBe(asked)
    room.clock.advance(31_000)
    expect((await get(room.layover, '/v2/app/manifests/second')).status).toBe(200)
  })

  test('P-99, F-15: a blob that is gone is 404 for itself alone', async () => {
    const { layers, config } = room.registry.image('app', 'latest')
    await get(room.layover, '/v2/app/manifests/latest')
    const gone = layers[0]?.digest
    if (gone !== undefined) room.registry.removeBlob('app', gone)
    const answer = await get(room.layover, `/v2/app/blobs/${gone}`)
    expect([answer.status, errorCode(answer)]).toEqual([404, 'BLOB_UNKNOWN'])
    expect((await get(room.layover, `/v2/app/blobs/${config.digest}`)).status).toBe(200)
    expect((await get(room.layover, '/v2/app/manifests/latest')).status).toBe(200)
  })
})
