import { createServer } from 'node:http'
import { describe, expect, test } from 'vitest'
import { acceptRealm } from '../../src/upstream/realm.ts'
import { client, closeLater, failureOf, fakeRegistry } from './setup.ts'

const verdict = (registry: string, realm: string, realmHosts: readonly string[] = []): string => {
  const accepted = acceptRealm({ realm, registry: new URL(registry), realmHosts })
  return 'refused' in accepted ? accepted.refused : accepted.trust
}

describe('T-1: which realms are asked', () => {
  test.each([
    ['https://registry-1.docker.io', 'https://auth.docker.io/token', 'foreign'],
    ['https://ghcr.io', 'https://ghcr.io/token', 'configured'],
    ['https://registry.gitlab.com', 'https://gitlab.com/jwt/auth', 'foreign'],
    ['https://registry.example.com:5050', 'https://gitlab.example.com/jwt/auth', 'foreign'],
    ['https://nvcr.io', 'https://authn.nvidia.com/token', 'foreign'],
    ['https://mine.azurecr.io', 'https://mine.azurecr.io/oauth2/token', 'configured'],
    ['http://127.0.0.1:5000', 'http://127.0.0.1:5000/token', 'configured'],
    ['http://registry:5000', 'http://registry:5000/token', 'configured'],
  ])('%s may name %s', (registry, realm, expected) => {
    expect(verdict(registry, realm)).toBe(expected)
  })

  test.each([
    ['https://registry.example.com', 'https://attacker.test/token', 'host'],
    ['https://registry.example.com', 'https://registry.example.com.evil.test/token', 'host'],
    ['https://registry.example.com', 'https://evilexample.com/token', 'host'],
    ['https://registry.example.com', 'http://registry.example.com/token', 'scheme'],
    ['https://registry.example.com', 'http://169.254.169.254/latest', 'scheme'],
    ['https://registry.example.com', 'https://169.254.169.254/latest', 'host'],
    ['https://registry.example.com', 'https://[::ffff:169.254.169.254]/', 'host'],
    ['https://registry.example.com', 'https://user@registry.example.com/token', 'userinfo'],
    ['https://registry.example.com', 'https://registry.example.com@attacker.test/', 'userinfo'],
    ['https://registry.example.com', 'https://localhost/token', 'host'],
    ['https://mine.azurecr.io', 'https://theirs.azurecr.io/oauth2/token', 'host'],
    ['https://a.co.uk', 'https://b.co.uk/token', 'host'],
    ['https://registry.example.com', 'file:///etc/passwd', 'scheme'],
    ['https://registry.example.com', 'token', 'malformed'],
    ['https://registry.example.com', '', 'malformed'],
    ['http://127.0.0.1:5000', 'http://127.0.0.1:6379/token', 'host'],
    ['http://registry:5000', 'http://registry:6379/token', 'host'],
  ])('%s may not name %s', (registry, realm, expected) => {
    expect(verdict(registry, realm)).toBe(expected)
  })

  test('a host that the operator listed is accepted, still only by https', () => {
    expect(verdict('https://a.example', 'https://login.test/token', ['login.test'])).toBe('listed')
    expect(verdict('https://a.example', 'https://login.test:8443/token', ['login.test:8443'])).toBe('listed')
    expect(verdict('https://a.example', 'https://login.test/token', ['login.test:8443'])).toBe('host')
    expect(verdict('https://a.example', 'http://login.test/token', ['login.test'])).toBe('scheme')
  })

  test.each([
    'http://127.0.0.1:TRAP/token',
    'http://user@HOST/token',
    'http://localhost:TRAP/token',
    'http://[::1]:TRAP/token',
  ])('T-1: refuses the realm %s and dials nobody', async pattern => {
    let dialled = 0
    const trap = createServer((_, response) => response.end('{"token":"x"}'))
    trap.on('connection', () => dialled++)
    await new Promise<void>(resolve => trap.listen(0, resolve))
    closeLater({ close: () => new Promise(resolve => trap.close(resolve)) })
    const address = trap.address()
    const port = String(typeof address === 'object' && address !== null ? address.port : 0)
    const registry = await fakeRegistry({ auth: 'bearer', username: 'ci', password: 'pass' })
    registry.image('a/b', 'v1')
    const realm = pattern.replace('TRAP', port).replace('HOST', registry.host)
    registry.settings.challenge = `Bearer realm="${realm}",service="x"`
    const upstream = client(registry.url, { credentials: { kind: 'password', username: 'ci', password: 'pass' } })
    expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({ failure: 'refused', reason: 'realm' })
    expect(dialled).toBe(0)
    expect(registry.tokenExchanges).toEqual([])
    expect(registry.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true)
  })
})
