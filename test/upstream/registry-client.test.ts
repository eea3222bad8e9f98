import { createServer } from 'node:net'
import { describe, expect, test } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { bytesOf, client, closeLater, failureOf, fakeClock, fakeRegistry, recordingObserver } from './setup.ts'

describe('manifests', () => {
  test('P-36: asks with the full Accept list and gives the bytes as they are', async () => {
    const registry = await fakeRegistry()
    const image = registry.image('a/b', 'v1')
    const manifest = await client(registry.url).getManifest('a/b', 'v1')
    expect(manifest.bytes).toEqual(image.manifestBytes)
    expect(manifest).toMatchObject({ mediaType: image.mediaType, digest: image.digest, warnings: [] })
    expect(registry.requests[0]?.headers.accept).toBe(
      'application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, ' +
        'application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json',
    )
  })

  test('HEAD gives digest, type and size', async () => {
    const registry = await fakeRegistry()
    const image = registry.image('a/b', 'v1')
    expect(await client(registry.url).headManifest('a/b', 'v1')).toEqual({
      digest: image.digest,
      mediaType: image.mediaType,
      size: image.manifestBytes.length,
    })
  })

  test('P-40: a HEAD without digest leaves it absent', async () => {
    const registry = await fakeRegistry()
    registry.image('a/b', 'v1')
    registry.settings.digestHeader = false
    expect((await client(registry.url).headManifest('a/b', 'v1')).digest).toBeUndefined()
  })

  test.each([405, 501, 403, 401])(
    'F-32: HEAD refused with %i is remembered, and the caller told to GET',
    async status => {
      const registry = await fakeRegistry()
      registry.image('a/b', 'v1')
      registry.settings.headStatus = status
      const upstream = client(registry.url)
      for (let call = 0; call < 3; call++) expect((await upstream.headManifest('a/b', 'v1')).digest).toBeUndefined()
      expect(registry.count({ method: 'HEAD' })).toBe(1)
      expect((await upstream.getManifest('a/b', 'v1')).bytes.length).toBeGreaterThan(0)
    },
  )

  test('P-42: reads no more than 4 MiB, with and without Content-Length', async () => {
    const registry = await fakeRegistry()
    registry.addManifest('a/b', 'big', Buffer.alloc(4 * 1024 * 1024 + 1, 0x20), 'application/json')
    registry.addManifest('a/b', 'fits', Buffer.alloc(4 * 1024 * 1024, 0x20), 'application/json')
    const upstream = client(registry.url)
    expect(await failureOf(upstream.getManifest('a/b', 'big'))).toMatchObject({
      failure: 'invalid',
      reason: 'too_large',
    })
    registry.fault({}, { kind: 'chunked' })
    expect(await failureOf(upstream.getManifest('a/b', 'big'))).toMatchObject({
      failure: 'invalid',
      reason: 'too_large',
    })
    expect((await upstream.getManifest('a/b', 'fits')).bytes).toHaveLength(4 * 1024 * 1024)
  })

  test('P-103: passes well-formed warnings on', async () => {
    const registry = await fakeRegistry()
    registry.image('a/b', 'v1')
    registry.settings.headers['warning'] = '299 - "this image is deprecated"'
    const { warnings } = await client(registry.url).getManifest('a/b', 'v1')
    expect(warnings).toEqual(['299 - "this image is deprecated"'])
  })

  test('P-115, F-31: refuses a web page and an empty answer', async () => {
    const registry = await fakeRegistry()
    registry.image('a/b', 'v1')
    const upstream = client(registry.url)
    registry.fault({}, { kind: 'html' })
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({ failure: 'invalid', reason: 'html' })
    registry.fault({}, { kind: 'empty' })
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({ failure: 'invalid', reason: 'empty' })
  })

  test('T-44, P-61: refuses an encoded body and asks for identity', async () => {
    const registry = await fakeRegistry()
    registry.image('a/b', 'v1')
    registry.fault({}, { kind: 'gzip' })
    expect(await failureOf(client(registry.url).getManifest('a/b', 'v1'))).toMatchObject({
      failure: 'invalid',
      reason: 'encoded',
    })
    expect(registry.requests[0]?.headers['accept-encoding']).toBe('identity')
  })

  test('content by digest comes from a mirror when the upstream is dead; a tag does not (T-21)', async () => {
    const [registry, mirror] = [await fakeRegistry(), await fakeRegistry()]
    registry.image('a/b', 'v1')
    const image = mirror.image('a/b', 'v1')
    const upstream = client(registry.url, { mirrors: [mirror.url] })
    await registry.stop()
    expect((await upstream.getManifest('a/b', image.digest)).bytes).toEqual(image.manifestBytes)
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({
      failure: 'unavailable',
      reason: 'connect',
    })
    expect(await failureOf(upstream.getManifest('a/b', image.digest, { source: 0 }))).toMatchObject({
      reason: 'connect',
    })
    expect(mirror.count({ path: /v1/ })).toBe(0)
  })
})

describe('blobs', () => {
  test('gives the bytes from the start, with size and etag, and counts them', async () => {
    const registry = await fakeRegistry()
    const bytes = Buffer.alloc(300_000, 3)
    const digest = registry.addBlobTo('a/b', bytes)
    const observer = recordingObserver()
    const blob = await client(registry.url, { with: { observer } }).getBlob('a/b', digest, { offset: 0, source: 0 })
    expect(blob).toMatchObject({ offset: 0, size: 300_000, etag: `"${digest}"` })
    expect((await bytesOf(blob.body)).equals(bytes)).toBe(true)
    const counted = observer.events.filter(({ name }) => name === 'upstreamBytes').map(({ args }) => Number(args[2]))
    expect(counted.reduce((sum, count) => sum + count, 0)).toBe(300_000)
    expect(registry.requests[0]?.headers.range).toBeUndefined()
  })

  test('continues from an offset and stops at an end', async () => {
    const registry = await fakeRegistry()
    const bytes = Buffer.from('0123456789')
    const digest = registry.addBlobTo('a/b', bytes)
    const upstream = client(registry.url)
    const rest = await upstream.getBlob('a/b', digest, { offset: 4, source: 0 })
    expect(rest).toMatchObject({ offset: 4, size: 10 })
    expect((await bytesOf(rest.body)).toString()).toBe('456789')
    const middle = await upstream.getBlob('a/b', digest, { offset: 4, end: 6, source: 0 })
    expect((await bytesOf(middle.body)).toString()).toBe('456')
    const beyond = await upstream.getBlob('a/b', digest, { offset: 4, end: 600, source: 0 })
    expect((await bytesOf(beyond.body)).toString()).toBe('456789')
  })

  test('P-114: a range that upstream ignores comes from 0, a wrong one is refused', async () => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.from('0123456789'))
    const upstream = client(registry.url)
    registry.fault({ path: /blobs/ }, { kind: 'ignoreRange' })
    const whole = await upstream.getBlob('a/b', digest, { offset: 4, source: 0 })
    expect(whole).toMatchObject({ offset: 0, size: 10 })
    expect(await bytesOf(whole.body)).toHaveLength(10)
    registry.fault({ path: /blobs/ }, { kind: 'wrongRange' })
    expect(await failureOf(upstream.getBlob('a/b', digest, { offset: 4, source: 0 }))).toMatchObject({
      failure: 'invalid',
      reason: 'wrong_range',
    })
  })

  test.each([204, 205, 304, 206, 416])('P-116: %i without having asked for it cannot be used', async status => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.from('x'))
    registry.fault({ path: /blobs/ }, { kind: 'status', status })
    expect(await failureOf(client(registry.url).getBlob('a/b', digest, { offset: 0, source: 0 }))).toMatchObject({
      failure: 'invalid',
      reason: `http_${status}`,
    })
  })

  test('F-1, F-2, F-5: a body that is cut errors, with a word for how', async () => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.alloc(100_000))
    const upstream = client(registry.url)
    const read = async (): Promise<void> => {
      const { body } = await upstream.getBlob('a/b', digest, { offset: 0, source: 0 })
      await bytesOf(body)
    }
    registry.fault({ path: /blobs/ }, { kind: 'cut', at: 1000, how: 'fin' })
    expect(await failureOf(read())).toMatchObject({ failure: 'unavailable', reason: 'truncated' })
    registry.fault({ path: /blobs/ }, { kind: 'cut', at: 1000, how: 'rst' })
    expect(await failureOf(read())).toMatchObject({ failure: 'unavailable', reason: 'reset' })
    registry.fault({ path: /blobs/ }, { kind: 'chunked', cutAt: 1000 })
    expect(await failureOf(read())).toMatchObject({ failure: 'unavailable', reason: 'truncated' })
  })

  test('F-10: a body that stalls errors after the idle time', async () => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.alloc(100_000))
    registry.fault({ path: /blobs/ }, { kind: 'stall', at: 1000 })
    const { body } = await client(registry.url, { idleTimeoutMs: 100 }).getBlob('a/b', digest, { offset: 0, source: 0 })
    expect(await failureOf(bytesOf(body))).toMatchObject({ failure: 'unavailable', reason: 'timeout' })
  })

  test('is not retried inside: the fill decides', async () => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.from('x'))
    registry.fault({ path: /blobs/ }, { kind: 'status', status: 503 })
    const failure = await failureOf(client(registry.url).getBlob('a/b', digest, { offset: 0, source: 0 }))
    expect(failure).toMatchObject({ failure: 'unavailable', reason: 'http_503', status: 503 })
    expect(registry.count({ path: /blobs/ })).toBe(1)
  })

  test('opens no more bodies at once than configured, clients before background', async () => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.alloc(2_000_000))
    const upstream = client(registry.url, { maxConnections: 1 })
    const first = await upstream.getBlob('a/b', digest, { offset: 0, source: 0 })
    const order: string[] = []
    const openNext = async (name: string, background: boolean): Promise<void> => {
      const blob = await upstream.getBlob('a/b', digest, { offset: 0, source: 0, background })
      order.push(name)
      blob.body.destroy()
    }
    const waiting = [openNext('background', true), openNext('client', false)]
    expect(registry.count({ path: /blobs/ })).toBe(1)
    first.body.destroy()
    await Promise.all(waiting)
    expect(order).toEqual(['client', 'background'])
  })

  test('a signal ends the wait, the request and the body with its reason', async () => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.alloc(2_000_000))
    const upstream = client(registry.url, { maxConnections: 1 })
    const reason = new Error('nobody waits any more')
    const body = new AbortController()
    const opened = await upstream.getBlob('a/b', digest, { offset: 0, source: 0, signal: body.signal })
    const waiting = new AbortController()
    const queued = upstream.getBlob('a/b', digest, { offset: 0, source: 0, signal: waiting.signal })
    waiting.abort(reason)
    await expect(queued).rejects.toBe(reason)
    body.abort(reason)
    await expect(bytesOf(opened.body)).rejects.toBe(reason)
    registry.fault({ path: /blobs/ }, { kind: 'hang' })
    const hanging = new AbortController()
    const request = upstream.getBlob('a/b', digest, { offset: 0, source: 0, signal: hanging.signal })
    hanging.abort(reason)
    await expect(request).rejects.toBe(reason)
    expect(upstream.health().state).toBe('closed')
  })
})

describe('the size of a blob', () => {
  test('comes from HEAD, and is remembered nowhere', async () => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.alloc(1234))
    expect(await client(registry.url).headBlob('a/b', digest)).toEqual({ size: 1234 })
    expect(registry.count({ method: 'HEAD' })).toBe(1)
    expect(registry.count({ method: 'GET' })).toBe(0)
  })

  test.each([401, 403, 405])(
    'P-50: comes from a one-byte GET where HEAD answers %i, from then on at once',
    async status => {
      const registry = await fakeRegistry()
      const digest = registry.addBlobTo('a/b', Buffer.alloc(1234))
      registry.settings.headStatus = status
      const upstream = client(registry.url)
      expect(await upstream.headBlob('a/b', digest)).toEqual({ size: 1234 })
      expect(await upstream.headBlob('a/b', digest)).toEqual({ size: 1234 })
      expect(registry.count({ method: 'HEAD' })).toBe(1)
      expect(registry.requests.at(-1)?.headers.range).toBe('bytes=0-0')
    },
  )

  test('P-50: comes from a one-byte GET when the presigned URL refuses HEAD', async () => {
    const registry = await fakeRegistry({ blobRedirect: 'absolute' })
    const digest = registry.addBlobTo('a/b', Buffer.alloc(1234))
    expect(await client(registry.url).headBlob('a/b', digest)).toEqual({ size: 1234 })
    expect(registry.bytes()).toBeLessThan(100)
  })

  test('a blob that is not there is not found, without trying mirrors', async () => {
    const [registry, mirror] = [await fakeRegistry(), await fakeRegistry()]
    registry.addBlobTo('a/b', Buffer.from('other'))
    const digest = mirror.addBlobTo('a/b', Buffer.from('x'))
    const upstream = client(registry.url, { mirrors: [mirror.url] })
    expect(await failureOf(upstream.headBlob('a/b', digest))).toMatchObject({ failure: 'notFound', status: 404 })
    await registry.stop()
    expect(await upstream.headBlob('a/b', digest)).toEqual({ size: 1 })
  })
})

describe('lists', () => {
  test('a page of tags with the query of the next', async () => {
    const registry = await fakeRegistry()
    for (const tag of ['a', 'b', 'c']) registry.image('a/b', tag)
    const page = await client(registry.url).listTags('a/b', new URLSearchParams({ n: '2' }))
    expect(JSON.parse(page.bytes.toString())).toEqual({ name: 'a/b', tags: ['a', 'b'] })
    expect(page.mediaType).toBe('application/json')
    expect(page.next?.toString()).toBe('n=2&last=b')
  })

  test.each([
    ['another host', '<http://169.254.169.254/v2/a/b/tags/list?last=x>; rel="next"', undefined],
    ['another path', '</v2/other/tags/list?last=x>; rel="next"', undefined],
    ['the same host, absolute', '<ORIGIN/v2/a/b/tags/list?last=x>; rel="next"', 'last=x'],
    ['only a query', '<?last=x&next_page=opaque>; rel="next"', 'last=x&next_page=opaque'],
    ['dots in the path', '</v2/a/b/../../_catalog>; rel="next"', undefined],
  ])('T-6: a link to %s', async (_, link, expected) => {
    const registry = await fakeRegistry()
    registry.image('a/b', 'v1')
    registry.settings.headers['link'] = link.replace('ORIGIN', registry.url)
    const { next } = await client(registry.url).listTags('a/b', new URLSearchParams())
    expect(next?.toString()).toBe(expected)
    expect(registry.count()).toBe(1)
  })

  test('referrers come as they are; where the API is missing they are not found', async () => {
    const registry = await fakeRegistry()
    const image = registry.image('a/b', 'v1')
    const upstream = client(registry.url)
    const query = new URLSearchParams({ artifactType: 'application/x' })
    const page = await upstream.listReferrers('a/b', image.digest, query)
    expect(page).toMatchObject({ mediaType: 'application/vnd.oci.image.index.v1+json', filtersApplied: 'artifactType' })
    registry.settings.referrers = false
    expect(await failureOf(upstream.listReferrers('a/b', image.digest, query))).toMatchObject({ failure: 'notFound' })
    registry.fault({ path: /referrers/ }, { kind: 'status', status: 405 })
    expect(await failureOf(upstream.listReferrers('a/b', image.digest, query))).toMatchObject({ failure: 'notFound' })
  })
})

describe('failures', () => {
  test.each([
    [404, 'notFound'],
    [410, 'notFound'],
    [401, 'denied'],
    [403, 'denied'],
    [429, 'rateLimited'],
    [400, 'invalid'],
    [500, 'unavailable'],
    [503, 'unavailable'],
    [408, 'unavailable'],
  ])('P-99: %i is %s', async (status, failure) => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.from('x'))
    registry.fault({ times: 9 }, { kind: 'status', status })
    const seen = await failureOf(client(registry.url).getBlob('a/b', digest, { offset: 0, source: 0 }))
    expect(seen).toMatchObject({ failure, status, reason: `http_${status}`, upstream: 'registry.example.com' })
  })

  test('F-12: small requests are repeated twice after 5xx and resets, and no 4xx is', async () => {
    const registry = await fakeRegistry()
    registry.image('a/b', 'v1')
    const upstream = client(registry.url)
    registry.fault({}, { kind: 'status', status: 502 })
    registry.fault({}, { kind: 'reset' })
    expect((await upstream.getManifest('a/b', 'v1')).bytes.length).toBeGreaterThan(0)
    expect(registry.count()).toBe(3)
    registry.fault({}, { kind: 'status', status: 404 })
    expect((await failureOf(upstream.getManifest('a/b', 'v1'))).failure).toBe('notFound')
    expect(registry.count()).toBe(4)
  })

  test('F-11: headers that never come are a timeout', async () => {
    const registry = await fakeRegistry()
    registry.fault({}, { kind: 'hang' })
    const failure = await failureOf(client(registry.url, { headersTimeoutMs: 100 }).getManifest('a/b', 'v1'))
    expect(failure).toMatchObject({ failure: 'unavailable', reason: 'timeout' })
    expect(registry.count()).toBe(1)
  })

  test('F-11: a handshake that never ends is a timeout', async () => {
    const silent = createServer(socket => socket.on('error', () => {}))
    await new Promise<void>(resolve => silent.listen(0, '127.0.0.1', resolve))
    const sockets: { destroy(): void }[] = []
    silent.on('connection', socket => sockets.push(socket))
    closeLater({
      close: () => {
        for (const socket of sockets) socket.destroy()
        return new Promise(resolve => silent.close(resolve))
      },
    })
    const address = silent.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    const upstream = client(`https://127.0.0.1:${port}`, { connectTimeoutMs: 100 })
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({
      failure: 'unavailable',
      reason: 'timeout',
    })
  })

  test('F-25: a name that does not resolve is dns', async () => {
    const lookup = (_: string, __: unknown, callback: (error: NodeJS.ErrnoException, found: []) => void): void =>
      callback(Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' }), [])
    const upstream = client('http://gone.test', { with: { lookup } })
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({ failure: 'unavailable', reason: 'dns' })
  })

  test('P-112: a keep-alive connection that died is replaced without anybody noticing', async () => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.from('hello'))
    const upstream = client(registry.url)
    await bytesOf((await upstream.getBlob('a/b', digest, { offset: 0, source: 0 })).body)
    registry.fault({ path: /blobs/ }, { kind: 'reset' })
    const blob = await upstream.getBlob('a/b', digest, { offset: 0, source: 0 })
    expect((await bytesOf(blob.body)).toString()).toBe('hello')
    expect(registry.count()).toBe(3)
  })

  test('an answer that is not HTTP is invalid', async () => {
    const registry = await fakeRegistry()
    registry.fault({}, { kind: 'raw', bytes: 'SSH-2.0-OpenSSH\r\n\r\n' })
    const failure = await failureOf(client(registry.url).getManifest('a/b', 'v1'))
    expect(failure).toMatchObject({ failure: 'invalid', reason: 'bad_http' })
  })

  test('P-111: reuses its connections', async () => {
    const registry = await fakeRegistry()
    registry.image('a/b', 'v1')
    const upstream = client(registry.url)
    for (let call = 0; call < 5; call++) await upstream.getManifest('a/b', 'v1')
    // The second may be opened while the first is still being put back.
    expect(registry.connections).toBeLessThanOrEqual(2)
  })

  test('offline: no call touches a socket', async () => {
    const registry = await fakeRegistry()
    const digest = digestOf(Buffer.from('x'))
    const upstream = client(registry.url, { with: { offline: true } })
    const calls = [
      upstream.headManifest('a/b', 'v1'),
      upstream.getManifest('a/b', digest),
      upstream.headBlob('a/b', digest),
      upstream.getBlob('a/b', digest, { offset: 0, source: 0 }),
      upstream.listTags('a/b', new URLSearchParams()),
      upstream.listReferrers('a/b', digest, new URLSearchParams()),
    ]
    for (const call of calls) expect(await failureOf(call)).toMatchObject({ failure: 'unavailable', reason: 'offline' })
    expect(registry.connections).toBe(0)
  })
})

describe('limits', () => {
  test('P-101: Docker Hub limits reach the observer', async () => {
    const registry = await fakeRegistry()
    registry.image('a/b', 'v1')
    registry.settings.headers = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600' }
    const observer = recordingObserver()
    await client(registry.url, { with: { observer } }).headManifest('a/b', 'v1')
    expect(observer.events).toContainEqual({
      name: 'upstreamRateLimit',
      args: ['registry.example.com', { limit: 100, remaining: 76 }],
    })
  })

  test.each([
    ['seconds', '30'],
    ['a date', new Date(1_000_000_030_000).toUTCString()],
  ])('P-102: after a 429 nothing is asked until Retry-After, given as %s', async (_, retryAfter) => {
    const registry = await fakeRegistry()
    registry.image('a/b', 'v1')
    const clock = fakeClock()
    const upstream = client(registry.url, { with: { clock } })
    registry.fault({}, { kind: 'status', status: 429, headers: { 'retry-after': retryAfter } })
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({
      failure: 'rateLimited',
      retryAfterMs: 30_000,
    })
    clock.advance(20_000)
    expect(await failureOf(upstream.headManifest('c/d', 'v2'))).toMatchObject({
      failure: 'rateLimited',
      reason: 'rate_limited',
      retryAfterMs: 10_000,
    })
    expect(upstream.health()).toMatchObject({ state: 'open', blockedUntil: clock.now() + 10_000 })
    expect(registry.count()).toBe(1)
    clock.advance(10_000)
    expect((await upstream.getManifest('a/b', 'v1')).bytes.length).toBeGreaterThan(0)
    expect(upstream.health().blockedUntil).toBeUndefined()
  })

  test('a dead upstream is left alone after five failures, and one probe finds it alive', async () => {
    const registry = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.from('x'))
    const clock = fakeClock()
    const observer = recordingObserver()
    const upstream = client(registry.url, { with: { clock, observer } })
    const openBlob = async (): Promise<void> => {
      const { body } = await upstream.getBlob('a/b', digest, { offset: 0, source: 0 })
      await bytesOf(body)
    }
    registry.fault({ times: 5 }, { kind: 'status', status: 500 })
    for (let call = 0; call < 5; call++) expect((await failureOf(openBlob())).reason).toBe('http_500')
    expect((await failureOf(openBlob())).reason).toBe('breaker_open')
    expect(registry.count()).toBe(5)
    expect(upstream.health()).toMatchObject({ state: 'open', unreachableSince: clock.now(), lastError: 'http_500' })
    clock.advance(2000)
    await openBlob()
    expect(upstream.health()).toMatchObject({ state: 'closed', unreachableSince: undefined, blockedUntil: undefined })
    const states = observer.events.filter(({ name }) => name === 'upstreamState').map(({ args }) => args[1])
    expect(states).toEqual(['open', 'half-open', 'closed'])
  })
})

describe('what is sent', () => {
  test('P-104: only headers of an allow-list, whatever is asked', async () => {
    const registry = await fakeRegistry({ auth: 'bearer', blobRedirect: 'absolute' })
    const image = registry.image('a/b', 'v1')
    const upstream = client(registry.url)
    await upstream.headManifest('a/b', 'v1')
    await upstream.getManifest('a/b', 'v1')
    await upstream.headBlob('a/b', image.config.digest)
    await bytesOf((await upstream.getBlob('a/b', image.config.digest, { offset: 1, source: 0 })).body)
    await upstream.listTags('a/b', new URLSearchParams({ n: '1' }))
    const allowed = new Set([
      'host',
      'connection',
      'accept-encoding',
      'user-agent',
      'via',
      'accept',
      'authorization',
      'range',
    ])
    for (const { headers } of registry.requests) {
      expect(Object.keys(headers).filter(name => !allowed.has(name))).toEqual([])
      expect(headers['user-agent']).toMatch(/^layover\/\d+\.\d+\.\d+$/)
      expect(headers.via).toBe('1.1 layover')
    }
    expect(registry.requests.length).toBeGreaterThan(6)
  })
})
