import type { Digest } from '../../src/oci/digest.ts'
import type { Link, ManifestRecord, MetadataStore, StoredDocument, TagKey, TagRecord } from '../../src/store/stores.ts'

/** Records in Maps, open to the test: it may break them, lose them, or make every call fail. */
export class MemoryMetadata implements MetadataStore {
  readonly manifests = new Map<Digest, ManifestRecord>()
  readonly tags = new Map<string, TagRecord>()
  readonly links = new Map<string, Link>()
  readonly documents = new Map<string, StoredDocument>()
  /** Writes in the order in which they came: `putManifest`, `putLinks confirmed`, `putTag`, … */
  readonly writes: string[] = []
  /** Set: every call rejects with it. */
  failure: Error | undefined

  async getManifest(digest: Digest) {
    this.#check()
    return this.manifests.get(digest)
  }
  async putManifest(record: ManifestRecord) {
    this.#write('putManifest')
    this.manifests.set(record.digest, record)
  }
  async deleteManifest(digest: Digest) {
    this.#write('deleteManifest')
    this.manifests.delete(digest)
  }
  async getTag(key: TagKey) {
    this.#check()
    return this.tags.get(tagKey(key))
  }
  async putTag(key: TagKey, record: TagRecord) {
    this.#write('putTag')
    this.tags.set(tagKey(key), record)
  }
  async deleteTag(key: TagKey) {
    this.#write('deleteTag')
    this.tags.delete(tagKey(key))
  }
  async knownTags(upstream: string, repository: string) {
    this.#check()
    const prefix = tagKey({ upstream, repository, tag: '' })
    return [...this.tags.keys()]
      .filter(key => key.startsWith(prefix))
      .map(key => key.slice(prefix.length))
      .sort()
  }
  async getLink(upstream: string, repository: string, digest: Digest) {
    this.#check()
    return this.links.get(linkKey(upstream, repository, digest))
  }
  async putLinks(upstream: string, repository: string, digests: readonly Digest[], link: Link) {
    this.#write(`putLinks ${link}`)
    for (const digest of digests) {
      const key = linkKey(upstream, repository, digest)
      if (this.links.get(key) !== 'confirmed') this.links.set(key, link)
    }
  }
  async deleteLink(upstream: string, repository: string, digest: Digest) {
    this.#write('deleteLink')
    this.links.delete(linkKey(upstream, repository, digest))
  }
  async isConfirmedAt(upstream: string, digest: Digest) {
    this.#check()
    return [...this.links].some(
      ([key, link]) => link === 'confirmed' && key.startsWith(`${upstream} `) && key.endsWith(` ${digest}`),
    )
  }
  async getDocument(key: string) {
    this.#check()
    return this.documents.get(key)
  }
  async putDocument(key: string, document: StoredDocument) {
    this.#write('putDocument')
    this.documents.set(key, document)
  }
  async close() {}

  #write(operation: string): void {
    this.#check()
    this.writes.push(operation)
  }

  #check(): void {
    if (this.failure) throw this.failure
  }
}

const tagKey = ({ upstream, repository, tag }: TagKey): string => `${upstream} ${repository} ${tag}`
export const linkKey = (upstream: string, repository: string, digest: Digest): string =>
  `${upstream} ${repository} ${digest}`
