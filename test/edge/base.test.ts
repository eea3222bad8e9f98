import { connect } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { exchangeRaw, parseResponse, rawRequest } from '../fakes/raw-client.ts'
import { errorCode, get, head, usingLayover } from './pulling.ts'

const room = usingLayover()

const host = (): string => `Host: 127.0.0.1:${room.layover.port}\r\n`
const zeros = '0'.repeat(64)

describe('the base endpoint', () => {
  test('P-1, P-5: GET /v2/ answers for itself while upstream is down', async () => {
    await room.registry.stop()
    const { status, headers, body } = await get(room.layover, '/v2/')
    expect([status, headers['content-type'], body.toString()]).toEqual([200, 'application/json', '{}'])
    expect(headers['docker-distribution-api-version']).toBe('registry/2.0')
  })

  test('P-2: HEAD /v2/ sends headers and not one byte more', async () => {
    const { status, body, ending } = await head(room.layover, '/v2/')
    expect([status, body.length, ending]).toEqual([200, 0, 'fin'])
  })

  test('P-3: /v2 is answered as /v2/', async () => {
    expect((await get(room.layover, '/v2')).status).toBe(200)
  })

  test('P-20, P-79: metrics and health are not on this listener, and there is no catalog', async () => {
    for (const target of [
      '/metrics',
      '/healthz',
      '/readyz',
      '/livez',
      '/status',
      '/',
      '/v2/_catalog',
      '/v2/_catalog?n=1000000000',
    ]) {
      const answer = await get(room.layover, target)
      expect([target, answer.status, errorCode(answer)]).toEqual([target, 404, 'NAME_UNKNOWN'])
    }
    expect(room.registry.requests).toEqual([])
  })

  test('P-105, P-108: Date is there, Server is not, idle connections outlive those of a load balancer', async () => {
    const { headers } = await rawRequest(room.layover.port, '/v2/', {
      headers: { connection: 'keep-alive' },
      timeoutMs: 200,
    })
    expect(headers).toHaveProperty('date')
    expect(headers).not.toHaveProperty('server')
    expect(headers).not.toHaveProperty('x-powered-by')
    expect(headers['keep-alive']).toBe('timeout=75')
  })
})

describe('names and references', () => {
  test('P-6, P-7: repositories that look like endpoints are found', async () => {
    for (const name of ['a.b/c', 'a__b', 'a---b', 'a/b/c/d/e', '1/2', 'foo/manifests', 'foo/blobs/bar', 'tags/list']) {
      const image = room.registry.image(name, 'latest', { seed: name })
      const prefixed = await get(room.layover, `/v2/fake.test/${name}/manifests/latest`)
      expect([name, prefixed.status, prefixed.headers['docker-content-digest']]).toEqual([name, 200, image.digest])
      const tags = await get(room.layover, `/v2/fake.test/${name}/tags/list`)
      expect([name, tags.status]).toEqual([name, 200])
    }
  })

  test('P-6: names that are none are refused and nobody is asked', async () => {
    const refused = [
      'A/b',
      'a..b',
      'a.-b',
      'a___b',
      '-a',
      'a-',
      'a//b',
      '/a',
      'a/',
      'a/../b',
      'a/%2e%2e/b',
      'b%C3%BC',
      'a%20b',
      'a@b',
    ]
    for (const name of refused) {
      const answer = await get(room.layover, `/v2/fake.test/${name}/manifests/latest`)
      expect([name, answer.status, errorCode(answer)]).toEqual([name, 400, 'NAME_INVALID'])
    }
    expect(room.registry.requests).toEqual([])
  })

  test('P-8: with its host a name has at most 255 characters', async () => {
    const longest = 'a'.repeat(255 - 'fake.test/'.length)
    expect(errorCode(await get(room.layover, `/v2/${longest}/manifests/latest`))).toBe('MANIFEST_UNKNOWN')
    const answer = await get(room.layover, `/v2/${longest}a/manifests/latest`)
    expect([answer.status, errorCode(answer)]).toEqual([400, 'NAME_INVALID'])
  })

  test('P-9: what cannot be a tag is a manifest that does not exist, and nobody is asked', async () => {
    for (const tag of ['.hidden', '-dash', 'a'.repeat(129), 'a%20b', '%C3%BC']) {
      const answer = await get(room.layover, `/v2/app/manifests/${tag}`)
      expect([tag, answer.status, errorCode(answer)]).toEqual([tag, 404, 'MANIFEST_UNKNOWN'])
    }
    expect(room.registry.requests).toEqual([])
  })

  test('P-10, P-11: digests that cannot be verified are refused on every route', async () => {
    const bad = [
      'sha256:',
      'sha256:totallywrong',
      'sha256:baddigeststring',
      `sha256:${'A'.repeat(64)}`,
      `sha256:${'a'.repeat(63)}`,
      `sha256:${'a'.repeat(65)}`,
      `sha512:${zeros}`,
      `blake3:${zeros}`,
      `multihash+b58:${zeros}`,
    ]
    for (const digest of bad)
      for (const route of ['manifests', 'blobs', 'referrers']) {
        const answer = await get(room.layover, `/v2/app/${route}/${digest}`)
        expect([digest, route, answer.status, errorCode(answer)]).toEqual([digest, route, 400, 'DIGEST_INVALID'])
      }
    expect(room.registry.requests).toEqual([])
  })

  test('P-12: sha256-<hex>.sig is a tag', async () => {
    const image = room.registry.image('app', `sha256-${zeros}.sig`)
    const { status, headers } = await get(room.layover, `/v2/app/manifests/sha256-${zeros}.sig`)
    expect([status, headers['docker-content-digest'], headers['cache-control']]).toEqual([
      200,
      image.digest,
      'no-cache',
    ])
  })

  test('P-13: an encoded colon is a colon; encoded separators, NUL and double encoding are refused undecoded', async () => {
    const { digest } = room.registry.image('app', 'latest')
    for (const encoded of [digest.replace(':', '%3A'), digest.replace(':', '%3a')])
      expect((await get(room.layover, `/v2/app/manifests/${encoded}`)).status).toBe(200)
    const asked = room.registry.requests.length
    for (const name of ['a%2Fb', 'a%5Cb', 'a%00b', '%2e%2e', '%252e', 'a%', 'a%zz', '%FF', 'a%2f..%2fb']) {
      const answer = await get(room.layover, `/v2/${name}/manifests/latest`)
      expect([name, answer.status, errorCode(answer)]).toEqual([name, 400, 'NAME_INVALID'])
    }
    for (const reference of ['..%2f..%2fetc', 'a%00b', '%252e%252e']) {
      const answer = await get(room.layover, `/v2/app/manifests/${reference}`)
      expect([reference, answer.status >= 400 && answer.status < 500]).toEqual([reference, true])
      errorCode(answer)
    }
    expect(room.registry.requests.length).toBe(asked)
  })

  test('P-14: an empty part or a trailing slash is never taken for something else', async () => {
    room.registry.image('app', 'latest')
    const targets = [
      '/v2//app/manifests/latest',
      '//v2/app/manifests/latest',
      '/v2/app//manifests/latest',
      '/v2/app/manifests//latest',
      '/v2/app/manifests/',
      '/v2/app/manifests/latest/',
      '/v2/app/tags/list/',
      '/v2/app/blobs/',
      '/v2/manifests/latest',
      '/v2/app/referrers/',
    ]
    for (const target of targets) {
      const answer = await get(room.layover, target)
      expect([target, [400, 404].includes(answer.status)]).toEqual([target, true])
      errorCode(answer)
    }
    expect(room.registry.requests).toEqual([])
  })
})

describe('requests that a pull never makes', () => {
  test('P-15, P-16: other methods get 405 with Allow and an error document, and reach nobody', async () => {
    const uploads = [
      '/v2/app/blobs/uploads/',
      '/v2/app/blobs/uploads/?mount=x&from=y',
      '/v2/app/manifests/latest',
      `/v2/app/blobs/sha256:${zeros}`,
      '/v2/',
    ]
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'])
      for (const target of uploads) {
        const answer = await rawRequest(room.layover.port, target, { method, headers: { 'x-canary': 'echo-me' } })
        expect([method, target, answer.status, errorCode(answer)]).toEqual([method, target, 405, 'UNSUPPORTED'])
        expect(answer.headers.allow).toBe('GET, HEAD')
        expect(answer.body.toString()).not.toContain('echo-me')
      }
    expect(room.registry.requests).toEqual([])
  })

  test('P-15: GET of an upload is not supported either', async () => {
    const answer = await get(room.layover, '/v2/app/blobs/uploads/some-id')
    expect([answer.status, errorCode(answer), answer.headers.allow]).toEqual([405, 'UNSUPPORTED', 'GET, HEAD'])
  })

  test('P-16: CONNECT is hung up on', async () => {
    const { bytes, ending } = await exchangeRaw(room.layover.port, `CONNECT evil.test:443 HTTP/1.1\r\n${host()}\r\n`)
    expect([bytes.length, ending]).not.toEqual([0, 'open'])
    expect(bytes.toString()).not.toContain('200')
  })

  test('P-17: a small body on GET is skipped, and the next request on the connection is the next request', async () => {
    const both = `GET /v2/ HTTP/1.1\r\n${host()}Content-Length: 29\r\n\r\nGET /v2/x/tags/list HTTP/1.1\nHEAD /v2/ HTTP/1.1\r\n${host()}Connection: close\r\n\r\n`
    const { bytes, ending } = await exchangeRaw(room.layover.port, both)
    expect([bytes.toString().match(/HTTP\/1\.1 \d+/g), ending]).toEqual([['HTTP/1.1 200', 'HTTP/1.1 200'], 'fin'])
    expect(room.registry.requests).toEqual([])
  })

  test('P-17, F-69: an announced large body is refused with 413 and the connection closed, unread', async () => {
    const { bytes, ending } = await exchangeRaw(
      room.layover.port,
      `GET /v2/ HTTP/1.1\r\n${host()}Content-Length: 1000000000\r\n\r\n`,
    )
    const answer = parseResponse(bytes)
    expect([answer.status, errorCode(answer), answer.headers.connection, ending]).toEqual([
      413,
      'SIZE_INVALID',
      'close',
      'fin',
    ])
  })

  test('F-69: a body without announced length is not read for ever', async () => {
    const { written, closed } = await pour(`GET /v2/ HTTP/1.1\r\n${host()}Transfer-Encoding: chunked\r\n\r\n`)
    expect(closed).toBe(true)
    expect(written).toBeLessThan(32 * 1024 * 1024)
  })

  test('F-69: the body of an upload is not read either', async () => {
    const { written, closed } = await pour(
      `PUT /v2/app/manifests/latest HTTP/1.1\r\n${host()}Transfer-Encoding: chunked\r\n\r\n`,
    )
    expect(closed).toBe(true)
    expect(written).toBeLessThan(32 * 1024 * 1024)
  })

  test('P-17: 100-continue is answered, any other expectation is 417 with an error document', async () => {
    const { bytes } = await exchangeRaw(
      room.layover.port,
      `GET /v2/ HTTP/1.1\r\n${host()}Expect: 100-continue\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
    )
    expect(bytes.toString()).toMatch(/^HTTP\/1\.1 (100 Continue\r\n\r\nHTTP\/1\.1 )?200 /)
    const answer = await get(room.layover, '/v2/', { expect: 'the-spanish-inquisition' })
    expect([answer.status, errorCode(answer)]).toEqual([417, 'UNSUPPORTED'])
  })

  test('P-18, P-110: the authority of an absolute request target, Host and forwarding headers mean nothing', async () => {
    room.registry.image('app', 'a')
    room.registry.image('app', 'b')
    const request = `GET http://evil.test/v2/app/tags/list?n=1 HTTP/1.1\r\nHost: also-evil.test\r\nX-Forwarded-Host: evil.test\r\nForwarded: host=evil.test\r\nX-Original-URL: /v2/other/tags/list\r\nConnection: close\r\n\r\n`
    const { bytes } = await exchangeRaw(room.layover.port, request)
    const { status, headers, body } = parseResponse(bytes)
    expect([status, JSON.parse(body.toString())]).toEqual([200, { name: 'app', tags: ['a'] }])
    expect(headers.link).toBe('</v2/app/tags/list?n=1&last=a>; rel="next"')
    expect(bytes.toString()).not.toContain('evil')
  })

  test('P-19: two Host headers are refused', async () => {
    const { bytes } = await exchangeRaw(
      room.layover.port,
      `GET /v2/ HTTP/1.1\r\n${host()}Host: other.test\r\nConnection: close\r\n\r\n`,
    )
    const answer = parseResponse(bytes)
    expect([answer.status, errorCode(answer)]).toEqual([400, 'UNSUPPORTED'])
  })

  test('P-98: no Host header is an error document as well; HTTP/1.0 needs none', async () => {
    const { bytes } = await exchangeRaw(room.layover.port, 'GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n')
    const answer = parseResponse(bytes)
    expect([answer.status, errorCode(answer)]).toEqual([400, 'UNSUPPORTED'])
    const old = await exchangeRaw(room.layover.port, 'GET /v2/ HTTP/1.0\r\n\r\n')
    expect(parseResponse(old.bytes).status).toBe(200)
  })

  test.each([
    ['Content-Length and Transfer-Encoding', 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n'],
    ['two Content-Length', 'Content-Length: 5\r\nContent-Length: 6\r\n'],
    ['white space before a colon', 'Content-Length : 5\r\n'],
    ['a bare line feed', 'X-One: 1\nX-Two: 2\r\n'],
    ['a folded header', 'X-One: 1\r\n 2\r\n'],
    ['a transfer coding nobody knows', 'Transfer-Encoding: xchunked\r\n'],
    ['a transfer coding that hides another', 'Transfer-Encoding: gzip, chunked\r\n'],
    ['a negative length', 'Content-Length: -1\r\n'],
    ['NUL in a header', 'X-One: a\0b\r\n'],
  ])('T-31: %s is refused and ends the connection', async (_what, header) => {
    const smuggled = `GET /v2/ HTTP/1.1\r\n${host()}${header}\r\n0\r\n\r\nGET /v2/smuggled/tags/list HTTP/1.1\r\n${host()}\r\n`
    const { bytes, ending } = await exchangeRaw(room.layover.port, smuggled, { timeoutMs: 2_000 })
    expect(bytes.toString()).toMatch(/^HTTP\/1\.1 4\d\d /)
    expect(bytes.toString().match(/HTTP\/1\.1 \d+/g)).toHaveLength(1)
    expect(ending).not.toBe('open')
    errorCode(parseResponse(bytes))
    expect(room.registry.requests).toEqual([])
  })

  test('T-22: headers over the limit are 431, and the next client is none the wiser', async () => {
    const { digest } = room.registry.image('app', 'latest')
    const answer = await get(room.layover, '/v2/app/manifests/latest', { 'x-oversize': 'x'.repeat(20_000) })
    expect([answer.status, errorCode(answer)]).toEqual([431, 'SIZE_INVALID'])
    expect((await get(room.layover, '/v2/app/manifests/latest')).headers['docker-content-digest']).toBe(digest)
  })
})

describe('what is passed on', () => {
  test('P-104, T-9: upstream sees none of the client’s headers', async () => {
    const { layers } = room.registry.image('app', 'latest')
    const sent = {
      authorization: 'Basic canary',
      cookie: 'canary=1',
      'x-forwarded-for': '203.0.113.9',
      forwarded: 'for=canary',
      te: 'trailers',
      'proxy-authorization': 'Basic canary',
      'user-agent': 'canary/1',
      'if-modified-since': 'Thu, 01 Jan 1970 00:00:00 GMT',
      'if-none-match': '"canary"',
      'x-canary': 'canary',
      upgrade: 'canary',
      range: 'bytes=0-10',
      'accept-encoding': 'zstd;q=1.0, gzip;q=0.8, deflate;q=0.5',
    }
    await get(room.layover, '/v2/app/manifests/latest', sent)
    await get(room.layover, `/v2/app/blobs/${layers[0]?.digest}`, sent)
    expect(room.registry.requests.length).toBeGreaterThanOrEqual(2)
    for (const { headers } of room.registry.requests) {
      expect(JSON.stringify(headers)).not.toContain('canary')
      expect(headers['accept-encoding']).toBe('identity')
      expect(headers).not.toHaveProperty('x-forwarded-for')
      expect(headers).not.toHaveProperty('te')
      expect(headers).not.toHaveProperty('range')
      expect(headers).not.toHaveProperty('if-modified-since')
      expect(headers.host).toBe(room.registry.host)
    }
  })

  test('P-105, T-59: a request that comes back to its sender is 508', async () => {
    room.registry.image('app', 'latest')
    await get(room.layover, '/v2/app/manifests/latest')
    const via = room.registry.requests[0]?.headers.via
    expect(via).toMatch(/^1\.1 /)
    const answer = await get(room.layover, '/v2/app/manifests/other', { via: `1.0 first, ${via}` })
    expect([answer.status, errorCode(answer)]).toEqual([508, 'UNAVAILABLE'])
    expect((await get(room.layover, '/v2/app/manifests/latest', { via: '1.1 another-proxy' })).status).toBe(200)
  })
})

/** Sends a request and then chunks of a body until the other side has had enough; stops by itself at 64 MiB. */
async function pour(request: string): Promise<{ written: number; closed: boolean }> {
  const socket = connect(room.layover.port, '127.0.0.1')
  socket.on('error', () => undefined)
  const gone = new Promise<true>(resolve => socket.on('close', () => resolve(true)))
  socket.resume()
  socket.write(request)
  const chunk = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(0x10_0000), Buffer.from('\r\n')])
  let written = 0
  for (let failed = false; !failed && written < 64 * 1024 * 1024; written += chunk.length)
    failed = await Promise.race([gone, new Promise<boolean>(resolve => socket.write(chunk, error => resolve(!!error)))])
  const closed = await Promise.race([gone, setTimeout(1_000, false)])
  socket.destroy()
  return { written, closed }
}
