/** A scan position in a header, moved forward only: parsing is linear whatever is sent. */
type Cursor = { readonly text: string; at: number }

const maxLength = 16_384

/**
 * The target of the first `rel="next"` link, as written: absolute or relative. Undefined when there is none or the header is malformed before it.
 * Where it may lead is for the caller to check (T-6).
 * https://www.rfc-editor.org/rfc/rfc8288#section-3
 */
export function parseNextLink(header: string | readonly string[] | undefined): string | undefined {
  if (header === undefined) return undefined
  const text = typeof header === 'string' ? header : header.join(',')
  if (text.length > maxLength) return undefined
  const cursor: Cursor = { text, at: 0 }
  for (;;) {
    skip(cursor, ' \t,')
    if (cursor.text.charAt(cursor.at) !== '<') return undefined
    const close = text.indexOf('>', cursor.at)
    if (close < 0) return undefined
    const target = text.slice(cursor.at + 1, close).trim()
    cursor.at = close + 1
    if (isNext(readRelation(cursor))) return target
  }
}

/** The value of a `Link` header to the next page: `</v2/library/alpine/tags/list?n=2&last=3.9>; rel="next"` (P-76). `path` is ours, never the client's Host. */
export function formatNextLink(path: string, query: URLSearchParams): string {
  const text = query.toString()
  return `<${text === '' ? path : `${path}?${text}`}>; rel="next"`
}

function isNext(relation: string | undefined): boolean {
  return relation?.toLowerCase().split(/[ \t]/).includes('next') ?? false
}

/** Reads the parameters up to the next link; gives the first `rel`, which is the one that counts (RFC 8288 §3.3). */
function readRelation(cursor: Cursor): string | undefined {
  let relation: string | undefined
  for (skip(cursor, ' \t'); cursor.text.charAt(cursor.at) === ';'; skip(cursor, ' \t')) {
    cursor.at++
    const name = readUntil(cursor, '=;,').trim().toLowerCase()
    const value = cursor.text.charAt(cursor.at) === '=' ? readValue(cursor) : ''
    if (name === 'rel') relation ??= value
  }
  return relation
}

function readValue(cursor: Cursor): string {
  cursor.at++
  skip(cursor, ' \t')
  if (cursor.text.charAt(cursor.at) !== '"') return readUntil(cursor, ';,').trim()
  let value = ''
  for (cursor.at++; cursor.at < cursor.text.length; cursor.at++) {
    const character = cursor.text.charAt(cursor.at)
    if (character === '"') break
    if (character === '\\') cursor.at++
    value += cursor.text.charAt(cursor.at)
  }
  cursor.at++
  return value
}

function readUntil(cursor: Cursor, ends: string): string {
  const start = cursor.at
  while (cursor.at < cursor.text.length && !ends.includes(cursor.text.charAt(cursor.at))) cursor.at++
  return cursor.text.slice(start, cursor.at)
}

function skip(cursor: Cursor, characters: string): void {
  while (cursor.at < cursor.text.length && characters.includes(cursor.text.charAt(cursor.at))) cursor.at++
}
