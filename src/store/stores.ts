import type { Readable } from 'node:stream'
import type { Digest } from '../oci/digest.ts'

/**
 * Verified bytes by digest. Whatever `open` finds is whole: publishing happens only after size and digest were checked.
 * Everything may be called concurrently; all of it is safe to repeat.
 */
export interface BlobStore {
  /** Absent means: not here, fetch it. The caller closes what it opened; an open blob stays readable after eviction. Counts as a use. */
  open(digest: Digest): Promise<OpenBlob | undefined>
  /** Size in bytes, or undefined. Does not count as a use. */
  size(digest: Digest): Promise<number | undefined>
  /** Takes over a verified, complete spool file: fsync, rename, index. Idempotent: a blob that is already there stays. */
  publish(digest: Digest, size: number, spool: SpoolFile): Promise<void>
  delete(digest: Digest): Promise<void>
}

/** Random access to the bytes of one file. `read` gives 1 … length bytes (a short read is not the end), 0 at the end. */
export interface RandomAccess {
  /** Reads into `buffer` from `position`; resolves with how many bytes were read. */
  read(buffer: Uint8Array, position: number, length: number): Promise<number>
  close(): Promise<void>
}

export interface OpenBlob extends RandomAccess {
  readonly size: number
}

/** Where bytes wait until they are verified. Names are random, nothing here survives a start. */
export interface Spool {
  /**
   * Asks for room. `undefined`: that many bytes cannot fit; stream without caching. The least recently used blobs go as the bytes come, not on the word
   * of who announces them (T-47). Unknown size: room is found as the bytes come.
   */
  create(expectedBytes: number | undefined, options?: SpoolOptions): Promise<SpoolFile | undefined>
}

/** `vouched` (default true): not only who sends the bytes says how many they are, so the room for all of them is kept from the start. */
export type SpoolOptions = { readonly vouched?: boolean }

export interface SpoolFile extends RandomAccess {
  /** Where it lies; `BlobStore.publish` renames it. */
  readonly path: string
  /** Appends all of `chunks` at `position` in one go. Rejects with the system's error (ENOSPC, EIO, …) or when the budget is used up. */
  write(chunks: readonly Uint8Array[], position: number): Promise<void>
  /** Removes the file and gives the room back; reading goes on for who has it open until `close`. Safe after publish (does nothing then). */
  discard(): Promise<void>
}

/** Small records. Reads may miss at any time; a missing record costs a request upstream, never a failed pull. */
export interface MetadataStore {
  getManifest(digest: Digest): Promise<ManifestRecord | undefined>
  putManifest(record: ManifestRecord): Promise<void>
  deleteManifest(digest: Digest): Promise<void>

  getTag(key: TagKey): Promise<TagRecord | undefined>
  putTag(key: TagKey, record: TagRecord): Promise<void>
  deleteTag(key: TagKey): Promise<void>
  /** Tags known here, in lexical order: the answer of last resort for tags/list (P-78). */
  knownTags(upstream: string, repository: string): Promise<readonly string[]>

  /** How this repository is known to hold the digest: named by one of its manifests, or confirmed by upstream (T-11). */
  getLink(upstream: string, repository: string, digest: Digest): Promise<Link | undefined>
  /** Adds links; `confirmed` replaces `named`, never the reverse. */
  putLinks(upstream: string, repository: string, digests: readonly Digest[], link: Link): Promise<void>
  deleteLink(upstream: string, repository: string, digest: Digest): Promise<void>
  /** True when any repository of this upstream has a confirmed link to the digest. */
  isConfirmedAt(upstream: string, digest: Digest): Promise<boolean>

  /** Answers of list endpoints, kept for when upstream cannot answer. Key is opaque. */
  getDocument(key: string): Promise<StoredDocument | undefined>
  putDocument(key: string, document: StoredDocument): Promise<void>
  close(): Promise<void>
}

export type Link = 'named' | 'confirmed'
export type ManifestRecord = { readonly digest: Digest; readonly mediaType: string; readonly bytes: Uint8Array }
export type TagKey = { readonly upstream: string; readonly repository: string; readonly tag: string }
/** `checkedAt`: epoch milliseconds when upstream last confirmed it. */
export type TagRecord = {
  readonly digest: Digest
  readonly mediaType: string
  readonly size: number
  readonly checkedAt: number
}
export type StoredDocument = {
  readonly bytes: Uint8Array
  readonly mediaType: string
  readonly storedAt: number
  /** Small string values beside the bytes, e.g. the next page's query. */
  readonly attributes: Readonly<Record<string, string>>
}

/** Figures for /status and /metrics; reading them costs nothing that grows with the number of blobs. */
export type StorageUsage = {
  readonly blobs: number
  readonly blobBytes: number
  readonly manifests: number
  readonly manifestBytes: number
  readonly reservedBytes: number
  readonly maxBytes: number
}

/**
 * Verified blobs that all replicas share: a bucket. It is slower than the disk and larger, so it is asked when the hot tier has nothing, and filled in the
 * background from what the hot tier published. Every call may fail without a pull failing: a blob that cannot be had here comes from upstream.
 */
export interface SharedBlobs {
  /** Size in bytes, undefined when it is not there. Rejects when the store cannot tell. */
  size(digest: Digest, signal?: AbortSignal): Promise<number | undefined>
  /**
   * Opens the bytes from `offset` (to `end`, inclusive). Undefined: it is not there. The caller reads `body` to its end or destroys it; it errors
   * when the connection breaks or stays idle. Bytes are not verified here.
   */
  open(
    digest: Digest,
    options: { readonly offset: number; readonly end?: number; readonly signal?: AbortSignal },
  ): Promise<SharedBlob | undefined>
  /** Asks for a blob that was just published in the hot tier to be uploaded, sooner or later. Never waits, never throws. */
  enqueue(digest: Digest, size: number): void
  /** Removes it for everybody. Safe to repeat. */
  delete(digest: Digest): Promise<void>
  /** Uploads that wait or run, and how many bytes they are. */
  pending(): { readonly uploads: number; readonly bytes: number }
  /** Stops taking on work; what waits is kept for the next start. Safe to repeat. */
  close(): Promise<void>
}

/** Where clients can read a blob by themselves. */
export interface BlobLinks {
  /**
   * A URL for a blob that the shared store has whole at this moment. It opens to whoever holds it for as long as it is valid, so it is a secret until
   * then. Undefined: it is not there, or only on its way, or nobody can be sent there now. Rejects when the store cannot tell.
   */
  link(digest: Digest): Promise<BlobLink | undefined>
}

export type BlobLink = { readonly url: string; readonly size: number }

export type SharedBlob = { readonly offset: number; readonly size: number; readonly body: Readable }
