import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { accepts, parseAccept } from '../../src/oci/accept.ts'
import { dockerList, dockerManifest, manifestAccept, ociIndex, ociManifest } from '../../src/oci/media-types.ts'

describe('accepts', () => {
  it.each([
    ['nothing sent', undefined, true],
    ['an empty header', '', true],
    ['unreadable words only', ';;, /, a/b/c', true],
    ['the type itself', ociIndex, true],
    ['the type in other case', ociIndex.toUpperCase(), true],
    ['the type with parameters', `${ociIndex}; charset=utf-8; q=0.1`, true],
    ['a list that has it', `text/html, ${ociIndex} ,x/y`, true],
    ['a list without it', `${ociManifest}, ${dockerList}, ${dockerManifest}`, false],
    ['two header lines', [ociManifest, ociIndex], true],
    ['two header lines without it', [ociManifest, dockerList], false],
    ['everything', '*/*', true],
    ['everything, as Java says it', 'text/html, image/gif; q=.2, *; q=.2', true],
    ['the whole type', 'application/*', true],
    ['another whole type', 'text/*', false],
    ['everything with q=0', '*/*;q=0', false],
    ['the type with q=0', `${ociIndex};q=0`, false],
    ['the type with q=0.000', `${ociIndex}; Q=0.000`, false],
    ['the type with q=0.001', `${ociIndex};q=0.001`, true],
    ['everything but the type', `*/*, ${ociIndex};q=0`, false],
    ['nothing but the type', `*/*;q=0, ${ociIndex}`, true],
    ['nothing of application but the type', `application/*;q=0, ${ociIndex}, */*`, true],
    ['a comma inside of quotes', `x/y;note="a, ${ociIndex}, b"`, false],
    ['containerd', `${manifestAccept}, */*`, true],
    ['application/json, which it is not', 'application/json', false],
    ['*/json, which means nothing', `*/json, ${ociManifest}`, false],
  ])('P-30, P-31: an index for a client that sends %s: %#', (_, header, expected) => {
    expect(accepts(parseAccept(header), ociIndex)).toBe(expected)
  })

  it('P-30: the list sent upstream covers the four types', () => {
    const parsed = parseAccept(manifestAccept)
    expect([ociIndex, ociManifest, dockerList, dockerManifest].filter(type => !accepts(parsed, type))).toEqual([])
    expect(accepts(parsed, 'application/vnd.docker.distribution.manifest.v1+json')).toBe(false)
  })

  it('P-31: lines and one joined list mean the same', () => {
    const item = fc.constantFrom('*/*', ociIndex, `${ociIndex};q=0`, 'application/*', dockerList, 'junk', 'a/b;c="x')
    fc.assert(
      fc.property(fc.array(item, { maxLength: 6 }), lines => {
        expect(accepts(parseAccept(lines), ociIndex)).toBe(accepts(parseAccept(lines.join(',')), ociIndex))
      }),
    )
  })

  it('T-52: never throws, and reads no more than 16 KiB', () => {
    fc.assert(fc.property(fc.string(), text => typeof accepts(parseAccept(text), ociIndex) === 'boolean'))
    expect(accepts(parseAccept(`x/y,${' '.repeat(20_000)},${ociIndex}`), ociIndex)).toBe(false)
  })
})
