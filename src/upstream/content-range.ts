/** What a 206 says about itself; `size` is absent for `/*`. */
export type ContentRange = { readonly start: number; readonly end: number; readonly size: number | undefined }

type Asked = { readonly offset: number; readonly end: number | undefined; readonly contentLength: number | undefined }

/** Parses `bytes a-b/size` or `bytes a-b/*`; anything else is undefined. */
export function parseContentRange(header: string | undefined): ContentRange | undefined {
  const [, first, last, total] = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/i.exec(header?.trim() ?? '') ?? []
  if (first === undefined || last === undefined) return undefined
  const size = total === '*' ? undefined : Number(total)
  const range = { start: Number(first), end: Number(last), size }
  return range.start <= range.end && (size === undefined || range.end < size) ? range : undefined
}

/**
 * The range of a 206 when it is exactly what was asked, or undefined: the start is the same, the end is the asked one or the last byte,
 * and Content-Length agrees (P-114).
 */
export function matchingRange(header: string | undefined, asked: Asked): ContentRange | undefined {
  const range = parseContentRange(header)
  if (range === undefined || range.start !== asked.offset) return undefined
  if (asked.contentLength !== undefined && asked.contentLength !== range.end - range.start + 1) return undefined
  const last = range.size === undefined ? undefined : range.size - 1
  if (asked.end === undefined) return last === undefined || range.end === last ? range : undefined
  return range.end === (last === undefined ? asked.end : Math.min(asked.end, last)) ? range : undefined
}
