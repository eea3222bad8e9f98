import { type Digest, digestOf } from '../../src/oci/digest.ts'

export type FakeImage = {
  readonly digest: Digest
  readonly manifestBytes: Buffer
  readonly mediaType: string
  readonly config: { readonly digest: Digest; readonly bytes: Buffer; readonly size: number }
  readonly layers: readonly { readonly digest: Digest; readonly bytes: Buffer; readonly size: number }[]
}

export type ImageOptions = { readonly layers?: number; readonly layerBytes?: number; readonly seed?: number | string }

export const ociManifestType = 'application/vnd.oci.image.manifest.v1+json'
export const ociIndexType = 'application/vnd.oci.image.index.v1+json'

/** The same bytes for the same seed (xorshift32): not compressible, and cheap to make. */
export function pseudoRandomBytes(length: number, seed: number | string = 1): Buffer {
  const bytes = Buffer.allocUnsafe(Math.ceil(length / 4) * 4)
  let state = Buffer.from(String(seed)).reduce((sum, byte) => (Math.imul(sum, 31) + byte) | 0, 0x9e3779b9) || 1
  for (let position = 0; position < bytes.length; position += 4) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes.writeInt32LE(state | 0, position)
  }
  return bytes.subarray(0, length)
}

/** An OCI image whose layers are pseudo-random bytes; the same for the same options. */
export function fakeImage({ layers: count = 2, layerBytes = 10_000, seed = 1 }: ImageOptions = {}): FakeImage {
  const layers = Array.from({ length: count }, (_, index) =>
    described(pseudoRandomBytes(layerBytes, `${seed}/${index}`)),
  )
  const config = described(
    Buffer.from(
      JSON.stringify({
        architecture: 'amd64',
        os: 'linux',
        created: '2026-01-01T00:00:00Z',
        config: { Labels: { seed: String(seed) } },
        rootfs: { type: 'layers', diff_ids: layers.map(layer => layer.digest) },
      }),
    ),
  )
  const manifestBytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: ociManifestType,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: config.digest, size: config.size },
      layers: layers.map(({ digest, size }) => ({
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
        digest,
        size,
      })),
    }),
  )
  return { digest: digestOf(manifestBytes), manifestBytes, mediaType: ociManifestType, config, layers }
}

function described(bytes: Buffer): { digest: Digest; bytes: Buffer; size: number } {
  return { digest: digestOf(bytes), bytes, size: bytes.length }
}
