import type { Digest } from '../oci/digest.ts'
import type { ManifestRecord } from './stores.ts'

/**
 * What is known here, for people who look at it. Reading changes nothing: nothing counts as used, nothing is repaired, nobody is asked beyond the store of
 * records. Every call does a bounded amount of work, whatever is cached: a list may be cut, and says so.
 */
export interface Catalog {
  /** Repositories of an upstream of which something is known, in lexical order. */
  repositories(upstream: string, page: PageRequest): Promise<Page<string>>
  /** Tags of a repository, in lexical order. */
  tags(upstream: string, repository: string, page: PageRequest): Promise<Page<TagEntry>>
  /** Manifests that the repository is known to hold and that are here, by digest. */
  manifests(upstream: string, repository: string, page: PageRequest): Promise<Page<ManifestEntry>>
  /** What the tag named when upstream was last asked. */
  tag(upstream: string, repository: string, tag: string): Promise<TagEntry | undefined>
  /** The manifest, when the repository is known to hold it. */
  manifest(upstream: string, repository: string, digest: Digest): Promise<ManifestRecord | undefined>
  /**
   * Which other repositories of the upstream are known to hold each digest: at most `limit` of each. `complete` is false when not every repository
   * could be looked at.
   */
  holders(
    upstream: string,
    digests: readonly Digest[],
    options: { readonly except: string; readonly limit: number },
  ): Promise<{ readonly repositories: ReadonlyMap<Digest, readonly string[]>; readonly complete: boolean }>
}

/** What rests on the disk of this process. */
export interface BlobCatalog {
  /** Size and last use of those that are here. */
  blobs(digests: readonly Digest[]): ReadonlyMap<Digest, BlobEntry>
}

/** `after`: the `next` of the page before; undefined: the first page. */
export type PageRequest = { readonly after?: string | undefined; readonly limit: number }

export type Page<Entry> = {
  readonly entries: readonly Entry[]
  /** Where the next page begins; undefined: this was the last one. A page may be short, or empty, and have a next one. */
  readonly next: string | undefined
  /** True: there was more to look at than is looked at, so that something may be missing. */
  readonly cut?: boolean
}

export type TagEntry = {
  readonly tag: string
  readonly digest: Digest
  readonly mediaType: string
  /** Bytes of the manifest. */
  readonly size: number
  /** Epoch milliseconds when upstream last confirmed it. */
  readonly checkedAt: number
}

export type ManifestEntry = {
  readonly digest: Digest
  readonly mediaType: string
  /** Bytes of the manifest itself. */
  readonly size: number
  /** Epoch milliseconds; undefined where the store does not know. */
  readonly lastUsed: number | undefined
}

export type BlobEntry = { readonly size: number; readonly lastUsed: number }
