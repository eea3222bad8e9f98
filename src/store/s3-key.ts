import { algorithmOf, type Digest, hexOf, isDigest } from '../oci/digest.ts'

/** `<prefix>blobs/sha256/ab/<hex>`. A key is made of a digest that was parsed, never of text from a request (T-25). */
export function keyOf(prefix: string, digest: Digest): string {
  const hex = hexOf(digest)
  return `${blobPrefix(prefix)}${algorithmOf(digest)}/${hex.slice(0, 2)}/${hex}`
}

/** What the keys of all blobs begin with. */
export function blobPrefix(prefix: string): string {
  return `${prefix}blobs/`
}

/** The digest that a key stands for; undefined for keys that are not ours. */
export function digestOfKey(prefix: string, key: string): Digest | undefined {
  if (!key.startsWith(blobPrefix(prefix))) return undefined
  const [algorithm = '', , hex = ''] = key.slice(blobPrefix(prefix).length).split('/')
  const digest = `${algorithm}:${hex}`
  return isDigest(digest) && keyOf(prefix, digest) === key ? digest : undefined
}
