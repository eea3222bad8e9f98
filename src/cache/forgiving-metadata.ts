import type { Observer } from '../log/observer.ts'
import type { MetadataStore } from '../store/stores.ts'

/**
 * Records as the cache wants them: a store that fails has nothing, and forgets what it is told.
 * A failed read is a miss, a failed write costs a request upstream later; both are reported, neither fails a pull (F-59, F-62).
 */
export function forgivingMetadata(metadata: MetadataStore, observer: Observer): MetadataStore {
  const attempt = async <T>(operation: string, work: () => Promise<T>, otherwise: T): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      observer.storeFailed(operation, error)
      return otherwise
    }
  }
  return {
    getManifest: digest => attempt('getManifest', () => metadata.getManifest(digest), undefined),
    putManifest: record => attempt('putManifest', () => metadata.putManifest(record), undefined),
    deleteManifest: digest => attempt('deleteManifest', () => metadata.deleteManifest(digest), undefined),
    getTag: key => attempt('getTag', () => metadata.getTag(key), undefined),
    putTag: (key, record) => attempt('putTag', () => metadata.putTag(key, record), undefined),
    deleteTag: key => attempt('deleteTag', () => metadata.deleteTag(key), undefined),
    knownTags: (upstream, repository) => attempt('knownTags', () => metadata.knownTags(upstream, repository), []),
    getLink: (upstream, repository, digest) =>
      attempt('getLink', () => metadata.getLink(upstream, repository, digest), undefined),
    putLinks: (upstream, repository, digests, link) =>
      attempt('putLinks', () => metadata.putLinks(upstream, repository, digests, link), undefined),
    deleteLink: (upstream, repository, digest) =>
      attempt('deleteLink', () => metadata.deleteLink(upstream, repository, digest), undefined),
    isConfirmedAt: (upstream, digest) =>
      attempt('isConfirmedAt', () => metadata.isConfirmedAt(upstream, digest), false),
    getDocument: key => attempt('getDocument', () => metadata.getDocument(key), undefined),
    putDocument: (key, document) => attempt('putDocument', () => metadata.putDocument(key, document), undefined),
    close: () => metadata.close(),
  }
}
