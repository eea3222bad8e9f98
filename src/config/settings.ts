/** Where a value came from; absent: a default. */
export type Origin =
  | { readonly kind: 'file'; readonly file: string; readonly line: number; readonly column: number }
  | { readonly kind: 'environment'; readonly name: string }
  | { readonly kind: 'flag'; readonly name: string }

export type Path = readonly string[]
export type Tree = { [key: string]: unknown }

/** `layover.yaml:8:13`, `LAYOVER_LISTEN`, `--listen` */
export function describeOrigin(origin: Origin): string {
  return origin.kind === 'file' ? `${origin.file}:${origin.line}:${origin.column}` : origin.name
}

/** `upstreams.quay.io.mirrors[0]` */
export function describePath(path: Path): string {
  return path
    .map((part, index) => (/^\d+$/.test(part) && index > 1 ? `[${part}]` : `${index === 0 ? '' : '.'}${part}`))
    .join('')
}

/**
 * The settings in file form, written layer after layer (built-in, file, environment, flags), each value with its origin.
 * What is set later replaces what was there. Objects have no prototype, so that no key of a file is special (T-53).
 */
export class Settings {
  readonly tree: Tree = emptyTree()
  readonly #origins = new Map<string, Origin>()
  readonly #keyOrigins = new Map<string, Origin>()

  set(path: Path, value: unknown, origin?: Origin): void {
    const last = path.at(-1)
    if (last === undefined) return
    const parent = this.#open(path.slice(0, -1))
    parent[last] = value
    if (origin === undefined) this.#origins.delete(key(path))
    else this.#origins.set(key(path), origin)
  }

  /** Sets a list; each of its values keeps its own origin, for complaints. */
  setList(path: Path, items: readonly { value: unknown; origin: Origin }[], origin: Origin): void {
    this.set(
      path,
      items.map(item => item.value),
      origin,
    )
    for (const [index, item] of items.entries()) this.#origins.set(key([...path, String(index)]), item.origin)
  }

  /** Makes sure that there is a mapping at `path`. */
  open(path: Path, origin?: Origin): void {
    this.#open(path)
    if (origin !== undefined) this.#origins.set(key(path), origin)
  }

  /** Notes where the key itself stands, for complaints about keys. */
  setKeyOrigin(path: Path, origin: Origin): void {
    this.#keyOrigins.set(key(path), origin)
  }

  get(path: Path): unknown {
    let value: unknown = this.tree
    for (const part of path) {
      if (!isTree(value)) return undefined
      value = value[part]
    }
    return value
  }

  delete(path: Path): void {
    const parent = this.get(path.slice(0, -1))
    const last = path.at(-1)
    if (isTree(parent) && last !== undefined) delete parent[last]
    this.#origins.delete(key(path))
  }

  /** Where exactly this value was set; undefined: it is a default. */
  originOf(path: Path): Origin | undefined {
    return this.#origins.get(key(path))
  }

  /** Where to point at for a problem with this value: itself, or the nearest mapping or key around it that somebody wrote. */
  nearestOrigin(path: Path): Origin | undefined {
    for (let length = path.length; length > 0; length--) {
      const origin = this.#origins.get(key(path.slice(0, length))) ?? this.#keyOrigins.get(key(path.slice(0, length)))
      if (origin !== undefined) return origin
    }
    return undefined
  }

  keyOrigin(path: Path): Origin | undefined {
    return this.#keyOrigins.get(key(path)) ?? this.nearestOrigin(path)
  }

  #open(path: Path): Tree {
    let tree = this.tree
    for (const part of path) {
      const next = tree[part]
      if (isTree(next)) tree = next
      else {
        const made = emptyTree()
        tree[part] = made
        tree = made
      }
    }
    return tree
  }
}

export function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const emptyTree = (): Tree => Object.create(null) as Tree
const key = (path: Path): string => path.join('\n')
