import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type PageRequest, pageOf, parsePageRequest, sortNames } from '../../src/oci/pagination.ts'

const names = ['1', '10', '2', 'A', '_', 'a', 'b']

describe('pages', () => {
  it.each([
    ['', { n: undefined, last: undefined }],
    ['n=0', { n: 0, last: undefined }],
    ['n=5&last=b', { n: 5, last: 'b' }],
    ['n=99999999999999999999', { n: Number.MAX_SAFE_INTEGER, last: undefined }],
    ['last=', { n: undefined, last: '' }],
  ])('P-75: reads %j', (query, expected) => {
    expect(parsePageRequest(new URLSearchParams(query))).toEqual(expected)
  })

  it.each(['-1', 'x', '', '1.5', '1e3', ' 1', '0x10', '٣', 'NaN'])('P-75: n=%s is PAGINATION_NUMBER_INVALID', n => {
    expect(() => parsePageRequest(new URLSearchParams({ n }))).toThrow(
      expect.objectContaining({ status: 400, code: 'PAGINATION_NUMBER_INVALID' }),
    )
  })

  it('P-74: sorts by bytes, each name once', () => {
    expect(sortNames(['b', 'a', '_', 'A', '10', '2', '1', 'a'])).toEqual(names)
  })

  it.each<[Partial<PageRequest>, readonly string[], string | undefined]>([
    [{}, names, undefined],
    [{ n: 0 }, [], undefined],
    [{ n: 2 }, ['1', '10'], '10'],
    [{ n: 7 }, names, undefined],
    [{ n: 6 }, names.slice(0, 6), 'a'],
    [{ n: 9 }, names, undefined],
    [{ last: 'A' }, ['_', 'a', 'b'], undefined],
    [{ last: 'AA' }, ['_', 'a', 'b'], undefined],
    [{ last: 'b' }, [], undefined],
    [{ last: 'zzz', n: 3 }, [], undefined],
    [{ last: '2', n: 2 }, ['A', '_'], '_'],
    [{ last: '' }, names, undefined],
  ])('P-75: %j', (request, page, next) => {
    expect(pageOf(names, { n: undefined, last: undefined, ...request })).toEqual({ names: page, next })
  })

  it('P-75: walking the pages gives every name once, in order, and ends', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), fc.integer({ min: 1, max: 5 }), (list, n) => {
        const sorted = sortNames(list)
        const walked: string[] = []
        let last: string | undefined
        do {
          const page = pageOf(sorted, { n, last })
          walked.push(...page.names)
          last = page.next
        } while (last !== undefined && walked.length <= sorted.length)
        expect(walked).toEqual(sorted)
      }),
    )
  })
})
