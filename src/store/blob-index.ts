import { isDigest, type Digest } from '../oci/digest.ts'
import type { Row, Sqlite } from './sqlite.ts'
import { Touches } from './touches.ts'

/** `publishing` and `deleting` are invisible: they say what a start after a crash has to look at. */
export type BlobState = 'publishing' | 'present' | 'deleting'
export type BlobRow = { readonly digest: Digest; readonly size: number; readonly state: BlobState }

export type BlobIndexOptions = {
  readonly sqlite: Sqlite
  readonly now: () => number
  readonly failed: (error: unknown) => void
}

/** Which blobs are here, how big they are and when they were last used. One row per blob; bytes are elsewhere. */
export class BlobIndex {
  readonly touches: Touches
  readonly #sqlite: Sqlite
  readonly #now: () => number
  readonly #statements: ReturnType<typeof prepare>

  constructor({ sqlite, now, failed }: BlobIndexOptions) {
    this.#sqlite = sqlite
    this.#now = now
    this.#statements = prepare(sqlite)
    this.touches = new Touches(used => this.#writeTouches(used), failed)
  }

  /** The row, whatever its state. */
  find(digest: Digest): BlobRow | undefined {
    return blobRow(this.#statements.find.get(digest))
  }

  /** The size of a visible blob. */
  sizeOf(digest: Digest): number | undefined {
    const row = this.find(digest)
    return row?.state === 'present' ? row.size : undefined
  }

  put(digest: Digest, size: number, state: BlobState): void {
    this.#statements.put.run(digest, size, this.#now(), state)
  }

  touch(digest: Digest): void {
    this.touches.note(digest, this.#now())
  }

  markDeleting(digests: readonly Digest[]): void {
    this.#sqlite.transaction(() => {
      for (const digest of digests) this.#statements.markDeleting.run(digest)
    })
  }

  remove(digests: readonly Digest[]): void {
    this.#sqlite.transaction(() => {
      for (const digest of digests) this.#statements.remove.run(digest)
    })
  }

  /** Visible blobs, least recently used first. Read no further than needed. */
  *leastRecentlyUsed(): Iterable<BlobRow> {
    for (const row of this.#statements.leastRecentlyUsed.each()) {
      const blob = blobRow(row)
      if (blob !== undefined) yield blob
    }
  }

  /** Visible blobs in the order of digests: those after `after`, at most `limit`. */
  page(after: Digest | undefined, limit: number): readonly BlobRow[] {
    return this.#statements.page.all(after ?? '', limit).flatMap(row => blobRow(row) ?? [])
  }

  /** What was being published or deleted when the last process ended: a handful of rows. */
  unsettled(): readonly BlobRow[] {
    return this.#statements.unsettled.all().flatMap(row => blobRow(row) ?? [])
  }

  #writeTouches(used: ReadonlyMap<string, number>): void {
    this.#sqlite.transaction(() => {
      for (const [digest, time] of used) this.#statements.touch.run(time, digest)
    })
  }
}

function prepare(sqlite: Sqlite) {
  return {
    find: sqlite.prepare('SELECT digest, size, state FROM blobs WHERE digest = ?'),
    put: sqlite.prepare(
      `INSERT INTO blobs (digest, size, last_used, state) VALUES (?, ?, ?, ?)
       ON CONFLICT (digest) DO UPDATE SET size = excluded.size, last_used = excluded.last_used, state = excluded.state`,
    ),
    touch: sqlite.prepare('UPDATE blobs SET last_used = ? WHERE digest = ?'),
    markDeleting: sqlite.prepare("UPDATE blobs SET state = 'deleting' WHERE digest = ?"),
    remove: sqlite.prepare('DELETE FROM blobs WHERE digest = ?'),
    leastRecentlyUsed: sqlite.prepare(
      "SELECT digest, size, state FROM blobs WHERE state = 'present' ORDER BY last_used, id",
    ),
    page: sqlite.prepare(
      "SELECT digest, size, state FROM blobs WHERE state = 'present' AND digest > ? ORDER BY digest LIMIT ?",
    ),
    unsettled: sqlite.prepare("SELECT digest, size, state FROM blobs WHERE state <> 'present'"),
  }
}

function blobRow(row: Row | undefined): BlobRow | undefined {
  // Whatever a row says becomes a path only as a digest that was parsed (T-25).
  if (row === undefined || typeof row.digest !== 'string' || !isDigest(row.digest)) return undefined
  return { digest: row.digest, size: Number(row.size), state: row.state as BlobState }
}
