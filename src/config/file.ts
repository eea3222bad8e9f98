import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type Document,
  type YAMLError,
} from 'yaml'
import type { Problem } from './problem.ts'
import type { Origin, Path, Settings } from './settings.ts'

type Reading = {
  readonly file: string
  readonly document: Document
  readonly lines: LineCounter
  readonly settings: Settings
  readonly problems: Problem[]
}

/** Nothing in the schema is deeper than four levels; more is an alias that contains itself. */
const maxDepth = 8

/**
 * Reads the text of a configuration file into `settings`; every value gets its line and column.
 * Gives what is wrong with the YAML itself. Problems never quote the file: a broken line may hold a password (T-10).
 */
export function readFileLayer(file: string, text: string, settings: Settings): readonly Problem[] {
  const lines = new LineCounter()
  const document = parseDocument(text, { version: '1.2', lineCounter: lines, prettyErrors: false, uniqueKeys: true })
  const problems = document.errors.map(error => ({
    where: at(file, lines, error.pos[0]),
    message: describeSyntax(error),
  }))
  if (problems.length > 0) return problems
  readNode({ file, document, lines, settings, problems }, [], document.contents)
  return problems
}

function readNode(reading: Reading, path: Path, node: unknown): void {
  const resolved = resolve(reading, node)
  const origin = originOf(reading, node)
  if (path.length > maxDepth) reading.problems.push(problemAt(reading, origin, 'nested too deeply'))
  else if (isMap(resolved)) readMap(reading, path, resolved.items, origin)
  else if (isNothing(resolved)) readNothing(reading, path, origin)
  else if (path.length === 0) reading.problems.push(problemAt(reading, origin, 'expected a mapping of settings'))
  else if (isSeq(resolved)) readList(reading, path, resolved.items, origin)
  else if (isScalar(resolved)) reading.settings.set(path, resolved.value, origin)
}

function readMap(
  reading: Reading,
  path: Path,
  items: readonly { readonly key: unknown; readonly value: unknown }[],
  origin: Origin,
): void {
  reading.settings.open(path, origin)
  for (const { key, value } of items) {
    const name =
      isScalar(key) && ['string', 'number', 'boolean'].includes(typeof key.value) ? String(key.value) : undefined
    const keyOrigin = originOf(reading, key)
    if (name === undefined) reading.problems.push(problemAt(reading, keyOrigin, 'expected a plain word as key'))
    else {
      reading.settings.setKeyOrigin([...path, name], keyOrigin)
      readNode(reading, [...path, name], value)
    }
  }
}

/** `storage:` with nothing behind it leaves the defaults; `quay.io:` under upstreams means the registry with its defaults. */
function readNothing(reading: Reading, path: Path, origin: Origin): void {
  if (path.length === 2 && path[0] === 'upstreams') reading.settings.open(path, origin)
}

function readList(reading: Reading, path: Path, items: readonly unknown[], origin: Origin): void {
  const values = items.map(item => {
    const resolved = resolve(reading, item)
    const value = isScalar(resolved) ? resolved.value : isMap(resolved) ? {} : []
    return { value, origin: originOf(reading, item) }
  })
  reading.settings.setList(path, values, origin)
}

function resolve(reading: Reading, node: unknown): unknown {
  if (!isAlias(node)) return node
  const target = node.resolve(reading.document)
  if (target === undefined)
    reading.problems.push(problemAt(reading, originOf(reading, node), 'an alias (*name) without its anchor (&name)'))
  return target
}

const isNothing = (node: unknown): boolean =>
  node === null || node === undefined || (isScalar(node) && node.value === null)

function originOf({ file, lines }: Reading, node: unknown): Origin {
  const offset = (node as Node | null)?.range?.[0] ?? 0
  const { line, col } = lines.linePos(offset)
  return { kind: 'file', file, line: Math.max(1, line), column: Math.max(1, col) }
}

function problemAt(reading: Reading, origin: Origin, message: string): Problem {
  return origin.kind === 'file'
    ? { where: `${origin.file}:${origin.line}:${origin.column}`, message }
    : { where: reading.file, message }
}

function at(file: string, lines: LineCounter, offset: number): string {
  const { line, col } = lines.linePos(offset)
  return `${file}:${Math.max(1, line)}:${Math.max(1, col)}`
}

function describeSyntax(error: YAMLError): string {
  switch (error.code) {
    case 'DUPLICATE_KEY':
      return 'this key stands twice in the same mapping: keep one of them'
    case 'TAB_AS_INDENT':
      return 'tabs cannot indent YAML: use spaces'
    case 'MULTIPLE_DOCS':
      return 'expected one YAML document: remove the line ---'
    case 'MISSING_CHAR':
      return error.message.includes('quote')
        ? 'a quotation mark is not closed'
        : `not valid YAML: ${unquoted(error.message)}`
    default:
      return `not valid YAML: ${unquoted(error.message)}`
  }
}

// Messages of the parser end in a quotation of the text in some cases.
const unquoted = (message: string): string => message.replace(/:? ["'`].*$/s, '').replaceAll(/\s+/g, ' ')
