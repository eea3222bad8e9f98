import type { Counters } from './counters.ts'
import type { Sqlite } from './sqlite.ts'
import type { StoredDocument } from './stores.ts'

export type DocumentTableOptions = {
  readonly sqlite: Sqlite
  readonly counters: () => Counters
  readonly limits?: DocumentLimits
}
export type DocumentLimits = { readonly documents: number; readonly bytes: number }

/** Lists are small and only used when upstream cannot answer: this much is enough for any site, and bounded for all. */
const defaultLimits: DocumentLimits = { documents: 1000, bytes: 64 * 1024 * 1024 }

/** Answers of list endpoints; the oldest go when there are too many. */
export class DocumentTable {
  readonly #sqlite: Sqlite
  readonly #counters: () => Counters
  readonly #limits: DocumentLimits
  readonly #statements: ReturnType<typeof prepare>

  constructor({ sqlite, counters, limits = defaultLimits }: DocumentTableOptions) {
    this.#sqlite = sqlite
    this.#counters = counters
    this.#limits = limits
    this.#statements = prepare(sqlite)
  }

  get(key: string): StoredDocument | undefined {
    const row = this.#statements.get.get(key)
    if (row === undefined) return undefined
    const attributes = parseAttributes(row.attributes)
    if (attributes === undefined || !(row.bytes instanceof Uint8Array)) {
      this.#statements.delete.run(key)
      return undefined
    }
    return { bytes: row.bytes, mediaType: String(row.media_type), storedAt: Number(row.stored_at), attributes }
  }

  /** A document that is over the limit alone is not kept. */
  put(key: string, { bytes, mediaType, storedAt, attributes }: StoredDocument): void {
    if (bytes.byteLength > this.#limits.bytes) return
    this.#sqlite.transaction(() => {
      this.#statements.put.run(key, bytes.byteLength, storedAt, mediaType, JSON.stringify(attributes), bytes)
      while (this.#isOver() && this.#statements.deleteOldest.run(key) > 0);
    })
  }

  #isOver(): boolean {
    const { documents, documentBytes } = this.#counters()
    return documents > this.#limits.documents || documentBytes > this.#limits.bytes
  }
}

function prepare(sqlite: Sqlite) {
  return {
    get: sqlite.prepare('SELECT media_type, stored_at, attributes, bytes FROM documents WHERE key = ?'),
    put: sqlite.prepare(
      `INSERT INTO documents (key, size, stored_at, media_type, attributes, bytes) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (key) DO UPDATE SET
         size = excluded.size, stored_at = excluded.stored_at, media_type = excluded.media_type,
         attributes = excluded.attributes, bytes = excluded.bytes`,
    ),
    delete: sqlite.prepare('DELETE FROM documents WHERE key = ?'),
    // Never the one that was put just now, whatever time it claims.
    deleteOldest: sqlite.prepare(
      'DELETE FROM documents WHERE id = (SELECT id FROM documents WHERE key <> ? ORDER BY stored_at, id LIMIT 1)',
    ),
  }
}

function parseAttributes(text: unknown): Readonly<Record<string, string>> | undefined {
  try {
    const value: unknown = JSON.parse(String(text))
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
    const entries = Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string')
    return Object.fromEntries(entries)
  } catch {
    return undefined
  }
}
