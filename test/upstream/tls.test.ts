import { createServer } from 'node:http'
import { beforeAll, describe, expect, test, vi } from 'vitest'
import { type Authority, makeAuthority } from '../fakes/certificates.ts'
import { bytesOf, client, closeLater, failureOf, fakeRegistry } from './setup.ts'

let authority: Authority
let stranger: Authority
beforeAll(async () => {
  ;[authority, stranger] = await Promise.all([makeAuthority(), makeAuthority()])
})

describe('TLS', () => {
  test('trusts the configured authority, for the registry and for where it redirects to', async () => {
    const tls = await authority.issue('127.0.0.1')
    const registry = await fakeRegistry({ tls, blobRedirect: 'absolute' })
    const digest = registry.addBlobTo('a/b', Buffer.from('hello'))
    const upstream = client(registry.url, { ca: authority.caPem, insecure: false })
    const blob = await upstream.getBlob('a/b', digest, { offset: 0, source: 0 })
    expect((await bytesOf(blob.body)).toString()).toBe('hello')
  })

  test.each([
    ['an expired certificate (F-26)', { expired: true }, '127.0.0.1', 'own'],
    ['a certificate for another host (T-38)', {}, 'other.test', 'own'],
    ['an unknown authority (T-38)', {}, '127.0.0.1', 'stranger'],
  ])('refuses %s', async (_, options, host, issuer) => {
    const tls = await (issuer === 'own' ? authority : stranger).issue(host, options)
    const registry = await fakeRegistry({ tls })
    registry.image('a/b', 'v1')
    const upstream = client(registry.url, { ca: authority.caPem, insecure: false })
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({ failure: 'unavailable', reason: 'tls' })
    expect(registry.count()).toBe(0)
    expect(upstream.health().lastError).toBe('tls')
  })

  test('takes any certificate when flagged insecure, but not of a host that nobody named', async () => {
    const tls = await stranger.issue('127.0.0.1')
    const registry = await fakeRegistry({ tls, blobRedirect: 'absolute' })
    const image = registry.image('a/b', 'v1')
    const upstream = client(registry.url, { insecure: true })
    expect((await upstream.getManifest('a/b', 'v1')).bytes).toEqual(image.manifestBytes)
    const digest = image.config.digest
    const failure = await failureOf(upstream.getBlob('a/b', digest, { offset: 0, source: 0 }))
    expect(failure).toMatchObject({ failure: 'unavailable', reason: 'redirect_tls' })
    const named = client(registry.url, { insecure: true, redirectHosts: [new URL(registry.cdnUrl).host] })
    const blob = await named.getBlob('a/b', digest, { offset: 0, source: 0 })
    expect((await bytesOf(blob.body)).equals(image.config.bytes)).toBe(true)
  })

  test('T-2: a redirect from https to http is refused', async () => {
    const registry = await fakeRegistry({ tls: await authority.issue('127.0.0.1') })
    const plain = await fakeRegistry()
    registry.fault({}, { kind: 'redirect', location: `${plain.url}/x` })
    const upstream = client(registry.url, { ca: authority.caPem, insecure: false })
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({ failure: 'refused', reason: 'redirect' })
    expect(plain.connections).toBe(0)
  })

  test('T-1: a realm that goes down to http on the own host is refused', async () => {
    const registry = await fakeRegistry({ tls: await authority.issue('127.0.0.1'), auth: 'bearer' })
    registry.settings.challenge = `Bearer realm="http://${registry.host}/token"`
    const upstream = client(registry.url, { ca: authority.caPem, insecure: false })
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({ failure: 'refused', reason: 'realm' })
  })
})

describe('an outgoing proxy', () => {
  test('P-111: requests go through the configured one', async () => {
    const registry = await fakeRegistry()
    const image = registry.image('a/b', 'v1')
    const seen: string[] = []
    const proxy = createServer((request, response) => {
      seen.push(request.url ?? '')
      response.setHeader('content-type', image.mediaType)
      response.end(image.manifestBytes)
    })
    await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
    closeLater({
      close: () => {
        proxy.closeAllConnections()
        return new Promise(resolve => proxy.close(resolve))
      },
    })
    const address = proxy.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    const upstream = client('http://far-away.test', { proxy: `http://127.0.0.1:${port}` })
    expect((await upstream.getManifest('a/b', 'v1')).bytes).toEqual(image.manifestBytes)
    expect(seen).toEqual(['http://far-away.test/v2/a/b/manifests/v1'])
  })

  test('P-111: one from the environment is used for other machines, never for this one', async () => {
    const registry = await fakeRegistry()
    const image = registry.image('a/b', 'v1')
    vi.stubEnv('http_proxy', 'http://127.0.0.1:9')
    vi.stubEnv('no_proxy', '')
    try {
      expect((await client(registry.url).getManifest('a/b', 'v1')).bytes).toEqual(image.manifestBytes)
      // Nothing listens at the proxy, so going there shows.
      expect(await failureOf(client('http://far-away.test').getManifest('a/b', 'v1'))).toMatchObject({
        failure: 'unavailable',
        reason: 'connect',
      })
    } finally {
      vi.unstubAllEnvs()
    }
  })
})
