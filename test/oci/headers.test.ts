import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { etagOf, matchesEtag } from '../../src/oci/etag.ts'
import { formatNextLink, parseNextLink } from '../../src/oci/link.ts'
import { bareMediaType, isIndex, isManifestMediaType, ociIndex } from '../../src/oci/media-types.ts'
import { formatWarning, parseWarnings } from '../../src/oci/warning.ts'

const digest = digestOf(Buffer.from('x'))
const other = digestOf(Buffer.from('y'))

describe('entity tags', () => {
  it.each([
    [undefined, false],
    ['', false],
    [etagOf(digest), true],
    [digest, true],
    [`W/"${digest}"`, true],
    [`"${other}", W/"${digest}"`, true],
    [` "${other}" ,${digest} `, true],
    ['*', true],
    [`"${other}", *`, true],
    [etagOf(other), false],
    [`""${digest}""`, false],
    [`"${digest}`, false],
    [digest.slice(0, -1), false],
    ['"*"', false],
  ])('P-43: If-None-Match %s', (header, expected) => {
    expect(matchesEtag(header, digest)).toBe(expected)
  })
})

describe('media types', () => {
  it.each([
    ['application/vnd.oci.image.index.v1+json', true],
    ['application/vnd.acme+json', true],
    ['application/vnd.docker.distribution.manifest.v1+json', false],
    ['application/json', false],
    ['application/octet-stream', false],
    ['text/html', false],
    ['application/a\r\nx: y+json', false],
    [`application/${'a'.repeat(300)}+json`, false],
  ])('P-71: %j may be a manifest: %s', (mediaType, expected) => {
    expect(isManifestMediaType(mediaType)).toBe(expected)
  })

  it('P-33: a Content-Type is compared without parameters and case', () => {
    expect(isIndex(bareMediaType(` ${ociIndex.toUpperCase()} ; charset=utf-8`) ?? '')).toBe(true)
    expect([bareMediaType(undefined), bareMediaType(''), bareMediaType(' ;x=y')]).toEqual([
      undefined,
      undefined,
      undefined,
    ])
  })
})

describe('links', () => {
  it.each([
    ['</v2/a/tags/list?n=2&last=b>; rel="next"', '/v2/a/tags/list?n=2&last=b'],
    ['<https://r.example/v2/a/tags/list?last=b>; rel=next', 'https://r.example/v2/a/tags/list?last=b'],
    ['</x>;REL="prev NEXT"', '/x'],
    ['</p>; rel="prev", </n>; rel="next"', '/n'],
    [['</p>; rel="prev"', '</n>; rel="next"'], '/n'],
    ['</a,b;c>; title="x, <y>; rel=\\"next\\""; rel="next"', '/a,b;c'],
    ['</a>; title="<y>; rel=next"', undefined],
    ['</a>; rel=prev; rel=next', undefined],
    ['</a>; rel="nextish"', undefined],
    ['</a>', undefined],
    ['</a>; rel', undefined],
    ['</a; rel="next"', undefined],
    ['/a; rel="next"', undefined],
    ['', undefined],
    [undefined, undefined],
  ])('P-76: %s', (header, expected) => {
    expect(parseNextLink(header)).toBe(expected)
  })

  it('P-76, P-77: what is written can be read, whatever is in the query', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.string()), entries => {
        const query = new URLSearchParams(entries)
        const header = formatNextLink('/v2/a/tags/list', query)
        expect(header).toMatch(/^[\x20-\x7e]+$/)
        const target = parseNextLink(header) ?? ''
        expect([...new URL(target, 'http://x').searchParams]).toEqual([...query])
      }),
    )
  })

  it('T-52: ends for whatever is sent', () => {
    const text = fc.string({ unit: fc.constantFrom('<', '>', ';', ',', '"', '\\', '=', ' ', 'rel', 'next') })
    fc.assert(
      fc.property(text, header => {
        expect(['string', 'undefined']).toContain(typeof parseNextLink(header))
      }),
    )
  })
})

describe('warnings', () => {
  it.each([
    ['299 - "deprecated"', ['299 - "deprecated"']],
    ['299 - "a", 299 - "b, c"', ['299 - "a"', '299 - "b, c"']],
    [
      ['299 - "a"', '299 - "b"'],
      ['299 - "a"', '299 - "b"'],
    ],
    ['299  -  "a"', ['299 - "a"']],
    ['299 - "a" "Mon, 23 Nov 2026 15:00:00 GMT", 299 - "b"', ['299 - "a"', '299 - "b"']],
    ['110 anderson/1.3.37 "Response is stale"', []],
    ['299 host "a"', []],
    ['299 - a', []],
    ['299 - "unterminated', []],
    [String.raw`299 - "say \"no\" \\ yes"`, [String.raw`299 - "say \"no\" \\ yes"`]],
    ['299 - "tab\there, \u000b and \u00e9"', ['299 - "tab here,  and ?"']],
    ['', []],
    [undefined, []],
  ])('P-103: %j', (header, expected) => {
    expect(parseWarnings(header)).toEqual(expected)
  })

  it('T-33, P-103: what is written is printable, at most 4096 bytes, and reads back the same', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 5000 }), text => {
        const warning = formatWarning(text)
        expect(warning).toMatch(/^299 - "(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"$/)
        expect(warning.length).toBeLessThanOrEqual(4096)
        expect(parseWarnings(warning)).toEqual([warning])
      }),
    )
    expect(formatWarning('"'.repeat(10_000))).toHaveLength(4096)
  })

  it('P-103: all together are at most 4096 bytes', () => {
    const many = parseWarnings(Array.from({ length: 200 }, (_, n) => `299 - "${n}${'x'.repeat(90)}"`))
    expect(many.length).toBeGreaterThan(30)
    expect(many.join('').length).toBeLessThanOrEqual(4096)
  })
})
