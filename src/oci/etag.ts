import type { Digest } from './digest.ts'

/** The strong entity tag of content: its digest in quotes (P-43). */
export function etagOf(digest: Digest): string {
  return `"${digest}"`
}

/**
 * True when `If-None-Match` names the digest: quoted, unquoted, weak, in a list, or `*` (P-43). Absent matches nothing.
 * https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2
 */
export function matchesEtag(ifNoneMatch: string | undefined, digest: Digest): boolean {
  if (ifNoneMatch === undefined) return false
  return ifNoneMatch
    .slice(0, 16_384)
    .split(',')
    .map(item => item.trim())
    .some(item => item === '*' || opaqueTag(item) === digest)
}

function opaqueTag(item: string): string {
  const tag = item.startsWith('W/') ? item.slice(2) : item
  return tag.length > 1 && tag.startsWith('"') && tag.endsWith('"') ? tag.slice(1, -1) : tag
}
