import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { FakeRegistry } from '../fakes/registry.ts'
import { bytesOf, client, closeLater, failureOf, fakeClock, fakeRegistry, recordingObserver } from './setup.ts'

const password = { kind: 'password', username: 'ci', password: 'pass' } as const

async function bearerRegistry(options: { private?: readonly string[] } = {}): Promise<FakeRegistry> {
  const registry = await fakeRegistry({ auth: 'bearer', username: 'ci', password: 'pass', ...options })
  for (const repository of ['a/b', 'c/d']) registry.image(repository, 'v1')
  return registry
}

async function temporaryFile(name: string, text: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'layover-credentials-'))
  closeLater({ close: () => rm(directory, { recursive: true }) })
  await writeFile(join(directory, name), text)
  return join(directory, name)
}

describe('tokens', () => {
  test('P-87: an anonymous token is asked by GET, with service and scope, without account', async () => {
    const registry = await bearerRegistry()
    await client(registry.url).getManifest('a/b', 'v1')
    expect(registry.tokenExchanges).toHaveLength(1)
    const [exchange] = registry.tokenExchanges
    expect(exchange).toMatchObject({ method: 'GET', authorization: undefined, scopes: ['repository:a/b:pull'] })
    expect(exchange?.query.get('service')).toBe(registry.host)
    expect(exchange?.query.has('account')).toBe(false)
  })

  test('P-87: with credentials, Basic and account; the query of the realm is kept', async () => {
    const registry = await bearerRegistry({ private: ['a/b'] })
    registry.settings.challenge = `Bearer realm="${registry.url}/token?tenant=7",service="s"`
    await client(registry.url, { credentials: password }).getManifest('a/b', 'v1')
    const [exchange] = registry.tokenExchanges
    expect(exchange?.authorization).toBe(`Basic ${Buffer.from('ci:pass').toString('base64')}`)
    expect(Object.fromEntries(exchange?.query ?? [])).toEqual({
      tenant: '7',
      service: 's',
      scope: 'repository:a/b:pull',
      account: 'ci',
    })
  })

  test('P-87: falls back to the POST form where GET is not known, and back from it for refresh tokens', async () => {
    const registry = await bearerRegistry({ private: ['a/b'] })
    registry.fault({ path: /^\/token$/, method: 'GET' }, { kind: 'status', status: 404 })
    await client(registry.url, { credentials: password }).getManifest('a/b', 'v1')
    expect(Object.fromEntries(registry.tokenExchanges[0]?.form ?? [])).toEqual({
      grant_type: 'password',
      username: 'ci',
      password: 'pass',
      service: registry.host,
      client_id: 'layover',
      scope: 'repository:a/b:pull',
    })
    registry.tokens.postStatus = 400
    const refresh = client(registry.url, { credentials: { ...password, username: '<token>' } })
    expect((await failureOf(refresh.getManifest('a/b', 'v1'))).reason).toBe('bad_credentials')
    expect(registry.tokenExchanges.slice(1).map(({ method, status }) => `${method} ${status}`)).toEqual([
      'POST 400',
      'GET 401',
    ])
    expect(registry.tokenExchanges[1]?.form.get('grant_type')).toBe('refresh_token')
  })

  test('P-92: one exchange for any number of requests that wait for the same token', async () => {
    const registry = await bearerRegistry()
    const upstream = client(registry.url)
    const gate = registry.gate({ path: /^\/token$/ })
    const calls = Array.from({ length: 8 }, () => upstream.getManifest('a/b', 'v1'))
    await gate.reached
    gate.release()
    await Promise.all(calls)
    expect(registry.tokenExchanges).toHaveLength(1)
  })

  test('P-92: a token is not used for another repository, and its scheme is remembered', async () => {
    const registry = await bearerRegistry()
    const upstream = client(registry.url)
    await upstream.getManifest('a/b', 'v1')
    await upstream.getManifest('c/d', 'v1')
    await upstream.getManifest('c/d', 'v1')
    expect(registry.tokenExchanges.map(({ scopes }) => scopes)).toEqual([
      ['repository:a/b:pull'],
      ['repository:c/d:pull'],
    ])
    // Only the very first request met a 401.
    expect(registry.requests.filter(({ status }) => status === 401)).toHaveLength(1)
  })

  test('P-89, P-90: a token is used for its time and renewed a little before its end', async () => {
    const registry = await bearerRegistry()
    registry.tokens.expiresIn = 100
    const clock = fakeClock()
    const upstream = client(registry.url, { with: { clock } })
    await upstream.getManifest('a/b', 'v1')
    clock.advance(84_000)
    await upstream.getManifest('a/b', 'v1')
    expect(registry.tokenExchanges).toHaveLength(1)
    clock.advance(2000)
    await upstream.getManifest('a/b', 'v1')
    expect(registry.tokenExchanges).toHaveLength(2)
  })

  test.each([0, 1, -1, undefined, '300', 1e12])('F-74: expires_in %s is good for a minute', async expiresIn => {
    const registry = await bearerRegistry()
    registry.tokens.expiresIn = expiresIn
    registry.tokens.field = 'access_token'
    const clock = fakeClock()
    const upstream = client(registry.url, { with: { clock } })
    await upstream.getManifest('a/b', 'v1')
    clock.advance(50_000)
    await upstream.getManifest('a/b', 'v1')
    expect(registry.tokenExchanges).toHaveLength(1)
  })

  test('P-91, F-13: a token that was revoked is replaced once, unseen by the caller', async () => {
    const registry = await bearerRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.from('hello'))
    const upstream = client(registry.url)
    await upstream.getManifest('a/b', 'v1')
    registry.revokeTokens()
    const blob = await upstream.getBlob('a/b', digest, { offset: 2, source: 0 })
    expect((await bytesOf(blob.body)).toString()).toBe('llo')
    expect(registry.tokenExchanges).toHaveLength(2)
  })

  test('F-75: a registry that answers 401 for ever is asked twice', async () => {
    const registry = await bearerRegistry()
    registry.fault(
      { path: /manifests/, times: 9 },
      {
        kind: 'status',
        status: 401,
        headers: { 'www-authenticate': `Bearer realm="${registry.url}/token",service="x"` },
      },
    )
    const failure = await failureOf(client(registry.url).getManifest('a/b', 'v1'))
    expect(failure).toMatchObject({ failure: 'denied', status: 401, reason: 'http_401' })
    expect(registry.count({ path: /manifests/ })).toBe(2)
    expect(registry.tokenExchanges).toHaveLength(1)
  })

  test('P-91: insufficient_scope gets the scope of the challenge', async () => {
    const registry = await bearerRegistry()
    const upstream = client(registry.url)
    await upstream.getManifest('a/b', 'v1')
    const scope = 'repository:a/b:metadata_read,pull'
    registry.fault(
      { path: /manifests/ },
      {
        kind: 'status',
        status: 403,
        headers: {
          'www-authenticate': `Bearer realm="${registry.url}/token",service="${registry.host}",scope="${scope}",error="insufficient_scope"`,
        },
      },
    )
    expect((await upstream.getManifest('a/b', 'v1')).bytes.length).toBeGreaterThan(0)
    expect(registry.tokenExchanges.at(-1)?.scopes).toEqual([scope])
  })

  test('T-15: a challenge for more than reading this repository gets no more than that', async () => {
    const registry = await bearerRegistry()
    registry.settings.challenge = `Bearer realm="${registry.url}/token",service="x",scope="repository:other:pull,push registry:catalog:*"`
    await client(registry.url).getManifest('a/b', 'v1')
    expect(registry.tokenExchanges[0]?.scopes).toEqual(['repository:a/b:pull'])
  })

  test('P-94: a 401 without a challenge is explained by /v2/', async () => {
    const registry = await bearerRegistry()
    registry.fault({ path: /manifests/ }, { kind: 'status', status: 401 })
    expect((await client(registry.url).getManifest('a/b', 'v1')).bytes.length).toBeGreaterThan(0)
    expect(registry.count({ path: /^\/v2\/$/ })).toBe(1)
  })

  test('P-93, P-97: a token that grants nothing ends in denied', async () => {
    const registry = await bearerRegistry({ private: ['a/b'] })
    expect(await failureOf(client(registry.url).getManifest('a/b', 'v1'))).toMatchObject({
      failure: 'denied',
      status: 401,
    })
  })
})

describe('a token server in trouble', () => {
  test('T-45: a bomb of an answer is refused', async () => {
    const registry = await bearerRegistry()
    registry.tokens.answer = { status: 200, headers: {}, body: Buffer.alloc(2_000_000, 0x20) }
    expect(await failureOf(client(registry.url).getManifest('a/b', 'v1'))).toMatchObject({
      failure: 'invalid',
      reason: 'token_too_large',
    })
  })

  test.each([
    ['garbage', { status: 200, headers: {}, body: Buffer.from('<html>') }, 'invalid', 'token_invalid'],
    ['403', { status: 403, headers: {} }, 'denied', 'token_http_403'],
    ['429', { status: 429, headers: { 'retry-after': '7' } }, 'rateLimited', 'token_http_429'],
    ['500', { status: 500, headers: {} }, 'unavailable', 'token_http_500'],
    ['a redirect', { status: 302, headers: { location: 'http://127.0.0.1:1/' } }, 'invalid', 'token_http_302'],
  ])('F-72: %s', async (_, answer, failure, reason) => {
    const registry = await bearerRegistry()
    registry.tokens.answer = answer
    expect(await failureOf(client(registry.url).getManifest('a/b', 'v1'))).toMatchObject({ failure, reason })
  })

  test('F-72: a cached token is used to its end while the server is down, and it is not asked by everyone', async () => {
    const registry = await bearerRegistry()
    registry.tokens.expiresIn = 100
    const clock = fakeClock()
    const upstream = client(registry.url, { with: { clock } })
    await upstream.getManifest('a/b', 'v1')
    registry.tokens.answer = { status: 503, headers: {} }
    clock.advance(90_000)
    for (let call = 0; call < 3; call++) await upstream.getManifest('a/b', 'v1')
    expect(registry.tokenExchanges).toHaveLength(2)
    clock.advance(11_000)
    expect((await failureOf(upstream.getManifest('a/b', 'v1'))).reason).toBe('token_http_503')
    registry.tokens.answer = undefined
    clock.advance(3000)
    expect((await upstream.getManifest('a/b', 'v1')).bytes.length).toBeGreaterThan(0)
  })

  test('F-73: bad credentials are tried once a minute, and it does not fall back to anonymous', async () => {
    const registry = await bearerRegistry()
    const clock = fakeClock()
    const upstream = client(registry.url, { credentials: { ...password, password: 'wrong' }, with: { clock } })
    for (let call = 0; call < 5; call++)
      expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({
        failure: 'denied',
        reason: 'bad_credentials',
      })
    expect(registry.tokenExchanges).toHaveLength(1)
    clock.advance(59_000)
    await failureOf(upstream.getManifest('c/d', 'v1'))
    expect(registry.tokenExchanges).toHaveLength(1)
    clock.advance(1000)
    await failureOf(upstream.getManifest('c/d', 'v1'))
    expect(registry.tokenExchanges).toHaveLength(2)
  })

  test('token exchanges are observed as such', async () => {
    const registry = await bearerRegistry()
    const observer = recordingObserver()
    await client(registry.url, { with: { observer } }).getManifest('a/b', 'v1')
    const seen = observer.events.filter(({ name }) => name === 'upstreamRequest').map(({ args }) => args[0])
    expect(seen).toMatchObject([
      { kind: 'token', outcome: '200' },
      { kind: 'manifest', outcome: '200' },
    ])
  })
})

describe('P-95: Basic', () => {
  test('credentials where they are configured, 401 otherwise', async () => {
    const registry = await fakeRegistry({ auth: 'basic', username: 'ci', password: 'pass' })
    registry.image('a/b', 'v1')
    expect(
      (await client(registry.url, { credentials: password }).getManifest('a/b', 'v1')).bytes.length,
    ).toBeGreaterThan(0)
    expect(await failureOf(client(registry.url).getManifest('a/b', 'v1'))).toMatchObject({
      failure: 'denied',
      status: 401,
    })
  })

  test('never over plain http, unless the upstream is flagged insecure', async () => {
    for (const auth of ['basic', 'bearer'] as const) {
      const registry = await fakeRegistry({ auth, username: 'ci', password: 'pass' })
      registry.image('a/b', 'v1')
      const upstream = client(registry.url, { credentials: password, insecure: false })
      expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({
        failure: 'refused',
        reason: 'plain_http',
      })
      expect(registry.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true)
    }
  })

  test('a mirror elsewhere never sees the credentials', async () => {
    const registry = await bearerRegistry()
    const mirror = await fakeRegistry({ auth: 'basic', username: 'ci', password: 'pass' })
    const image = mirror.image('a/b', 'v1')
    const upstream = client(registry.url, { credentials: password, mirrors: [mirror.url] })
    expect((await failureOf(upstream.getManifest('a/b', image.digest, { source: 1 }))).failure).toBe('denied')
    expect(mirror.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true)
  })
})

describe('where credentials come from', () => {
  const pulls = async (registry: FakeRegistry, credentials: Parameters<typeof client>[1]): Promise<boolean> => {
    const upstream = client(registry.url, credentials)
    return (await upstream.getManifest('a/b', 'v1')).bytes.length > 0
  }

  test('a password file, read again when it changes', async () => {
    const registry = await fakeRegistry({ auth: 'basic', username: 'ci', password: 'pass' })
    registry.image('a/b', 'v1')
    const path = await temporaryFile('password', 'wrong\n')
    const upstream = client(registry.url, { credentials: { kind: 'passwordFile', username: 'ci', path } })
    expect((await failureOf(upstream.getManifest('a/b', 'v1'))).failure).toBe('denied')
    await writeFile(`${path}.new`, 'pass\n')
    await rename(`${path}.new`, path)
    expect((await upstream.getManifest('a/b', 'v1')).bytes.length).toBeGreaterThan(0)
    await rm(path)
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({
      failure: 'denied',
      reason: 'credentials',
    })
  })

  test.each([
    [
      'auth',
      (host: string) => ({ [host]: { auth: Buffer.from('ci:pass').toString('base64') } }),
      'registry.example.com',
    ],
    [
      'username and password',
      (host: string) => ({ [`https://${host}`]: { username: 'ci', password: 'pass' } }),
      'x.test',
    ],
    ['the name of Docker Hub', () => ({ 'https://index.docker.io/v1/': { auth: 'Y2k6cGFzcw==' } }), 'docker.io'],
  ])('docker config.json: %s', async (_, auths, name) => {
    const registry = await fakeRegistry({ auth: 'basic', username: 'ci', password: 'pass' })
    registry.image('a/b', 'v1')
    const path = await temporaryFile('config.json', JSON.stringify({ auths: auths(registry.host) }))
    expect(await pulls(registry, { name, credentials: { kind: 'dockerConfig', path } })).toBe(true)
  })

  test('docker config.json without this registry means anonymous', async () => {
    const registry = await bearerRegistry()
    const path = await temporaryFile('config.json', JSON.stringify({ auths: { 'other.test': { auth: 'eDp5' } } }))
    expect(await pulls(registry, { credentials: { kind: 'dockerConfig', path } })).toBe(true)
    expect(registry.tokenExchanges[0]?.authorization).toBeUndefined()
  })
})
