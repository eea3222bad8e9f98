import { setImmediate as turn } from 'node:timers/promises'
import type { Digest } from '../oci/digest.ts'
import type { Budget } from './budget.ts'
import type { DocumentTable } from './document-table.ts'
import type { LinkTable } from './link-table.ts'
import type { ManifestTable } from './manifest-table.ts'
import type { Pruning } from './pruning.ts'
import type { Link, ManifestRecord, MetadataStore, StoredDocument, TagKey, TagRecord } from './stores.ts'
import type { TagTable } from './tag-table.ts'

export type SqliteMetadataOptions = {
  readonly manifests: ManifestTable
  readonly tags: TagTable
  readonly links: LinkTable
  readonly documents: DocumentTable
  readonly budget: Budget
  readonly pruning: Pruning
  readonly failed: (operation: string, error: unknown) => void
}

/** Some milliseconds. Images have a hundred layers at most. */
const linksAtOnce = 256

/**
 * Records in SQLite. A read that fails is reported and is a miss; a write that fails rejects.
 * Tags and links are written at once: losing them would cost requests that upstream counts.
 */
export class SqliteMetadata implements MetadataStore {
  readonly #options: SqliteMetadataOptions

  constructor(options: SqliteMetadataOptions) {
    this.#options = options
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

  async getTag(key: TagKey): Promise<TagRecord | undefined> {
    return this.#read('getTag', () => this.#options.tags.get(key), undefined)
  }

  async putTag(key: TagKey, record: TagRecord): Promise<void> {
    this.#options.tags.put(key, record)
  }

  async deleteTag(key: TagKey): Promise<void> {
    this.#options.tags.delete(key)
  }

  async knownTags(upstream: string, repository: string): Promise<readonly string[]> {
    return this.#read('knownTags', () => this.#options.tags.known(upstream, repository), [])
  }

  async getLink(upstream: string, repository: string, digest: Digest): Promise<Link | undefined> {
    return this.#read('getLink', () => this.#options.links.get(upstream, repository, digest), undefined)
  }

  /**
   * While there are far too many links, new ones are not kept: each may cost a request upstream later. Some at a time, because everybody else waits
   * meanwhile, and a manifest may name thousands (T-42).
   */
  async putLinks(upstream: string, repository: string, digests: readonly Digest[], link: Link): Promise<void> {
    const { links, pruning } = this.#options
    for (let at = 0; at < digests.length; at += linksAtOnce) {
      if (at > 0) await turn()
      if (!pruning.hasRoom()) return
      links.put(upstream, repository, digests.slice(at, at + linksAtOnce), link)
      pruning.check()
    }
  }

  async deleteLink(upstream: string, repository: string, digest: Digest): Promise<void> {
    this.#options.links.delete(upstream, repository, digest)
  }

  async isConfirmedAt(upstream: string, digest: Digest): Promise<boolean> {
    return this.#read('isConfirmedAt', () => this.#options.links.isConfirmedAt(upstream, digest), false)
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
