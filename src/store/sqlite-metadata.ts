import { isDigest, type Digest } from '../oci/digest.ts'
import type { Budget } from './budget.ts'
import type { DocumentTable } from './document-table.ts'
import type { ManifestTable } from './manifest-table.ts'
import type { Row, Sqlite } from './sqlite.ts'
import type { Link, ManifestRecord, MetadataStore, StoredDocument, TagKey, TagRecord } from './stores.ts'

export type SqliteMetadataOptions = {
  readonly sqlite: Sqlite
  readonly manifests: ManifestTable
  readonly documents: DocumentTable
  readonly budget: Budget
  readonly failed: (operation: string, error: unknown) => void
}

/**
 * Records in SQLite. A read that fails is reported and is a miss; a write that fails rejects.
 * Tags and links are written at once: losing them would cost requests that upstream counts.
 */
export class SqliteMetadata implements MetadataStore {
  readonly #options: SqliteMetadataOptions
  readonly #statements: ReturnType<typeof prepare>

  constructor(options: SqliteMetadataOptions) {
    this.#options = options
    this.#statements = prepare(options.sqlite)
  }

  async getManifest(digest: Digest): Promise<ManifestRecord | undefined> {
    return this.#read('getManifest', () => this.#options.manifests.get(digest), undefined)
  }

  /** Where storage.maxBytes leaves no room, the manifest is not kept, and that is reported. */
  async putManifest(record: ManifestRecord): Promise<void> {
    const { budget, manifests, failed } = this.#options
    const reservation = await budget.reserve(record.bytes.byteLength)
    if (reservation === undefined) return failed('metadata.putManifest', new Error(`no room for ${record.digest}`))
    try {
      manifests.put(record)
    } finally {
      reservation.release()
    }
  }

  async deleteManifest(digest: Digest): Promise<void> {
    this.#options.manifests.delete([digest])
  }

  async getTag({ upstream, repository, tag }: TagKey): Promise<TagRecord | undefined> {
    return this.#read(
      'getTag',
      () => {
        const row = this.#statements.getTag.get(upstream, repository, tag)
        if (row === undefined) return undefined
        const record = tagRecord(row)
        if (record === undefined) this.#statements.deleteTag.run(upstream, repository, tag)
        return record
      },
      undefined,
    )
  }

  async putTag({ upstream, repository, tag }: TagKey, record: TagRecord): Promise<void> {
    const { digest, mediaType, size, checkedAt } = record
    this.#statements.putTag.run(upstream, repository, tag, digest, mediaType, size, checkedAt)
  }

  async deleteTag({ upstream, repository, tag }: TagKey): Promise<void> {
    this.#statements.deleteTag.run(upstream, repository, tag)
  }

  async knownTags(upstream: string, repository: string): Promise<readonly string[]> {
    return this.#read(
      'knownTags',
      () => this.#statements.knownTags.all(upstream, repository).map(row => String(row.tag)),
      [],
    )
  }

  async getLink(upstream: string, repository: string, digest: Digest): Promise<Link | undefined> {
    return this.#read(
      'getLink',
      () => {
        const link = this.#statements.getLink.get(upstream, repository, digest)?.link
        return link === 'confirmed' || link === 'named' ? link : undefined
      },
      undefined,
    )
  }

  async putLinks(upstream: string, repository: string, digests: readonly Digest[], link: Link): Promise<void> {
    this.#options.sqlite.transaction(() => {
      for (const digest of digests) this.#statements.putLink.run(upstream, repository, digest, link)
    })
  }

  async deleteLink(upstream: string, repository: string, digest: Digest): Promise<void> {
    this.#statements.deleteLink.run(upstream, repository, digest)
  }

  async isConfirmedAt(upstream: string, digest: Digest): Promise<boolean> {
    return this.#read('isConfirmedAt', () => this.#statements.isConfirmedAt.get(upstream, digest) !== undefined, false)
  }

  async getDocument(key: string): Promise<StoredDocument | undefined> {
    return this.#read('getDocument', () => this.#options.documents.get(key), undefined)
  }

  async putDocument(key: string, document: StoredDocument): Promise<void> {
    this.#options.documents.put(key, document)
  }

  /** Writes what is still in memory. The database belongs to whoever opened it. */
  async close(): Promise<void> {
    this.#options.manifests.touches.flush()
  }

  #read<Result>(operation: string, work: () => Result, missing: Result): Result {
    try {
      return work()
    } catch (error) {
      this.#options.failed(`metadata.${operation}`, error)
      return missing
    }
  }
}

function prepare(sqlite: Sqlite) {
  const tag = 'upstream = ? AND repository = ? AND tag = ?'
  const link = 'upstream = ? AND repository = ? AND digest = ?'
  return {
    getTag: sqlite.prepare(`SELECT digest, media_type, size, checked_at FROM tags WHERE ${tag}`),
    putTag: sqlite.prepare('INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?, ?, ?)'),
    deleteTag: sqlite.prepare(`DELETE FROM tags WHERE ${tag}`),
    knownTags: sqlite.prepare('SELECT tag FROM tags WHERE upstream = ? AND repository = ? ORDER BY tag'),
    getLink: sqlite.prepare(`SELECT link FROM links WHERE ${link}`),
    putLink: sqlite.prepare(
      `INSERT INTO links VALUES (?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET link = excluded.link WHERE excluded.link = 'confirmed' AND links.link <> 'confirmed'`,
    ),
    deleteLink: sqlite.prepare(`DELETE FROM links WHERE ${link}`),
    isConfirmedAt: sqlite.prepare(
      "SELECT 1 FROM links WHERE upstream = ? AND digest = ? AND link = 'confirmed' LIMIT 1",
    ),
  }
}

function tagRecord({ digest, media_type, size, checked_at }: Row): TagRecord | undefined {
  if (typeof digest !== 'string' || !isDigest(digest)) return undefined
  return { digest, mediaType: String(media_type), size: Number(size), checkedAt: Number(checked_at) }
}
