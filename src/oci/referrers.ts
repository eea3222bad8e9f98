import { type Descriptor, field, isJsonObject, readDescriptor } from './descriptor.ts'
import { algorithmOf, type Digest, hexOf } from './digest.ts'
import { ManifestRefused, readManifest } from './manifest.ts'
import { ociIndex } from './media-types.ts'

/** A manifest that refers to another, with its descriptor's JSON: fields that we do not know are passed on (P-67). */
export type Referrer = Descriptor & { readonly json: string }

/**
 * The tag under which clients keep the referrers of a digest where a registry lacks the API (P-81).
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema
 */
export function referrersTag(digest: Digest): string {
  return `${algorithmOf(digest).slice(0, 32)}-${hexOf(digest).slice(0, 64)}`
}

/** Reads an index of referrers. Throws {@link ManifestRefused} for anything that is not an index (P-85). Invalid descriptors are left out. */
export function readReferrers(bytes: Uint8Array): Referrer[] {
  if (readManifest(bytes, undefined).kind !== 'index') throw new ManifestRefused('structure', 'it is not an index')
  // readManifest checked depth, keys and structure of the same bytes.
  const document: unknown = JSON.parse(new TextDecoder().decode(bytes))
  const manifests = isJsonObject(document) ? field(document, 'manifests') : undefined
  return Array.isArray(manifests) ? manifests.map(readReferrer).filter(referrer => referrer !== undefined) : []
}

/** Those whose descriptor says this artifact type (P-82). */
export function filterByArtifactType(referrers: readonly Referrer[], artifactType: string): Referrer[] {
  return referrers.filter(referrer => referrer.artifactType === artifactType)
}

/** The answer of the referrers API: an index of the descriptors, each digest once. */
export function referrersIndex(referrers: readonly Referrer[]): Buffer {
  const unique = new Map(referrers.map(referrer => [referrer.digest, referrer.json]))
  const list = [...unique.values()].join(',')
  return Buffer.from(`{"schemaVersion":2,"mediaType":"${ociIndex}","manifests":[${list}]}`)
}

function readReferrer(value: unknown): Referrer | undefined {
  const descriptor = readDescriptor(value)
  return descriptor && { ...descriptor, json: JSON.stringify(value) }
}
