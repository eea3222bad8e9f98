import type { LookupAddress } from 'node:dns'
import { describe, expect, test } from 'vitest'
import { classOf } from '../../src/upstream/addresses.ts'
import { nextHop } from '../../src/upstream/redirects.ts'
import { type Lookup, mayConnect, type Trust } from '../../src/upstream/trust.ts'
import { presignedSecret } from '../fakes/registry.ts'
import { bytesOf, client, failureOf, fakeRegistry } from './setup.ts'

const bearer = { auth: 'bearer', username: 'ci', password: 'pass' } as const
const credentials = { kind: 'password', username: 'ci', password: 'pass' } as const

describe('T-2: the class of an address', () => {
  test.each([
    ['8.8.8.8', 'public'],
    ['2606:4700::1111', 'public'],
    ['10.1.2.3', 'private'],
    ['172.31.255.255', 'private'],
    ['172.32.0.1', 'public'],
    ['192.168.0.1', 'private'],
    ['fd12::1', 'private'],
    ['100.64.0.1', 'shared'],
    ['127.0.0.1', 'loopback'],
    ['127.8.8.8', 'loopback'],
    ['::1', 'loopback'],
    ['169.254.169.254', 'never'],
    ['fe80::1', 'never'],
    ['fe80::1%eth0', 'never'],
    ['fd00:ec2::254', 'never'],
    ['100.100.100.200', 'never'],
    ['0.0.0.0', 'never'],
    ['::', 'never'],
    ['224.0.0.1', 'never'],
    ['ff02::1', 'never'],
    ['255.255.255.255', 'never'],
    ['::ffff:169.254.169.254', 'never'],
    ['::ffff:a9fe:a9fe', 'never'],
    ['::ffff:10.0.0.1', 'private'],
    ['::ffff:8.8.8.8', 'public'],
    ['::127.0.0.1', 'loopback'],
    ['64:ff9b::7f00:1', 'loopback'],
    ['2002:7f00:1::', 'loopback'],
    ['not an address', 'never'],
  ])('%s is %s', (address, expected) => {
    expect(classOf(address)).toBe(expected)
  })

  test('who may go where', () => {
    const foreign = (from: 'public' | 'private' | 'loopback' | undefined): Trust => ({ kind: 'foreign', from })
    expect(mayConnect(foreign('public'), 'public')).toBe(true)
    expect(mayConnect(foreign('public'), 'private')).toBe(false)
    expect(mayConnect(foreign('public'), 'loopback')).toBe(false)
    expect(mayConnect(foreign('private'), 'private')).toBe(true)
    expect(mayConnect(foreign('private'), 'loopback')).toBe(false)
    expect(mayConnect(foreign('loopback'), 'loopback')).toBe(true)
    expect(mayConnect(foreign('loopback'), 'never')).toBe(false)
    expect(mayConnect(foreign(undefined), 'private')).toBe(false)
    expect(mayConnect({ kind: 'listed' }, 'private')).toBe(true)
    expect(mayConnect({ kind: 'listed' }, 'never')).toBe(false)
  })
})

describe('T-2: where a redirect may lead', () => {
  const hop = (location: string | undefined, changes: { from?: string; redirectHosts?: string[] } = {}): string => {
    try {
      const { url, trust } = nextHop({
        upstream: 'registry.example.com',
        from: new URL(changes.from ?? 'https://registry.example.com/v2/a/b/blobs/x'),
        location,
        registry: new URL('https://registry.example.com'),
        redirectHosts: changes.redirectHosts ?? [],
        foreign: { kind: 'foreign', from: 'public' },
      })
      return `${trust.kind} ${url.href}`
    } catch (error) {
      return error instanceof Error && 'failure' in error ? String(error.failure) : 'thrown'
    }
  }

  test.each([
    ['https://cdn.example.net/x?sig=1', 'foreign https://cdn.example.net/x?sig=1'],
    ['/artifacts-downloads/x', 'configured https://registry.example.com/artifacts-downloads/x'],
    ['../../../other', 'configured https://registry.example.com/v2/other'],
    ['http://cdn.example.net/x', 'refused'],
    ['http://169.254.169.254/latest/meta-data/', 'refused'],
    ['https://169.254.169.254/', 'refused'],
    ['https://[::ffff:169.254.169.254]/', 'refused'],
    ['https://2130706433/', 'refused'],
    ['https://0x7f.1/', 'refused'],
    ['https://127.1/', 'refused'],
    ['https://127.0.0.1./', 'refused'],
    ['https://①②⑦.⓪.⓪.①/', 'refused'],
    ['https://10.0.0.1/', 'refused'],
    ['https://[fd00::1]/', 'refused'],
    ['https://user:pass@cdn.example.net/', 'refused'],
    ['ftp://cdn.example.net/', 'refused'],
    ['file:///etc/passwd', 'refused'],
    ['https://', 'invalid'],
    [undefined, 'invalid'],
  ])('%s: %s', (location, expected) => {
    expect(hop(location)).toBe(expected)
  })

  test('a listed host may be on a private address', () => {
    expect(hop('https://10.0.0.5:9000/x', { redirectHosts: ['10.0.0.5:9000'] })).toBe('listed https://10.0.0.5:9000/x')
    expect(hop('https://10.0.0.5:9001/x', { redirectHosts: ['10.0.0.5:9000'] })).toBe('refused')
    expect(hop('https://169.254.169.254/x', { redirectHosts: ['169.254.169.254'] })).toBe('refused')
  })
})

describe('following redirects', () => {
  test('T-8, P-88: no credentials on another port; the range goes along', async () => {
    const registry = await fakeRegistry({ ...bearer, blobRedirect: 'absolute' })
    const digest = registry.addBlobTo('a/b', Buffer.from('0123456789'))
    const upstream = client(registry.url, { credentials })
    const blob = await upstream.getBlob('a/b', digest, { offset: 4, source: 0 })
    expect((await bytesOf(blob.body)).toString()).toBe('456789')
    const atCdn = registry.requests.find(({ origin }) => origin === 'cdn')
    expect(atCdn?.headers.range).toBe('bytes=4-')
    for (const secret of ['authorization', 'cookie', 'proxy-authorization'])
      expect(atCdn?.headers[secret]).toBeUndefined()
  })

  test('P-64: a relative location is followed, with credentials, as it is the same origin', async () => {
    const registry = await fakeRegistry({ ...bearer, blobRedirect: 'relative' })
    const digest = registry.addBlobTo('a/b', Buffer.from('hello'))
    const blob = await client(registry.url, { credentials }).getBlob('a/b', digest, { offset: 0, source: 0 })
    expect((await bytesOf(blob.body)).toString()).toBe('hello')
    expect(registry.requests.at(-1)?.headers.authorization).toMatch(/^Bearer /)
  })

  test('T-8: what comes back from another origin gets no credentials either', async () => {
    const registry = await fakeRegistry({ ...bearer })
    const other = await fakeRegistry()
    registry.image('a/b', 'v1')
    const upstream = client(registry.url, { credentials })
    await upstream.getManifest('a/b', 'v1')
    registry.fault({ path: /manifests/ }, { kind: 'redirect', location: `${other.url}/away` })
    other.fault({ path: /away/ }, { kind: 'redirect', location: `${registry.url}/back` })
    await failureOf(upstream.getManifest('a/b', 'v1'))
    const back = registry.requests.find(({ path }) => path === '/back')
    expect(back).toBeDefined()
    expect(back?.headers.authorization).toBeUndefined()
  })

  test('ends after ten hops', async () => {
    const registry = await fakeRegistry()
    registry.fault({ times: 100 }, { kind: 'redirect', location: '/v2/again' })
    const failure = await failureOf(client(registry.url).getManifest('a/b', 'v1'))
    expect(failure).toMatchObject({ failure: 'invalid', reason: 'too_many_redirects' })
    expect(registry.count()).toBe(11)
  })

  test.each(['http://169.254.169.254/latest/meta-data/', 'http://10.0.0.1/', 'http://[::ffff:a9fe:a9fe]/'])(
    'T-2: refuses %s, and it is not held against the upstream',
    async location => {
      const registry = await fakeRegistry()
      registry.fault({}, { kind: 'redirect', location })
      const upstream = client(registry.url)
      expect(await failureOf(upstream.getManifest('a/b', 'v1'))).toMatchObject({
        failure: 'refused',
        reason: 'redirect',
      })
      expect(upstream.health().unreachableSince).toBeUndefined()
    },
  )

  test('T-3: the address that is dialled is the one that is checked, at every connection', async () => {
    const registry = await fakeRegistry()
    const target = await fakeRegistry()
    const bytes = Buffer.from('hello')
    const digest = registry.addBlobTo('a/b', bytes)
    target.addBlobTo('a/b', bytes)
    const answers = ['127.0.0.1', '10.255.255.1', '169.254.169.254']
    const asked: string[] = []
    const lookup: Lookup = (hostname, _options, callback) => {
      const address = hostname === 'rebinding.test' ? (answers.shift() ?? '') : '127.0.0.1'
      asked.push(`${hostname} ${address}`)
      const found: LookupAddress[] = [{ address, family: 4 }]
      callback(null, found)
    }
    const port = new URL(target.url).port
    const location = `http://rebinding.test:${port}/v2/a/b/blobs/${digest}`
    const upstream = client(`http://upstream.test:${new URL(registry.url).port}`, { with: { lookup } })
    registry.fault({ path: /blobs/, times: 9 }, { kind: 'redirect', location })
    const first = await upstream.getBlob('a/b', digest, { offset: 0, source: 0 })
    expect((await bytesOf(first.body)).toString()).toBe('hello')
    // The kept connection goes away, so that the name is resolved again.
    await target.stop()
    const seconds = await failureOf(upstream.getBlob('a/b', digest, { offset: 0, source: 0 }))
    expect(seconds).toMatchObject({ failure: 'refused', reason: 'redirect_address' })
    expect(await failureOf(upstream.getBlob('a/b', digest, { offset: 0, source: 0 }))).toMatchObject({
      failure: 'refused',
    })
    expect(asked.filter(line => line.startsWith('rebinding'))).toHaveLength(3)
  })

  test('P-65, F-14: a presigned URL that ended is replaced by asking the registry once more', async () => {
    const registry = await fakeRegistry({ blobRedirect: 'absolute' })
    const digest = registry.addBlobTo('a/b', Buffer.from('hello'))
    const upstream = client(registry.url)
    registry.fault({ origin: 'cdn' }, { kind: 'status', status: 403 })
    const blob = await upstream.getBlob('a/b', digest, { offset: 0, source: 0 })
    expect((await bytesOf(blob.body)).toString()).toBe('hello')
    registry.fault({ origin: 'cdn', times: 2 }, { kind: 'status', status: 403 })
    const failure = await failureOf(upstream.getBlob('a/b', digest, { offset: 0, source: 0 }))
    expect(failure).toMatchObject({ failure: 'unavailable', reason: 'redirect_http_403' })
    expect(registry.count({ origin: 'registry' })).toBe(4)
  })

  test('F-24: a dead storage host is blamed by its own word, after asking the registry once more', async () => {
    const registry = await fakeRegistry()
    const dead = await fakeRegistry()
    const digest = registry.addBlobTo('a/b', Buffer.from('hello'))
    await dead.stop()
    const upstream = client(registry.url)
    const location = `${dead.url}/x?X-Amz-Signature=${presignedSecret}`
    registry.fault({ path: /blobs/ }, { kind: 'redirect', location })
    const blob = await upstream.getBlob('a/b', digest, { offset: 0, source: 0 })
    expect((await bytesOf(blob.body)).toString()).toBe('hello')
    registry.fault({ path: /blobs/, times: 20 }, { kind: 'redirect', location })
    for (let call = 0; call < 6; call++)
      expect(await failureOf(upstream.getBlob('a/b', digest, { offset: 0, source: 0 }))).toMatchObject({
        failure: 'unavailable',
        reason: 'redirect_connect',
      })
    expect(registry.count()).toBe(14)
    expect(upstream.health().state).toBe('closed')
  })
})
