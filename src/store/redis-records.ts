import * as z from 'zod'
import { algorithmOf, digestOf, isDigest, type Digest } from '../oci/digest.ts'
import type { Link, ManifestRecord, StoredDocument, TagRecord } from './stores.ts'

/** Longer than any media type, shorter than anything that hurts. RFC 6838 section 4.2: 127 characters on either side. */
const mediaType = z.string().regex(/^[\w!#$&^.+-]{1,127}\/[\w!#$&^.+-]{1,127}(?:;[\x20-\x7e]{0,200})?$/)
const milliseconds = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const digest = z.custom<Digest>(value => typeof value === 'string' && isDigest(value))

const tagSchema = z.strictObject({ digest, mediaType, size: milliseconds, checkedAt: milliseconds })
const documentHead = z.strictObject({
  mediaType,
  storedAt: milliseconds,
  attributes: z.record(z.string(), z.string()),
  // Documents have no digest to be known by, so they carry one.
  digest,
})

/** The media type in a line, then the bytes as they are. */
export function encodeManifest({ mediaType, bytes }: ManifestRecord): Buffer {
  return Buffer.concat([Buffer.from(`${mediaType}\n`), bytes])
}

/** Undefined: these are not the bytes that were asked for (T-26). */
export function decodeManifest(wanted: Digest, value: Buffer): ManifestRecord | undefined {
  const { head, bytes } = split(value)
  if (!mediaType.safeParse(head).success || digestOf(bytes, algorithmOf(wanted)) !== wanted) return undefined
  return { digest: wanted, mediaType: head, bytes }
}

export function encodeTag({ digest, mediaType, size, checkedAt }: TagRecord): string {
  return JSON.stringify({ digest, mediaType, size, checkedAt })
}

/** Undefined: it is no tag record. */
export function decodeTag(value: Buffer): TagRecord | undefined {
  return tagSchema.safeParse(parseJson(value.toString())).data
}

/** A line of JSON, then the bytes as they are. */
export function encodeDocument({ bytes, mediaType, storedAt, attributes }: StoredDocument): Buffer {
  const head = JSON.stringify({ mediaType, storedAt, attributes, digest: digestOf(bytes) })
  return Buffer.concat([Buffer.from(`${head}\n`), bytes])
}

/** Undefined: it is no document, or not the one that was put. */
export function decodeDocument(value: Buffer): StoredDocument | undefined {
  const { head, bytes } = split(value)
  const parsed = documentHead.safeParse(parseJson(head)).data
  if (parsed === undefined || digestOf(bytes) !== parsed.digest) return undefined
  return { bytes, mediaType: parsed.mediaType, storedAt: parsed.storedAt, attributes: parsed.attributes }
}

/** Undefined: it is no link. */
export function decodeLink(value: Buffer): Link | undefined {
  const word = value.toString()
  return word === 'named' || word === 'confirmed' ? word : undefined
}

/** https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests */
export function isTagName(text: string): boolean {
  return /^\w[\w.-]{0,127}$/.test(text)
}

function split(value: Buffer): { readonly head: string; readonly bytes: Buffer } {
  const end = value.indexOf(0x0a)
  return end < 0
    ? { head: '', bytes: Buffer.alloc(0) }
    : { head: value.subarray(0, end).toString(), bytes: value.subarray(end + 1) }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
