import { configJsonSchema } from './schema.ts'
import { isTree, type Path } from './settings.ts'

/** A key that holds a value, as the schema knows it. `*` in its path stands for the name of an upstream. */
export type Key = {
  readonly path: Path
  readonly kind: 'text' | 'number' | 'boolean' | 'list'
  /** In file form; undefined: there is none. */
  readonly default: unknown
  readonly description: string
}

let known: readonly Key[] | undefined

/** Every key of the file form, in the order of the schema; derived from it, so that no second list can go out of step. */
export function allKeys(): readonly Key[] {
  known ??= [...walk(configJsonSchema(), [])]
  return known
}

/** What may stand directly under `path`. */
export function keysUnder(path: Path): string[] {
  const matches = allKeys().filter(
    key =>
      key.path.length > path.length && path.every((part, index) => key.path[index] === part || key.path[index] === '*'),
  )
  return [...new Set(matches.map(key => key.path[path.length] ?? ''))]
}

function* walk(schema: unknown, path: Path): Generator<Key> {
  if (!isTree(schema)) return
  const properties = schema['properties']
  if (isTree(properties)) for (const [name, child] of Object.entries(properties)) yield* walk(child, [...path, name])
  else if (isTree(schema['additionalProperties'])) yield* walkEntries(schema['additionalProperties'], path)
  else
    yield {
      path,
      kind: kindOf(schema['type']),
      default: schema['default'],
      description: typeof schema['description'] === 'string' ? schema['description'] : '',
    }
}

function* walkEntries(schema: Record<string, unknown>, path: Path): Generator<Key> {
  const choices = Array.isArray(schema['anyOf']) ? schema['anyOf'] : [schema]
  for (const choice of choices) if (isTree(choice) && isTree(choice['properties'])) yield* walk(choice, [...path, '*'])
}

function kindOf(type: unknown): Key['kind'] {
  if (type === 'boolean') return 'boolean'
  if (type === 'integer' || type === 'number') return 'number'
  return type === 'array' ? 'list' : 'text'
}
