import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { parseReference, referenceText } from '../../src/oci/reference.ts'

const digest = digestOf(Buffer.from('x'))

describe('parseReference', () => {
  it.each([
    'latest',
    '1.0',
    '_x',
    'A-Z.z_9',
    'v'.repeat(128),
    digest.replace(':', '-'),
    `${digest.replace(':', '-')}.sig`,
  ])('P-9, P-12: takes %s for a tag', tag => {
    expect(parseReference(tag)).toEqual({ kind: 'tag', tag })
  })

  it.each(['', '.a', '-a', 'a b', 'a/b', 'a\n', 'é', '..', 'v'.repeat(129), 'a+b', '%61'])(
    'P-9: %j cannot exist, so it is MANIFEST_UNKNOWN',
    tag => {
      expect(() => parseReference(tag)).toThrow(expect.objectContaining({ status: 404, code: 'MANIFEST_UNKNOWN' }))
    },
  )

  it.each(['sha256:', 'latest:1', ':', 'sha256:totallywrong', digest.toUpperCase(), `sha256:${'0'.repeat(63)}`])(
    'P-10, P-12: %s has a colon and is no digest, so it is DIGEST_INVALID',
    text => {
      expect(() => parseReference(text)).toThrow(expect.objectContaining({ status: 400, code: 'DIGEST_INVALID' }))
    },
  )

  it('gives back the text that it parsed', () => {
    const tag = fc.stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/)
    const digests = fc.uint8Array().map(bytes => digestOf(bytes, 'sha512'))
    fc.assert(
      fc.property(fc.oneof(tag, digests), text => {
        expect(referenceText(parseReference(text))).toBe(text)
      }),
    )
  })
})
