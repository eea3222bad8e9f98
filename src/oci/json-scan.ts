/** What one pass over a JSON text found, before anyone builds objects from it. */
export type JsonScan = {
  /** Deepest nesting of objects and arrays. */
  readonly depth: number
  /** Keys of the outermost object in order, repeated ones included. */
  readonly topLevelKeys: readonly string[]
}

const maxKeys = 1024
/** An index of 4 MiB has at most about 60,000 objects. */
const maxContainers = 131_072
/** Keys of all objects together: 24,000 layers have 72,000. */
const maxKeysInAll = 262_144
/** Real manifests have some tens; one of thousands of annotations, as many as those. */
const maxNovelKeys = 8_192
/** Strings so short are looked up in a table of all strings, which costs ten times what a long one does. */
const shortLength = 12
const maxShortStrings = 65_536
const quote = 0x22
const backslash = 0x5c
const isOpening = (code: number): boolean => code === 0x5b || code === 0x7b
const mayBeNumeric = (code: number): boolean => (code >= 0x30 && code <= 0x39) || code === backslash
const isClosing = (code: number): boolean => code === 0x5d || code === 0x7d

/**
 * Scans a text that is hoped to be JSON, in linear time and without recursion (T-42). Gives up, with undefined, when it nests deeper than `maxDepth`,
 * has more than 1024 keys outermost, more than 1024 that start with a digit or an escape, more objects, lists or short strings than fit a manifest, or keys
 * in more orders than those of a manifest. Does not check the syntax: JSON.parse does.
 */
export function scanJson(text: string, maxDepth: number): JsonScan | undefined {
  const topLevelKeys: string[] = []
  let depth = 0
  let deepest = 0
  let numericKeys = 0
  let containers = 0
  let shortStrings = 0
  const shapes = new Shapes()
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === quote) {
      const end = endOfString(text, at)
      if (isKey(text, end)) {
        if (depth === 1) topLevelKeys.push(unquote(text.slice(at, end)))
        // Objects with integer keys take several times longer to build, and manifests have none.
        if (mayBeNumeric(text.charCodeAt(at + 1))) numericKeys++
        if (topLevelKeys.length > maxKeys || numericKeys > maxKeys || !shapes.key(depth, text.slice(at, end)))
          return undefined
      } else if (end - at <= shortLength && ++shortStrings > maxShortStrings) return undefined
      at = end - 1
    } else if (isOpening(code)) {
      depth++
      containers++
      shapes.open(depth)
      deepest = Math.max(deepest, depth)
      if (deepest > maxDepth || containers > maxContainers) return undefined
    } else if (isClosing(code)) depth--
  }
  return { depth: deepest, topLevelKeys }
}

type Shape = Map<string, Shape>

/**
 * The orders in which objects have their keys, as a tree. A key that follows where none of that name followed before costs the engine a hidden
 * class or a larger table, which is a hundred times what any other key costs: of those a manifest has few, however many layers it has.
 */
class Shapes {
  readonly #root: Shape = new Map()
  /** By depth: where the object there is in the tree. */
  readonly #at: Shape[] = []
  #keys = 0
  #novel = 0

  open(depth: number): void {
    this.#at[depth] = this.#root
  }

  /** False: there are more than in any manifest. */
  key(depth: number, key: string): boolean {
    const shape = this.#at[depth] ?? this.#root
    let next = shape.get(key)
    if (next === undefined) {
      next = new Map()
      shape.set(key, next)
      this.#novel++
    }
    this.#at[depth] = next
    return ++this.#keys <= maxKeysInAll && this.#novel <= maxNovelKeys
  }
}

/** The position behind the closing quote of the string that starts at `start`. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === backslash) at++
    else if (code === quote) return at + 1
  }
  return text.length
}

function isKey(text: string, end: number): boolean {
  let at = end
  while (at < text.length && ' \t\r\n'.includes(text.charAt(at))) at++
  return text.charAt(at) === ':'
}

function unquote(token: string): string {
  try {
    return String(JSON.parse(token))
  } catch {
    // Not JSON: JSON.parse of the whole text will say so.
    return token
  }
}
