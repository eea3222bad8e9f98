export const ociIndex = 'application/vnd.oci.image.index.v1+json'
export const ociManifest = 'application/vnd.oci.image.manifest.v1+json'
export const dockerList = 'application/vnd.docker.distribution.manifest.list.v2+json'
export const dockerManifest = 'application/vnd.docker.distribution.manifest.v2+json'
/** Withdrawn from the image spec before 1.1, still found in registries. */
export const ociArtifactManifest = 'application/vnd.oci.artifact.manifest.v1+json'
export const octetStream = 'application/octet-stream'

/** The `Accept` for every manifest request to an upstream: without it some answer with schema 1 (P-30, P-36). */
export const manifestAccept = [ociIndex, ociManifest, dockerList, dockerManifest].join(', ')

export function isIndex(mediaType: string): boolean {
  return mediaType === ociIndex || mediaType === dockerList
}

export function isImageManifest(mediaType: string): boolean {
  return mediaType === ociManifest || mediaType === dockerManifest
}

/** Docker's first manifest format: its digest does not cover its bytes, so it cannot be kept by digest (P-36). */
export function isSchema1(mediaType: string): boolean {
  return (
    mediaType === 'application/vnd.docker.distribution.manifest.v1+json' ||
    mediaType === 'application/vnd.docker.distribution.manifest.v1+prettyjws'
  )
}

// The restricted-name characters of RFC 6838 §4.2, and the suffix that every manifest type has.
const jsonType = /^application\/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}\+json$/

/** True for a type that a manifest may have, the four known ones and unknown `application/…+json` (P-71), schema 1 excepted. */
export function isManifestMediaType(mediaType: string): boolean {
  return mediaType.length <= 255 && jsonType.test(mediaType) && !isSchema1(mediaType)
}

/** A Content-Type value without parameters, lower case; undefined when nothing is left. */
export function bareMediaType(contentType: string | undefined): string | undefined {
  const bare = contentType?.split(';', 1)[0]?.trim().toLowerCase()
  return bare === '' ? undefined : bare
}
