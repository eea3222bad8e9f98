/** A parsed `Accept`; undefined accepts everything. */
export type Accept = readonly AcceptRange[] | undefined

/** One media range: `type` and `subtype` are lower case or `*`; `refused` is q=0. */
export type AcceptRange = { readonly type: string; readonly subtype: string; readonly refused: boolean }

/** Node refuses longer headers by itself. */
const maxLength = 16_384

/**
 * Parses all lines of an `Accept` header (P-31). What cannot be read is skipped; nothing readable accepts everything, as no header does.
 * https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1
 */
export function parseAccept(headerValues: string | readonly string[] | undefined): Accept {
  if (headerValues === undefined) return undefined
  const text = typeof headerValues === 'string' ? headerValues : headerValues.join(',')
  const ranges = splitUnquoted(text.slice(0, maxLength), ',')
    .map(parseRange)
    .filter(range => range !== undefined)
  return ranges.length > 0 ? ranges : undefined
}

/** True when the most specific range that covers `mediaType` is not refused (P-30). Parameters play no part. */
export function accepts(parsed: Accept, mediaType: string): boolean {
  if (parsed === undefined) return true
  const [type = '', subtype = ''] = mediaType.toLowerCase().split('/', 2)
  const covering = [
    parsed.filter(range => range.type === type && range.subtype === subtype),
    parsed.filter(range => range.type === type && range.subtype === '*'),
    parsed.filter(range => range.type === '*'),
  ].find(ranges => ranges.length > 0)
  return covering?.some(range => !range.refused) ?? false
}

const token = /^[!#$%&'*+.^_`|~a-z0-9-]+$/

function parseRange(item: string): AcceptRange | undefined {
  const [range = '', ...parameters] = splitUnquoted(item, ';').map(part => part.trim().toLowerCase())
  // Java's default Accept holds a bare `*`.
  const [type = '', subtype = '', ...rest] = range === '*' ? ['*', '*'] : range.split('/')
  if (rest.length > 0 || !token.test(type) || !token.test(subtype)) return undefined
  if (type === '*' && subtype !== '*') return undefined
  return { type, subtype, refused: parameters.some(isZeroWeight) }
}

function isZeroWeight(parameter: string): boolean {
  return /^q[ \t]{0,8}=[ \t]{0,8}0(?:\.0{0,8})?$/.test(parameter)
}

/** Splits at `separator` where it is not inside a quoted string; linear. */
function splitUnquoted(text: string, separator: string): string[] {
  const parts: string[] = []
  let start = 0
  let quoted = false
  for (let at = 0; at < text.length; at++) {
    const character = text.charAt(at)
    if (quoted && character === '\\') at++
    else if (character === '"') quoted = !quoted
    else if (character === separator && !quoted) {
      parts.push(text.slice(start, at))
      start = at + 1
    }
  }
  return [...parts, text.slice(start)]
}
