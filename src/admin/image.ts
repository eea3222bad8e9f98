import type { Digest } from '../oci/digest.ts'
import { type Descriptor, describedBlobs, type ParsedManifest, readManifest } from '../oci/manifest.ts'
import type { BlobCatalog, BlobEntry, Catalog } from '../store/catalog.ts'
import type { ManifestRecord } from '../store/stores.ts'

export type ImagePlace = { readonly upstream: string; readonly repository: string; readonly digest: Digest }

/** One manifest and what it is made of, as far as that is known here. */
export type ImageDescription = ImagePlace & {
  readonly mediaType: string
  /** Bytes of the manifest itself. */
  readonly size: number
  /** Undefined: it is too large to be looked into, or not to be read. */
  readonly parsed: ParsedManifest | undefined
  /** Children of an index, in its order; those beyond the limit are left out. */
  readonly children: readonly ChildDescription[]
  readonly childrenLeftOut: number
  /** Configuration and layers of an image; those beyond the limit are left out. */
  readonly blobs: readonly BlobDescription[]
  readonly blobsLeftOut: number
  /** False: there are more repositories than were looked at for `alsoIn`. */
  readonly sharingComplete: boolean
}

export type ChildDescription = {
  readonly descriptor: Descriptor
  /** Undefined: that manifest is not here. */
  readonly image: { readonly layers: number; readonly bytes: number; readonly bytesHere: number } | undefined
}

export type BlobDescription = {
  readonly descriptor: Descriptor
  readonly role: 'config' | 'layer'
  /** Undefined: not on this disk. */
  readonly here: BlobEntry | undefined
  /** Other repositories of the same upstream that are known to hold it. */
  readonly alsoIn: readonly string[]
}

export type ImageParts = { readonly catalog: Catalog; readonly blobs: BlobCatalog }

/** Reading JSON takes time in which nobody is served (T-42). Real manifests have some kilobytes. */
const maxManifestBytes = 512 * 1024
const maxChildBytes = 64 * 1024
const maxChildren = 64
const maxBlobs = 128
const maxHolders = 8

/** Describes a manifest of a repository; undefined when it is not here. */
export async function describeImage(parts: ImageParts, place: ImagePlace): Promise<ImageDescription | undefined> {
  const record = await parts.catalog.manifest(place.upstream, place.repository, place.digest)
  if (record === undefined) return undefined
  const parsed = parse(record, maxManifestBytes)
  const children = parsed?.manifests.slice(0, maxChildren) ?? []
  const described = rolesOf(parsed)
  const shown = described.slice(0, maxBlobs)
  const { repositories, complete } = await parts.catalog.holders(
    place.upstream,
    shown.map(({ descriptor }) => descriptor.digest),
    { except: place.repository, limit: maxHolders },
  )
  const here = parts.blobs.blobs(shown.map(({ descriptor }) => descriptor.digest))
  return {
    ...place,
    mediaType: record.mediaType,
    size: record.bytes.byteLength,
    parsed,
    children: await describeChildren(parts, place, children),
    childrenLeftOut: (parsed?.manifests.length ?? 0) - children.length,
    blobs: shown.map(({ descriptor, role }) => ({
      descriptor,
      role,
      here: here.get(descriptor.digest),
      alsoIn: repositories.get(descriptor.digest) ?? [],
    })),
    blobsLeftOut: described.length - shown.length,
    sharingComplete: complete,
  }
}

async function describeChildren(
  { catalog, blobs }: ImageParts,
  { upstream, repository }: ImagePlace,
  children: readonly Descriptor[],
): Promise<readonly ChildDescription[]> {
  const described: ChildDescription[] = []
  for (const descriptor of children) {
    const record = await catalog.manifest(upstream, repository, descriptor.digest)
    const parsed = record && parse(record, maxChildBytes)
    described.push({ descriptor, image: parsed && sumUp(parsed, blobs) })
  }
  return described
}

function sumUp(parsed: ParsedManifest, blobs: BlobCatalog): ChildDescription['image'] {
  const described = describedBlobs(parsed)
  const here = blobs.blobs(described.slice(0, maxBlobs).map(({ digest }) => digest))
  return {
    layers: parsed.layers.length,
    bytes: sum(described.map(({ size }) => size)),
    bytesHere: sum([...here.values()].map(({ size }) => size)),
  }
}

function rolesOf(parsed: ParsedManifest | undefined): Pick<BlobDescription, 'descriptor' | 'role'>[] {
  if (parsed === undefined) return []
  const config = parsed.config ? [{ descriptor: parsed.config, role: 'config' as const }] : []
  return [...config, ...parsed.layers.map(descriptor => ({ descriptor, role: 'layer' as const }))]
}

function parse({ bytes, mediaType }: ManifestRecord, maxBytes: number): ParsedManifest | undefined {
  if (bytes.byteLength > maxBytes) return undefined
  try {
    return readManifest(bytes, mediaType)
  } catch {
    // It was refused when it came, or comes from a store that somebody else writes to: there is nothing to show of it.
    return undefined
  }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
