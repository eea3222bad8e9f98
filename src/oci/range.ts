/** Bytes from `start` to `end`, both inclusive, both below the size of what they are taken from. */
export type ByteRange = { readonly start: number; readonly end: number }

/** What a `Range` header means for content of a known size. */
export type RangeRequest =
  | { readonly kind: 'full' }
  | { readonly kind: 'single'; readonly range: ByteRange }
  /** Several were asked for: answered as multipart/byteranges, even where one is left (RFC 9110 §15.3.7.2). */
  | { readonly kind: 'multi'; readonly ranges: readonly ByteRange[] }
  | { readonly kind: 'unsatisfiable' }

/** One range as written; an absent `end` means to the end, `suffix` the last so many bytes. Numbers beyond 2^53 - 1 are clamped. */
export type RangeSpec = { readonly start: number; readonly end?: number } | { readonly suffix: number }
/** A well-formed `bytes` header, before the size is known. */
export type RangeSyntax = readonly RangeSpec[]

/** What containers/storage asks for at most in one request (maxNumberMissingChunks). */
const maxRanges = 1024
const maxLength = 32_768

/** {@link parseRangeSyntax} and {@link resolveRange} in one, for content whose size is known. */
export function parseRange(header: string | undefined, size: number): RangeRequest {
  return resolveRange(parseRangeSyntax(header), size)
}

/**
 * Parses a `Range` header. Absent: there is none, it is malformed, of another unit, or excessive; the whole is to be sent then (P-53, T-36).
 * https://www.rfc-editor.org/rfc/rfc9110#section-14.2
 */
export function parseRangeSyntax(header: string | undefined): RangeSyntax | undefined {
  if (header === undefined || header.length > maxLength || !/^bytes=\S/i.test(header)) return undefined
  const items = header
    .slice('bytes='.length)
    .split(',')
    .map(item => item.trim())
    .filter(item => item !== '')
  if (items.length === 0 || items.length > maxRanges) return undefined
  const specs = items.map(parseSpec).filter(spec => spec !== undefined)
  return specs.length === items.length ? specs : undefined
}

/** Applies a parsed header to content of `size` bytes. `undefined` gives `full`. */
export function resolveRange(syntax: RangeSyntax | undefined, size: number): RangeRequest {
  if (syntax === undefined) return { kind: 'full' }
  // No 206 can describe an empty body, so the empty whole is the answer to a range that begins where it does (P-52).
  if (size === 0) return { kind: syntax.some(beginsAtZero) ? 'full' : 'unsatisfiable' }
  const ranges = syntax.map(spec => resolveSpec(spec, size)).filter(range => range !== undefined)
  const [first] = ranges
  if (first === undefined) return { kind: 'unsatisfiable' }
  if (syntax.length === 1) return { kind: 'single', range: first }
  const total = ranges.reduce((sum, range) => sum + lengthOf(range), 0)
  return total > size ? { kind: 'full' } : { kind: 'multi', ranges: coalesce(ranges) }
}

/** The value of `Content-Range` for a part. */
export function contentRange(range: ByteRange, size: number): string {
  return `bytes ${range.start}-${range.end}/${size}`
}

export function lengthOf(range: ByteRange): number {
  return range.end - range.start + 1
}

/**
 * True when the range may be honoured: no `If-Range`, or exactly our strong entity tag. Dates and weak tags never match (P-55).
 * https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
 */
export function ifRangeMatches(header: string | undefined, etag: string): boolean {
  return header === undefined || header.trim() === etag
}

function parseSpec(item: string): RangeSpec | undefined {
  const parts = /^(\d*)-(\d*)$/.exec(item)
  if (!parts) return undefined
  const [, from = '', to = ''] = parts
  if (from === '') return to === '' ? undefined : { suffix: clamp(to) }
  const start = clamp(from)
  if (to === '') return { start }
  const end = clamp(to)
  return end < start ? undefined : { start, end }
}

function clamp(digits: string): number {
  return Math.min(Number(digits), Number.MAX_SAFE_INTEGER)
}

function beginsAtZero(spec: RangeSpec): boolean {
  return 'suffix' in spec ? spec.suffix > 0 : spec.start === 0
}

function resolveSpec(spec: RangeSpec, size: number): ByteRange | undefined {
  if ('suffix' in spec) return spec.suffix === 0 ? undefined : { start: Math.max(0, size - spec.suffix), end: size - 1 }
  if (spec.start >= size) return undefined
  return { start: spec.start, end: Math.min(spec.end ?? size - 1, size - 1) }
}

/**
 * Merges ranges that overlap. Without overlap they stay as asked, in the order asked and also where they touch:
 * containers/image counts on one part for each range that it sent.
 */
function coalesce(ranges: readonly ByteRange[]): readonly ByteRange[] {
  const merged: ByteRange[] = []
  for (const range of ranges.toSorted((a, b) => a.start - b.start)) {
    const last = merged.at(-1)
    if (last && range.start <= last.end)
      merged[merged.length - 1] = { start: last.start, end: Math.max(last.end, range.end) }
    else merged.push(range)
  }
  return merged.length === ranges.length ? ranges : merged
}
