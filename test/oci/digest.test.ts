import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { algorithmOf, digestOf, hexOf, isDigest, parseDigest, wellKnownBlobs } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'

const hex = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

const refused = [
  '',
  ':',
  'sha256',
  'sha256:',
  'sha256:totallywrong',
  'sha256:baddigeststring',
  `sha256:${hex.toUpperCase()}`,
  `sha256:${hex.slice(1)}`,
  `sha256:${hex}0`,
  `SHA256:${hex}`,
  `sha256:${hex}\n`,
  ` sha256:${hex}`,
  `sha256::${hex.slice(1)}`,
  `sha512:${hex}`,
  `sha384:${hex}${hex.slice(32)}`,
  `blake3:${hex}`,
  `multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8`,
  `__proto__:${hex}`,
  `constructor:${hex}`,
  `sha256:../../../etc/passwd`,
  `sha256:${'..%2f'.repeat(12)}aaaa`,
  `sha256:${'a'.repeat(100_000)}`,
  `${'a+'.repeat(50_000)}:b`,
]

function parsedOrRefused(text: string): string {
  try {
    return parseDigest(text)
  } catch (error) {
    if (error instanceof RegistryError) return 'refused'
    throw error
  }
}

describe('parseDigest', () => {
  it.each(refused)('P-10, P-11: refuses %.80j as DIGEST_INVALID', text => {
    expect(isDigest(text)).toBe(false)
    expect(() => parseDigest(text)).toThrow(expect.objectContaining({ status: 400, code: 'DIGEST_INVALID' }))
  })

  it('P-10, P-11: accepts what a hash of any bytes gives, and takes it apart again', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.constantFrom('sha256' as const, 'sha512' as const), (bytes, algorithm) => {
        const digest = digestOf(bytes, algorithm)
        expect(parseDigest(digest)).toBe(digest)
        expect(`${algorithmOf(digest)}:${hexOf(digest)}`).toBe(digest)
        expect(algorithmOf(digest)).toBe(algorithm)
      }),
    )
  })

  it('T-25: throws nothing but RegistryError, and what it accepts is hexadecimal', () => {
    const near = fc.tuple(fc.constantFrom('sha256:', 'sha512:', 'sha256', ''), fc.string({ maxLength: 140 }))
    fc.assert(
      fc.property(near, ([start, rest]) => {
        expect(parsedOrRefused(start + rest)).toMatch(/^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}|refused)$/)
      }),
    )
  })

  it('T-25: shows only the beginning of a long digest', () => {
    expect(() => parseDigest('x'.repeat(10_000))).toThrow(/^.{1,300}$/)
  })

  it('P-66: knows the blob of no bytes and the empty descriptor under both algorithms', () => {
    expect(wellKnownBlobs.size).toBe(4)
    expect(wellKnownBlobs.get(parseDigest(`sha256:${hex}`))).toHaveLength(0)
    for (const [digest, bytes] of wellKnownBlobs) expect(digestOf(bytes, algorithmOf(digest))).toBe(digest)
    expect([...wellKnownBlobs.keys()]).toContain(
      'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
    )
  })
})
