import type { Digest } from '../oci/digest.ts'
import type { Sqlite } from './sqlite.ts'
import type { Link } from './stores.ts'

/** Which links are kept while going from the oldest to the newest. */
export type KeepLinks = {
  /** Those of blobs that are stored and were used at this time or later (epoch milliseconds); 0: of all stored blobs. */
  readonly blobsUsedSince: number
  /** The same for manifests. */
  readonly manifestsUsedSince: number
  /** The newest: so many ids, counted from the last one given. */
  readonly newest: number
}

/** How far one look goes. Reading a row costs some microseconds, removing one some tens: half a millisecond in a table of a million. */
const rowsPerLook = 64
const removalsPerLook = 8

/** Which repository holds which digest. The id is the age: a link that upstream confirms, again too, becomes the newest. */
export class LinkTable {
  readonly #sqlite: Sqlite
  readonly #statements: ReturnType<typeof prepare>

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite
    this.#statements = prepare(sqlite)
  }

  get(upstream: string, repository: string, digest: Digest): Link | undefined {
    const link = this.#statements.get.get(upstream, repository, digest)?.link
    return link === 'confirmed' || link === 'named' ? link : undefined
  }

  /** `confirmed` replaces `named`, never the reverse. */
  put(upstream: string, repository: string, digests: readonly Digest[], link: Link): void {
    this.#sqlite.transaction(() => {
      for (const digest of digests) this.#statements.put.run(upstream, repository, digest, link)
    })
  }

  delete(upstream: string, repository: string, digest: Digest): void {
    this.#statements.delete.run(upstream, repository, digest)
  }

  isConfirmedAt(upstream: string, digest: Digest): boolean {
    return this.#statements.isConfirmedAt.get(upstream, digest) !== undefined
  }

  /** When the blob or manifest that was not used for longest was used last; undefined: nothing is stored. */
  oldestUse(): number | undefined {
    const times = [this.#statements.oldestBlob.get()?.last_used, this.#statements.oldestManifest.get()?.last_used]
    const known = times.flatMap(time => (typeof time === 'number' ? [time] : []))
    return known.length === 0 ? undefined : Math.min(...known)
  }

  /** Looks at the next links after the id `after` and removes what is not kept. Gives where it came to; undefined: at the end. */
  removeAfter(after: number, { blobsUsedSince, manifestsUsedSince, newest }: KeepLinks): number | undefined {
    return this.#sqlite.transaction(() => {
      const last = Number(this.#statements.newest.get()?.id ?? 0)
      const rows = this.#statements.look.each(blobsUsedSince, manifestsUsedSince, after, last - newest, rowsPerLook)
      const unused: number[] = []
      let at: number | undefined
      for (const { id, used } of rows) {
        at = Number(id)
        if (used === 0) unused.push(at)
        if (unused.length === removalsPerLook) break
      }
      for (const id of unused) this.#statements.remove.run(id)
      return at
    })
  }
}

function prepare(sqlite: Sqlite) {
  const one = 'upstream = ? AND repository = ? AND digest = ?'
  return {
    get: sqlite.prepare(`SELECT link FROM links WHERE ${one}`),
    put: sqlite.prepare(
      `INSERT INTO links (upstream, repository, digest, link) VALUES (?, ?, ?, ?)
       ON CONFLICT (upstream, repository, digest) DO UPDATE SET
         id = (SELECT max(id) + 1 FROM links), link = excluded.link
       WHERE excluded.link = 'confirmed'`,
    ),
    delete: sqlite.prepare(`DELETE FROM links WHERE ${one}`),
    isConfirmedAt: sqlite.prepare(
      "SELECT 1 FROM links WHERE upstream = ? AND digest = ? AND link = 'confirmed' LIMIT 1",
    ),
    oldestBlob: sqlite.prepare("SELECT last_used FROM blobs WHERE state = 'present' ORDER BY last_used LIMIT 1"),
    oldestManifest: sqlite.prepare('SELECT last_used FROM manifests ORDER BY last_used LIMIT 1'),
    newest: sqlite.prepare('SELECT max(id) AS id FROM links'),
    // A blob in any state counts as stored: one that is being published needs its links in a moment.
    look: sqlite.prepare(
      `SELECT id,
         EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = links.digest AND last_used >= ?)
         OR EXISTS (SELECT 1 FROM manifests WHERE manifests.digest = links.digest AND last_used >= ?) AS used
       FROM links WHERE id > ? AND id <= ? ORDER BY id LIMIT ?`,
    ),
    remove: sqlite.prepare('DELETE FROM links WHERE id = ?'),
  }
}
