import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts'
import { describedBlobs, readManifest } from '../oci/manifest.ts'
import { isManifestMediaType } from '../oci/media-types.ts'
import type { ArchivedObject } from './archive.ts'
import { decodeTag, encodeTag } from './redis-records.ts'
import type { ManifestRecord, TagRecord } from './stores.ts'

export const manifestObject = ({ bytes, mediaType }: ManifestRecord): ArchivedObject => ({
  bytes,
  contentType: mediaType,
})

export const tagObject = (record: TagRecord): ArchivedObject => ({
  bytes: Buffer.from(encodeTag(record)),
  contentType: 'application/json',
})

/** That it is there is all that it says. */
export const linkObject: ArchivedObject = { bytes: new Uint8Array(), contentType: 'application/octet-stream' }

/** Undefined: these are not the bytes of `digest`, or they are called something that no manifest is (T-26). */
export function readManifestObject(digest: Digest, { bytes, contentType }: ArchivedObject): ManifestRecord | undefined {
  if (!isManifestMediaType(contentType) || digestOf(bytes, algorithmOf(digest)) !== digest) return undefined
  return { digest, mediaType: contentType, bytes }
}

/** Undefined: it is no tag record. */
export function readTagObject({ bytes }: ArchivedObject): TagRecord | undefined {
  return bytes.byteLength > 4096 ? undefined : decodeTag(Buffer.from(bytes))
}

/** The blobs that a manifest names for whoever may read it (T-11); none for bytes that are no manifest. */
export function namedBy({ bytes, mediaType }: ManifestRecord): readonly Digest[] {
  try {
    return describedBlobs(readManifest(bytes, mediaType)).map(({ digest }) => digest)
  } catch {
    // It is refused where it is served.
    return []
  }
}
