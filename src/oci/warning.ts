/** All warnings of a response together (distribution-spec "Warnings"). */
const maxLength = 4096
const frame = '299 - ""'.length

/**
 * The warnings of an upstream response that the distribution spec knows: `299 - "<text>"`, rewritten to printable ASCII (P-103, T-33).
 * Others, and dates behind them, are dropped. All together are at most 4096 bytes.
 */
export function parseWarnings(header: string | readonly string[] | undefined): readonly string[] {
  if (header === undefined) return []
  const text = (typeof header === 'string' ? header : header.join(', ')).slice(0, 4 * maxLength)
  const warnings: string[] = []
  let room = maxLength
  for (const quoted of scan(text)) {
    const warning = quoted.head === '299 -' ? formatWarning(quoted.text) : undefined
    if (warning === undefined || warning.length > room) continue
    warnings.push(warning)
    room -= warning.length
  }
  return warnings
}

/** A well-formed `Warning` value around `text`, which is shortened and stripped of what a header cannot carry. */
export function formatWarning(text: string): string {
  let escaped = ''
  for (const character of text.replace(/[\t\r\n]+/g, ' ')) {
    const piece = quotedPair(character)
    if (escaped.length + piece.length > maxLength - frame) break
    escaped += piece
  }
  return `299 - "${escaped}"`
}

function quotedPair(character: string): string {
  if (character === '"' || character === '\\') return `\\${character}`
  if (character < ' ' || character === '\x7f') return ''
  return character > '~' ? '?' : character
}

/** Each quoted string with the words in front of it, in linear time. A date that follows a text is skipped. */
function* scan(header: string): Generator<{ readonly head: string; readonly text: string }> {
  let at = 0
  while (at < header.length) {
    const open = header.indexOf('"', at)
    if (open < 0) return
    const between = header.slice(at, open)
    const head = between.slice(between.lastIndexOf(',') + 1)
    let text = ''
    for (at = open + 1; at < header.length && header.charAt(at) !== '"'; at++) {
      if (header.charAt(at) === '\\') at++
      text += header.charAt(at)
    }
    if (at >= header.length) return
    at++
    yield { head: head.trim().replace(/[ \t]+/g, ' '), text }
  }
}
