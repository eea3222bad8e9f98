import { isDigest } from '../oci/digest.ts'
import type { Counters } from './counters.ts'
import type { Row, Sqlite } from './sqlite.ts'
import type { TagKey, TagRecord } from './stores.ts'

export type TagTableOptions = { readonly sqlite: Sqlite; readonly counters: () => Counters; readonly maxTags: number }

/** No more than this is removed at once: an index that comes with far too many shrinks while tags are put. */
const removedAtOnce = 4

/** Which manifest a tag was when upstream was last asked. What upstream was not asked about for longest goes when there are too many. */
export class TagTable {
  readonly #options: TagTableOptions
  readonly #statements: ReturnType<typeof prepare>

  constructor(options: TagTableOptions) {
    this.#options = options
    this.#statements = prepare(options.sqlite)
  }

  /** A row without a digest is a miss, and goes (T-26). */
  get(key: TagKey): TagRecord | undefined {
    const row = this.#statements.get.get(key.upstream, key.repository, key.tag)
    if (row === undefined) return undefined
    const record = tagRecord(row)
    if (record === undefined) this.delete(key)
    return record
  }

  put({ upstream, repository, tag }: TagKey, { digest, mediaType, size, checkedAt }: TagRecord): void {
    const { sqlite, counters, maxTags } = this.#options
    sqlite.transaction(() => {
      this.#statements.put.run(upstream, repository, tag, digest, mediaType, size, checkedAt)
      const over = counters().tags - maxTags
      if (over > 0) this.#statements.removeLeastRecentlyChecked.run(Math.min(over, removedAtOnce))
    })
  }

  delete({ upstream, repository, tag }: TagKey): void {
    this.#statements.delete.run(upstream, repository, tag)
  }

  /** In lexical order. */
  known(upstream: string, repository: string): readonly string[] {
    return this.#statements.known.all(upstream, repository).map(row => String(row.tag))
  }
}

function prepare(sqlite: Sqlite) {
  const one = 'upstream = ? AND repository = ? AND tag = ?'
  return {
    get: sqlite.prepare(`SELECT digest, media_type, size, checked_at FROM tags WHERE ${one}`),
    put: sqlite.prepare(
      `INSERT INTO tags VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (upstream, repository, tag) DO UPDATE SET
         digest = excluded.digest, media_type = excluded.media_type, size = excluded.size, checked_at = excluded.checked_at`,
    ),
    delete: sqlite.prepare(`DELETE FROM tags WHERE ${one}`),
    known: sqlite.prepare('SELECT tag FROM tags WHERE upstream = ? AND repository = ? ORDER BY tag'),
    removeLeastRecentlyChecked: sqlite.prepare(
      `DELETE FROM tags WHERE (upstream, repository, tag) IN
         (SELECT upstream, repository, tag FROM tags ORDER BY checked_at LIMIT ?)`,
    ),
  }
}

function tagRecord({ digest, media_type, size, checked_at }: Row): TagRecord | undefined {
  if (typeof digest !== 'string' || !isDigest(digest)) return undefined
  return { digest, mediaType: String(media_type), size: Number(size), checkedAt: Number(checked_at) }
}
