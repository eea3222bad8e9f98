import { paginationInvalid } from './errors.ts'

/** What a client asks of a list: at most `n` names, those behind `last`. */
export type PageRequest = { readonly n: number | undefined; readonly last: string | undefined }

export type Page = {
  readonly names: readonly string[]
  /** `last` of the next page; absent on the final one. */
  readonly next: string | undefined
}

/**
 * Reads `n` and `last` from a query (P-75). Throws PAGINATION_NUMBER_INVALID (400) when n is not a whole number, 0 or more.
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-tags
 */
export function parsePageRequest(query: URLSearchParams): PageRequest {
  const n = query.get('n') ?? undefined
  if (n !== undefined && !/^\d+$/.test(n)) throw paginationInvalid(n)
  return {
    n: n === undefined ? undefined : Math.min(Number(n), Number.MAX_SAFE_INTEGER),
    last: query.get('last') ?? undefined,
  }
}

/** Lexical order of the bytes, each name once. */
export function sortNames(names: Iterable<string>): string[] {
  return [...new Set(names)].sort(compareBytes)
}

/** The page of `sorted` (see {@link sortNames}) that `request` asks for. `last` itself is not on it, and need not exist. */
export function pageOf(sorted: readonly string[], request: PageRequest): Page {
  const { n, last } = request
  const from = last === undefined ? 0 : firstBehind(sorted, last)
  if (n === undefined) return { names: sorted.slice(from), next: undefined }
  const names = sorted.slice(from, from + n)
  return { names, next: from + n < sorted.length ? names.at(-1) : undefined }
}

// UTF-16 order, which `<` gives, differs from byte order only above U+FFFF; names are ASCII, `last` is anything.
function compareBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function firstBehind(sorted: readonly string[], last: string): number {
  const index = sorted.findIndex(name => compareBytes(name, last) > 0)
  return index < 0 ? sorted.length : index
}
