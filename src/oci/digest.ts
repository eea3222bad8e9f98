import { createHash, type Hash } from 'node:crypto'
import { digestInvalid } from './errors.ts'

export type Algorithm = 'sha256' | 'sha512'

/** A digest that was parsed: `sha256:<64 hex>` or `sha512:<128 hex>`, lower case. Safe as a key and as a file name part. */
export type Digest = `${Algorithm}:${string}` & { readonly __digest: true }

const hexLength: Record<Algorithm, number> = { sha256: 64, sha512: 128 }

// The grammar of image-spec descriptor.md "Digests": algorithm components joined by one of + . _ -
const grammar = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/
const lowerHex = /^[0-9a-f]+$/

/**
 * Parses a digest string. Takes `<algorithm>:<encoded>`, gives a {@link Digest}.
 * Throws DIGEST_INVALID (400) for what is malformed, upper-case, of wrong length, or of an algorithm that cannot be verified here.
 * https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
 */
export function parseDigest(text: string): Digest {
  if (isDigest(text)) return text
  if (text.length > 300 || !grammar.test(text)) throw digestInvalid(text, 'it is not of the form <algorithm>:<encoded>')
  const [algorithm = ''] = text.split(':', 1)
  if (algorithm !== 'sha256' && algorithm !== 'sha512')
    throw digestInvalid(text, `${algorithm} cannot be verified here: sha256 and sha512 can`)
  throw digestInvalid(text, `${algorithm} takes exactly ${hexLength[algorithm]} lower-case hexadecimal digits`)
}

/** True when `text` is a digest that {@link parseDigest} accepts. */
export function isDigest(text: string): text is Digest {
  const colon = text.indexOf(':')
  const algorithm = text.slice(0, colon)
  if (algorithm !== 'sha256' && algorithm !== 'sha512') return false
  return text.length === colon + 1 + hexLength[algorithm] && lowerHex.test(text.slice(colon + 1))
}

export function algorithmOf(digest: Digest): Algorithm {
  return digest.startsWith('sha256:') ? 'sha256' : 'sha512'
}

/** The encoded part, lower-case hexadecimal. */
export function hexOf(digest: Digest): string {
  return digest.slice(7)
}

/** A running hash whose result can be compared with a {@link Digest} by {@link finish}. */
export function hasher(algorithm: Algorithm): Hash {
  return createHash(algorithm)
}

export function finish(algorithm: Algorithm, hash: Hash): Digest {
  // The digest is built here from a hash: it is valid by construction.
  return `${algorithm}:${hash.digest('hex')}` as Digest
}

/** The digest of `bytes`. */
export function digestOf(bytes: Uint8Array, algorithm: Algorithm = 'sha256'): Digest {
  return finish(algorithm, hasher(algorithm).update(bytes))
}

/** The blob of no bytes and the empty descriptor `{}`: known without asking anyone (P-66). */
export const wellKnownBlobs: ReadonlyMap<Digest, Uint8Array> = new Map(
  (['sha256', 'sha512'] as const).flatMap(algorithm =>
    ['', '{}'].map(text => [digestOf(Buffer.from(text), algorithm), Buffer.from(text)] as const),
  ),
)
