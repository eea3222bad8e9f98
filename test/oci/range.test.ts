import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { contentRange, ifRangeMatches, lengthOf, parseRange, parseRangeSyntax } from '../../src/oci/range.ts'

const single = (start: number, end: number) => ({ kind: 'single', range: { start, end } })
const multi = (...pairs: [number, number][]) => ({
  kind: 'multi',
  ranges: pairs.map(([start, end]) => ({ start, end })),
})
const full = { kind: 'full' }
const unsatisfiable = { kind: 'unsatisfiable' }

describe('parseRange', () => {
  it.each([
    ['P-51', undefined, full],
    ['P-51', 'bytes=0-1', single(0, 1)],
    ['P-51', 'bytes=0-0', single(0, 0)],
    ['P-51', 'bytes=5-', single(5, 99)],
    ['P-51', 'bytes=0-', single(0, 99)],
    ['P-51', 'bytes=-1', single(99, 99)],
    ['P-51', 'bytes=-100', single(0, 99)],
    ['P-51', 'bytes=-101', single(0, 99)],
    ['P-51', 'bytes=99-', single(99, 99)],
    ['P-51', 'bytes=90-1000', single(90, 99)],
    ['P-51', 'BYTES=1-2', single(1, 2)],
    ['P-51', 'bytes=1-2 ', single(1, 2)],
    ['P-51', 'bytes=1-2,', single(1, 2)],
    ['P-51', 'bytes=007-0010', single(7, 10)],
    ['P-52', 'bytes=100-', unsatisfiable],
    ['P-52', 'bytes=100-200', unsatisfiable],
    ['P-52', 'bytes=-0', unsatisfiable],
    ['P-52', 'bytes=100-,200-', unsatisfiable],
    ['P-53', '', full],
    ['P-53', 'bytes', full],
    ['P-53', 'bytes=', full],
    ['P-53', 'bytes=,', full],
    ['P-53', 'bytes=-', full],
    ['P-53', 'items=0-1', full],
    ['P-53', 'bytes=5-2', full],
    ['P-53', 'bytes=--1', full],
    ['P-53', 'bytes= 0-1', full],
    ['P-53', 'bytes =0-1', full],
    ['P-53', 'bytes=0 -1', full],
    ['P-53', 'bytes=0x1-2', full],
    ['P-53', 'bytes=1.5-2', full],
    ['P-53', 'bytes=+1-2', full],
    ['P-53', 'bytes=1e1-', full],
    ['P-53', 'bytes=0-1-2', full],
    ['P-53', 'bytes=0-1;2-3', full],
    ['P-53', 'bytes=0-1,x', full],
    ['P-53', 'bytes=٠-١', full],
    ['P-53', 'bytes=0-18446744073709551616', single(0, 99)],
    ['P-53', 'bytes=18446744073709551616-', unsatisfiable],
    ['P-53', 'bytes=-18446744073709551616', single(0, 99)],
    ['P-53', `bytes=0-${'9'.repeat(5000)}`, single(0, 99)],
    ['P-54', 'bytes=0-1,5-6', multi([0, 1], [5, 6])],
    ['P-54', 'bytes=0-1 , 5-6', multi([0, 1], [5, 6])],
    ['P-54, in the order asked', 'bytes=5-6,0-1', multi([5, 6], [0, 1])],
    ['P-54, parts that touch stay apart', 'bytes=0-1,2-3', multi([0, 1], [2, 3])],
    ['P-54, overlapping', 'bytes=8-9,0-4,3-6', multi([0, 6], [8, 9])],
    ['P-54, one within another', 'bytes=0-9,2-3', multi([0, 9])],
    ['P-54, never a single part for several', 'bytes=0-1,200-', multi([0, 1])],
    ['T-36, more than the whole', 'bytes=0-,0-', full],
    ['T-36, more than the whole', 'bytes=0-60,30-99', full],
    ['T-36, 1025 ranges', `bytes=${Array.from({ length: 1025 }, () => '0-0').join(',')}`, full],
    ['T-36, Apache Killer', `bytes=0-,${Array.from({ length: 1000 }, (_, n) => `5-${n + 5}`).join(',')}`, full],
    ['T-36, 40 KB', `bytes=0-1${' '.repeat(40_000)}`, full],
  ])('%s: %.60j of 100 bytes', (_, header, expected) => {
    expect(parseRange(header, 100)).toEqual(expected)
  })

  it.each([
    ['bytes=0-', full],
    ['bytes=0-5', full],
    ['bytes=-5', full],
    ['bytes=-0', unsatisfiable],
    ['bytes=1-', unsatisfiable],
  ])('P-52: %s of an empty blob', (header, expected) => {
    expect(parseRange(header, 0)).toEqual(expected)
  })

  it('T-36: takes 1024 ranges', () => {
    const header = `bytes=${Array.from({ length: 1024 }, (_, n) => `${n * 2}-${n * 2}`).join(',')}`
    expect(parseRange(header, 4096)).toMatchObject({ kind: 'multi', ranges: { length: 1024 } })
  })

  it('P-51: knows the syntax before the size', () => {
    expect(parseRangeSyntax('bytes=1-2,3-,-4')).toEqual([{ start: 1, end: 2 }, { start: 3 }, { suffix: 4 }])
    expect(parseRangeSyntax('bytes=2-1')).toBeUndefined()
  })

  it('P-54: parts lie inside, do not overlap, and cover what was asked and exists', () => {
    const spec = fc.oneof(
      fc.tuple(fc.nat(40), fc.nat(20)).map(([start, more]) => `${start}-${start + more}`),
      fc.nat(40).map(start => `${start}-`),
      fc.nat(40).map(suffix => `-${suffix}`),
    )
    fc.assert(
      fc.property(fc.array(spec, { minLength: 1, maxLength: 5 }), fc.integer({ min: 1, max: 30 }), (specs, size) => {
        const request = parseRange(`bytes=${specs.join(',')}`, size)
        if (request.kind === 'full') return
        const asked = new Set(specs.flatMap(text => bytesOf(text, size)))
        const ranges = request.kind === 'multi' ? request.ranges : request.kind === 'single' ? [request.range] : []
        const given = ranges.flatMap(({ start, end }) => span(start, end))
        expect(given.length).toBe(new Set(given).size)
        expect(new Set(given)).toEqual(asked)
        expect(ranges.reduce((sum, range) => sum + lengthOf(range), 0)).toBe(given.length)
        expect(request.kind === 'single').toBe(specs.length === 1 && asked.size > 0)
      }),
    )
  })

  it('P-53: never throws', () => {
    const text = fc.string({ unit: fc.constantFrom('0', '9', '-', ',', ' ', 'x', '=', '٣') })
    fc.assert(
      fc.property(text, fc.nat(), (tail, size) => {
        expect(parseRange(`bytes=${tail}`, size).kind).toMatch(/^(?:full|single|multi|unsatisfiable)$/)
      }),
    )
  })
})

const span = (start: number, end: number): number[] =>
  Array.from({ length: Math.max(0, end - start + 1) }, (_, offset) => start + offset)

/** The bytes that a range means, by the words of the RFC. */
function bytesOf(spec: string, size: number): number[] {
  const [from = '', to = ''] = spec.split('-')
  if (from === '') return span(Math.max(0, size - Number(to)), size - 1)
  return span(Number(from), Math.min(size - 1, to === '' ? size - 1 : Number(to)))
}

describe('range headers', () => {
  it('P-51: Content-Range', () => {
    expect(contentRange({ start: 5, end: 9 }, 10)).toBe('bytes 5-9/10')
  })

  it.each([
    [undefined, true],
    ['"sha256:aa"', true],
    [' "sha256:aa" ', true],
    ['"sha256:bb"', false],
    ['sha256:aa', false],
    ['W/"sha256:aa"', false],
    ['"sha256:aa", "sha256:bb"', false],
    ['*', false],
    ['Mon, 23 Nov 2026 15:00:00 GMT', false],
  ])('P-55: If-Range %s', (header, expected) => {
    expect(ifRangeMatches(header, '"sha256:aa"')).toBe(expected)
  })
})
