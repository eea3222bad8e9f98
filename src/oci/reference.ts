import { type Digest, parseDigest } from './digest.ts'
import { manifestUnknown } from './errors.ts'

/** What names a manifest inside a repository. */
export type Reference =
  | { readonly kind: 'tag'; readonly tag: string }
  | { readonly kind: 'digest'; readonly digest: Digest }

const tagGrammar = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/

/**
 * Parses the last part of a manifest path. With a colon it is a digest, otherwise a tag (P-12).
 * Throws DIGEST_INVALID (400) for a bad digest and MANIFEST_UNKNOWN (404) for a bad tag, which cannot exist (P-9).
 */
export function parseReference(text: string): Reference {
  if (text.includes(':')) return { kind: 'digest', digest: parseDigest(text) }
  if (isTag(text)) return { kind: 'tag', tag: text }
  throw manifestUnknown(text, 'no tag can have this name')
}

export function isTag(text: string): boolean {
  return tagGrammar.test(text)
}

/** The reference as it stands in a path. */
export function referenceText(reference: Reference): string {
  return reference.kind === 'tag' ? reference.tag : reference.digest
}
