import { algorithmOf, digestOf, isDigest, type Digest } from '../oci/digest.ts'
import type { Sqlite } from './sqlite.ts'
import type { ManifestRecord } from './stores.ts'
import { Touches } from './touches.ts'

export type ManifestTableOptions = {
  readonly sqlite: Sqlite
  readonly now: () => number
  readonly failed: (operation: string, error: unknown) => void
}

/** Manifests by digest, bytes and all. What is read is verified (T-26). */
export class ManifestTable {
  readonly touches: Touches
  readonly #options: ManifestTableOptions
  readonly #statements: ReturnType<typeof prepare>

  constructor(options: ManifestTableOptions) {
    this.#options = options
    this.#statements = prepare(options.sqlite)
    this.touches = new Touches(
      used => this.#writeTouches(used),
      error => options.failed('manifests.touch', error),
    )
  }

  get(digest: Digest): ManifestRecord | undefined {
    const row = this.#statements.get.get(digest)
    if (row === undefined) return undefined
    const bytes = row.bytes
    if (!(bytes instanceof Uint8Array) || digestOf(bytes, algorithmOf(digest)) !== digest) {
      this.#options.failed(
        'manifests.get',
        new Error(`${digest} does not hash to its name any more: it is fetched again`),
      )
      this.delete([digest])
      return undefined
    }
    this.touches.note(digest, this.#options.now())
    return { digest, mediaType: String(row.media_type), bytes }
  }

  put({ digest, mediaType, bytes }: ManifestRecord): void {
    this.#statements.put.run(digest, bytes.byteLength, this.#options.now(), mediaType, bytes)
  }

  delete(digests: readonly Digest[]): void {
    this.#options.sqlite.transaction(() => {
      for (const digest of digests) this.#statements.delete.run(digest)
    })
  }

  /** Least recently used first. Read no further than needed. */
  *leastRecentlyUsed(): Iterable<{ readonly digest: Digest; readonly size: number }> {
    for (const { digest, size } of this.#statements.leastRecentlyUsed.each())
      if (typeof digest === 'string' && isDigest(digest)) yield { digest, size: Number(size) }
  }

  #writeTouches(used: ReadonlyMap<string, number>): void {
    this.#options.sqlite.transaction(() => {
      for (const [digest, time] of used) this.#statements.touch.run(time, digest)
    })
  }
}

function prepare(sqlite: Sqlite) {
  return {
    get: sqlite.prepare('SELECT media_type, bytes FROM manifests WHERE digest = ?'),
    put: sqlite.prepare(
      `INSERT INTO manifests (digest, size, last_used, media_type, bytes) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (digest) DO UPDATE SET
         size = excluded.size, last_used = excluded.last_used, media_type = excluded.media_type, bytes = excluded.bytes`,
    ),
    touch: sqlite.prepare('UPDATE manifests SET last_used = ? WHERE digest = ?'),
    delete: sqlite.prepare('DELETE FROM manifests WHERE digest = ?'),
    leastRecentlyUsed: sqlite.prepare('SELECT digest, size FROM manifests ORDER BY last_used, id'),
  }
}
