import { describe, expect, test } from 'vitest'
import type { RunningFill } from '../../src/cache/running-fill.ts'
import { cachePath, parseCachePath } from '../../src/edge/page/cache-path.ts'
import { bytes, duration, money, percent, shortDigest } from '../../src/edge/page/format.ts'
import { FillRates } from '../../src/edge/page/rates.ts'
import { digestOf } from '../../src/oci/digest.ts'

const plain = (text: string): string => text.replaceAll('\u00a0', ' ')
const digest = digestOf(Buffer.from('a'))

describe('figures for people', () => {
  test.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.00 KiB'],
    [1024 ** 2 - 1, '1.00 MiB'],
    [15.55 * 1024 ** 2, '15.6 MiB'],
    [999 * 1024 ** 3, '999 GiB'],
    [1024 ** 7, '1048576 PiB'],
    [-2048, '−2.00 KiB'],
  ])('%d bytes', (count, text) => expect(plain(bytes(count))).toBe(text))

  test.each([
    [0, 0, '–'],
    [0, 5, '0 %'],
    [1, 5_000, '< 0.1 %'],
    [1, 3, '33.3 %'],
    [99_999, 100_000, '99.9 %'],
    [5, 5, '100 %'],
  ])('%d of %d', (part, whole, text) => expect(plain(percent(part, whole))).toBe(text))

  test.each([
    [-5, '0 s'],
    [59_999, '59 s'],
    [60_000, '1 min'],
    [3_600_000, '1 h'],
    [90 * 60_000, '1 h 30 min'],
    [49 * 3_600_000, '2 d 1 h'],
  ])('%d ms', (ms, text) => expect(plain(duration(ms))).toBe(text))

  test('money in the form of its currency, also of one that nobody knows', () => {
    expect(money(1234.5, 'USD')).toBe('$1,234.50')
    expect(plain(money(1234.5, 'not a currency'))).toBe('1234.50 not a currency')
  })

  test('digests by their first digits', () => {
    expect(shortDigest(digest)).toBe(digest.slice(7, 19))
    expect(shortDigest(digestOf(Buffer.from('a'), 'sha512'))).toMatch(/^sha512:[0-9a-f]{12}$/)
  })
})

describe('paths of the cache', () => {
  test.each([
    { upstream: 'docker.io' },
    { upstream: '[::1]:5000', repository: 'a' },
    { upstream: 'registry.example.com:5000', repository: 'a/b-c' },
    { upstream: 'docker.io', repository: 'library/alpine', tag: '3.20_x-1' },
    { upstream: 'docker.io', repository: 'library/alpine', digest },
  ])('%o comes back', place => {
    const path = cachePath(place)
    expect(new URL(path, 'http://localhost').pathname).toBe(path)
    expect(parseCachePath(path.slice('/cache/'.length), [place.upstream])).toEqual(place)
  })
})

describe('rates of downloads', () => {
  const fill = (received: number): RunningFill => ({
    digest,
    upstream: 'docker.io',
    repository: 'a',
    size: 1_000_000,
    received,
    readers: 1,
    began: 'upstream',
    startedAt: 0,
  })

  test('are the mean at first, then follow', () => {
    const rates = new FillRates()
    expect(rates.update([fill(1000)], 10_000).get(digest)).toBe(100)
    expect(rates.update([fill(1000)], 10_100).get(digest)).toBe(100)
    expect(rates.update([fill(2000)], 11_000).get(digest)).toBe(460)
    expect(rates.update([fill(2000)], 12_000).get(digest)).toBe(276)
  })

  test('begin anew with another download of the same blob', () => {
    const rates = new FillRates()
    rates.update([fill(5000)], 1000)
    expect(rates.update([fill(500)], 2000).get(digest)).toBe(250)
    rates.update([], 3000)
    expect(rates.update([fill(1000)], 4000).get(digest)).toBe(250)
  })
})
