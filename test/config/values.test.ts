import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatAddress, isImageHost, isLoopback, parseAddress } from '../../src/config/address.ts'
import { formatDuration, parseDuration } from '../../src/config/duration.ts'
import { formatSize, parseSize } from '../../src/config/size.ts'
import { nearest } from '../../src/config/suggestion.ts'

describe('durations', () => {
  test.each([
    ['500ms', 500],
    ['0s', 0],
    ['30s', 30_000],
    ['5m', 300_000],
    ['24h', 86_400_000],
    ['7d', 604_800_000],
  ])('%s is %d ms', (text, ms) => expect(parseDuration(text)).toBe(ms))

  test.each(['', '5', '5 minutes', '5 m', '-5m', '1.5h', '1h30m', '5M', 'm', '9999999999s', '٥m'])('refuses %j', text =>
    expect(parseDuration(text)).toBeUndefined(),
  )

  test('what is formatted is read back as the same number', () => {
    fc.assert(
      fc.property(fc.nat(999_999_999), ms => {
        expect(parseDuration(formatDuration(ms))).toBe(ms)
      }),
    )
  })
})

// The rounded description of the largest safe number would be above it.
const halfSafeNat = fc.maxSafeNat().map(bytes => Math.floor(bytes / 2))

describe('sizes', () => {
  test.each([
    ['50GiB', 50 * 1024 ** 3],
    ['512MB', 512_000_000],
    ['1024', 1024],
    ['0', 0],
    ['1.5 KiB', 1536],
    ['2tib', 2 * 1024 ** 4],
    ['7B', 7],
  ])('%s is %d bytes', (text, bytes) => expect(parseSize(text)).toBe(bytes))

  test.each(['', 'GiB', '50G', '50 gigabytes', '-1', '1e9', '9007199254740992', '1..5MB', '50Gi'])('refuses %j', text =>
    expect(parseSize(text)).toBeUndefined(),
  )

  test('a plain number of bytes is itself, and its description is near to it', () => {
    fc.assert(
      fc.property(halfSafeNat, bytes => {
        expect(parseSize(String(bytes))).toBe(bytes)
        const described = parseSize(formatSize(bytes)) ?? Number.NaN
        expect(Math.abs(described - bytes)).toBeLessThanOrEqual(bytes * 0.01)
      }),
    )
  })
})

describe('addresses', () => {
  test.each([
    ['0.0.0.0:5000', { host: '0.0.0.0', port: 5000 }],
    [':5000', { host: '0.0.0.0', port: 5000 }],
    ['[::1]:5000', { host: '::1', port: 5000 }],
    ['localhost:0', { host: 'localhost', port: 0 }],
    ['cache.example.com:65535', { host: 'cache.example.com', port: 65_535 }],
  ])('%s', (text, address) => expect(parseAddress(text)).toEqual(address))

  test.each([
    '',
    '5000',
    'host',
    'host:',
    'host:65536',
    '::1:5000',
    '[::1]',
    '[::g]:1',
    'a b:1',
    '1.2.3:5',
    'http://a:1',
    'a/b:1',
  ])('refuses %j', text => expect(parseAddress(text)).toBeUndefined())

  test('what is formatted is read back', () => {
    const addresses = fc.record({ host: fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()), port: fc.nat(65_535) })
    fc.assert(
      fc.property(addresses, address => {
        expect(parseAddress(formatAddress(address))).toEqual(address)
      }),
    )
  })

  test('loopback is what only this machine reaches', () => {
    const loopback = ['127.0.0.1', '127.9.9.9', '::1', 'localhost', 'LocalHost', '0:0::1', '::ffff:127.0.0.1']
    expect(loopback.filter(isLoopback)).toEqual(loopback)
    expect(
      ['0.0.0.0', '::', '10.0.0.1', '127.example.com', '::ffff:10.0.0.1', '::127.0.0.1', ''].some(isLoopback),
    ).toBe(false)
  })

  test('T-4, T-24: an upstream name is what an image reference can begin with', () => {
    expect(
      ['docker.io', 'registry.example.com:5000', 'localhost', 'localhost:5000', '[::1]:5000', '10.0.0.1:5000'].every(
        isImageHost,
      ),
    ).toBe(true)
    expect(
      [
        'registry',
        'Quay.io',
        'quay.io/',
        'a@b.io',
        '__proto__',
        'quay.io.',
        'quay.io:0',
        'quay.io:99999',
        '',
        '1.2.3.4.5',
      ].some(isImageHost),
    ).toBe(false)
  })
})

describe('suggestions', () => {
  test.each([
    ['tagTTL', 'tagTtl'],
    ['max_bytes', 'maxBytes'],
    ['lisen', 'listen'],
    ['usrename', 'username'],
  ])('%s means %s', (word, meant) =>
    expect(nearest(word, ['tagTtl', 'maxBytes', 'listen', 'username', 'url'])).toBe(meant),
  )

  test('nothing near is no suggestion', () => expect(nearest('banana', ['listen', 'admin'])).toBeUndefined())
})
