import { LRUCache } from 'lru-cache'
import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts'
import { ManifestRefused, type ParsedManifest, readManifest } from '../oci/manifest.ts'
import { isManifestMediaType } from '../oci/media-types.ts'
import type { Observer } from '../log/observer.ts'
import type { ServedSource } from '../log/outcome.ts'
import type { ManifestRecord, MetadataStore } from '../store/stores.ts'

/** A manifest whose bytes hash to its digest, read once. */
export type CachedManifest = {
  readonly record: ManifestRecord
  readonly parsed: ParsedManifest
  /** For whoever serves it: prepared headers, made once per manifest in memory. */
  readonly slot: { headers?: unknown }
  /** Where its bytes were found, this time. */
  readonly source: ServedSource
}

/**
 * Manifests by digest: memory in front of the store. Bytes from outside the process are verified on every read,
 * so whoever can write to the store cannot make this cache serve something else (T-26). Nothing here expires (P-48).
 */
export interface ManifestRecords {
  /** From memory alone. */
  peek(digest: Digest): CachedManifest | undefined
  find(digest: Digest): Promise<CachedManifest | undefined>
  /** Takes a verified manifest into memory and the store; gives the one that counts from now on. */
  keep(record: ManifestRecord, parsed: ParsedManifest): Promise<CachedManifest>
  /**
   * A repository calls the manifest `mediaType`. Where others call the same bytes by another, because they do not say it themselves, it is
   * from then on what its structure says: no repository decides what another's manifest is (T-17, T-22).
   */
  agree(cached: CachedManifest, mediaType: string | undefined): Promise<CachedManifest>
}

/** What an entry costs: its bytes, the parsed form, which grows with them, keys and headers. */
const costOf = (cached: CachedManifest): number => cached.record.bytes.length * 3 + 2048

export function createManifestRecords(deps: {
  readonly metadata: MetadataStore
  readonly observer: Observer
  readonly memoryBytes: number
  /** Where the store has its bytes. */
  readonly storeSource: ServedSource
}): ManifestRecords {
  const memory = new LRUCache<Digest, CachedManifest>({
    maxSize: deps.memoryBytes,
    sizeCalculation: costOf,
  })

  const remember = (record: ManifestRecord, parsed: ParsedManifest): CachedManifest => {
    const cached: CachedManifest = {
      record: { ...record, bytes: compact(record.bytes) },
      parsed,
      slot: {},
      source: 'memory',
    }
    memory.set(record.digest, cached)
    return cached
  }

  const store = async (record: ManifestRecord, parsed: ParsedManifest): Promise<CachedManifest> => {
    const cached = remember(record, parsed)
    await deps.metadata.putManifest(cached.record)
    return cached
  }

  const agree = async (cached: CachedManifest, mediaType: string | undefined): Promise<CachedManifest> => {
    const { record } = cached
    if (mediaType === undefined || mediaType === record.mediaType || !isManifestMediaType(mediaType)) return cached
    const neutral = typeOfStructure(record)
    if (neutral === undefined || neutral === record.mediaType) return cached
    return store({ ...record, mediaType: neutral }, { ...cached.parsed, mediaType: neutral })
  }

  return {
    peek: digest => memory.get(digest),
    async find(digest) {
      const known = memory.get(digest)
      if (known) return known
      const record = await deps.metadata.getManifest(digest)
      if (!record) return undefined
      try {
        return { ...remember({ ...record, digest }, verified(record, digest)), source: deps.storeSource }
      } catch (error) {
        deps.observer.storeFailed('getManifest', error)
        await deps.metadata.deleteManifest(digest)
        return undefined
      }
    },
    async keep(record, parsed) {
      const known = memory.get(record.digest)
      const kept = await (known ? agree(known, record.mediaType) : store(record, parsed))
      return { ...kept, source: 'fill' }
    },
    agree,
  }
}

/** Throws when the record is not what its key says. */
function verified(record: ManifestRecord, digest: Digest): ParsedManifest {
  const actual = digestOf(record.bytes, algorithmOf(digest))
  if (actual !== digest) throw new Error(`the stored manifest ${digest} has the bytes of ${actual}`)
  return readManifest(record.bytes, record.mediaType)
}

/** The type that the bytes have by themselves: declared, or by their structure. Undefined where only a header tells. */
function typeOfStructure({ bytes }: ManifestRecord): string | undefined {
  try {
    return readManifest(bytes, undefined).mediaType
  } catch (error) {
    if (error instanceof ManifestRefused) return undefined
    throw error
  }
}

/** A small view of a large buffer would keep all of it in memory. */
function compact(bytes: Uint8Array): Uint8Array {
  return bytes.buffer.byteLength > bytes.byteLength + 1024 ? new Uint8Array(bytes) : bytes
}
