import { createCipheriv, createHash } from 'node:crypto'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { digestOf, type Digest } from '../oci/digest.ts'

/** Images made on the spot, without a tool and without a network: for the demo, the tests with real clients and the bench. */

/** Bytes that a registry holds under a digest, and the type by which they are described. */
export type Content = { readonly digest: Digest; readonly mediaType: string; readonly bytes: Buffer }

/** Everything a registry needs to hold to serve one tag. */
export type Image = {
  /** What the tag names. */
  readonly top: Content
  /** Every manifest, children before the index that names them: an order in which a registry accepts them. */
  readonly manifests: readonly Content[]
  readonly blobs: readonly Content[]
}

export type Layer = Content & {
  /** Digest of the tar before compression. */
  readonly diffId: Digest
}

export type Architecture = 'amd64' | 'arm64'
export type Compression = 'none' | 'gzip' | 'zstd'
export type Format = 'oci' | 'docker'
export type TarEntry = { readonly path: string; readonly bytes: Uint8Array }

export const mediaTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociEmpty: 'application/vnd.oci.empty.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
} as const

const block = 512

/** A ustar archive of plain files with fixed owner, mode and time, so that the same entries always give the same bytes. Paths are at most 100 bytes. */
export function tarOf(entries: readonly TarEntry[]): Buffer {
  const parts = entries.flatMap(entry => [header(entry), entry.bytes, Buffer.alloc(padding(entry.bytes.length))])
  // Two blocks of zeros end an archive.  POSIX.1-1988 ustar
  return Buffer.concat([...parts, Buffer.alloc(2 * block)])
}

function header({ path, bytes }: TarEntry): Buffer {
  const field = Buffer.alloc(block)
  if (Buffer.byteLength(path) > 100) throw new RangeError(`${path}: a path in this archive takes at most 100 bytes`)
  field.write(path, 0)
  field.write('0000644\0', 100)
  field.write('0000000\0', 108)
  field.write('0000000\0', 116)
  field.write(`${octal(bytes.length, 11)}\0`, 124)
  field.write(`${octal(0, 11)}\0`, 136)
  // The sum is taken with its own field full of spaces.
  field.write('        ', 148)
  field.write('0', 156)
  field.write('ustar\x0000', 257, 'latin1')
  const sum = field.reduce((total, byte) => total + byte, 0)
  field.write(`${octal(sum, 6)}\0 `, 148)
  return field
}

const octal = (value: number, width: number): string => value.toString(8).padStart(width, '0')
const padding = (size: number): number => (block - (size % block)) % block

/** Bytes that no compression shortens, the same ones for the same seed. */
export function noise(seed: string, size: number): Buffer {
  const key = createHash('sha256').update(seed).digest()
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size))
}

const compressors: Record<Compression, (tar: Buffer) => Buffer> = {
  none: tar => tar,
  gzip: tar => gzipSync(tar, { level: 1 }),
  zstd: tar => zstdCompressSync(tar),
}

/** A layer that a container runtime can unpack. Docker's format knows gzip only. */
export function layer(options: {
  readonly entries: readonly TarEntry[]
  readonly compression?: Compression
  readonly format?: Format
}): Layer {
  const { entries, compression = 'gzip', format = 'oci' } = options
  if (format === 'docker' && compression !== 'gzip') throw new TypeError('a schema 2 layer is compressed by gzip')
  const tar = tarOf(entries)
  const suffix = compression === 'none' ? '' : `+${compression}`
  const mediaType = format === 'docker' ? mediaTypes.dockerLayer : `${mediaTypes.ociLayer}${suffix}`
  return { ...content(mediaType, compressors[compression](tar)), diffId: digestOf(tar) }
}

/** A layer of one file of incompressible bytes: `size` and a little for the archive. */
export function noiseLayer(seed: string, size: number): Layer {
  return layer({ entries: [{ path: `noise-${seed}`, bytes: noise(seed, size) }], compression: 'none' })
}

/** An image for one platform. */
export function image(options: {
  readonly layers: readonly Layer[]
  readonly architecture?: Architecture
  readonly format?: Format
}): Image {
  const { layers, architecture = 'amd64', format = 'oci' } = options
  const config = json(format === 'docker' ? mediaTypes.dockerConfig : mediaTypes.ociConfig, {
    architecture,
    os: 'linux',
    config: { Cmd: ['/hello'] },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
  })
  const top = json(format === 'docker' ? mediaTypes.dockerManifest : mediaTypes.ociManifest, {
    schemaVersion: 2,
    mediaType: format === 'docker' ? mediaTypes.dockerManifest : mediaTypes.ociManifest,
    config: descriptor(config),
    layers: layers.map(descriptor),
  })
  return { top, manifests: [top], blobs: [config, ...layers] }
}

/** One tag for several platforms. */
export function index(images: readonly { readonly architecture: Architecture; readonly image: Image }[]): Image {
  const top = json(mediaTypes.ociIndex, {
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: images.map(({ architecture, image: { top: manifest } }) => ({
      ...descriptor(manifest),
      platform: { architecture, os: 'linux' },
    })),
  })
  return {
    top,
    manifests: [...images.flatMap(({ image: { manifests } }) => manifests), top],
    blobs: images.flatMap(({ image: { blobs } }) => blobs),
  }
}

/** Something that refers to an image: a signature, a bill of materials. https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidelines-for-artifact-usage */
export function artifact(options: {
  readonly subject: Content
  readonly artifactType: string
  readonly payload: string
}): Image {
  const { subject, artifactType, payload } = options
  const empty = content(mediaTypes.ociEmpty, Buffer.from('{}'))
  const body = content(artifactType, Buffer.from(payload))
  const top = json(mediaTypes.ociManifest, {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    artifactType,
    config: descriptor(empty),
    layers: [descriptor(body)],
    subject: descriptor(subject),
  })
  return { top, manifests: [top], blobs: [empty, body] }
}

/** The index by which referrers are found where a registry has no API for them, for the tag {@link referrersTag}. */
export function referrersIndex(artifacts: readonly { readonly artifactType: string; readonly image: Image }[]): Image {
  const manifests = artifacts.map(({ artifactType, image: { top } }) => ({ ...descriptor(top), artifactType }))
  const top = json(mediaTypes.ociIndex, { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests })
  return { top, manifests: [top], blobs: [] }
}

/** `sha256-<hex>`, with `.sig`, `.att` or `.sbom` behind it where cosign looks. https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema */
export function referrersTag(subject: Digest, suffix = ''): string {
  return subject.replace(':', '-') + suffix
}

function content(mediaType: string, bytes: Buffer): Content {
  return { digest: digestOf(bytes), mediaType, bytes }
}

// Indented on purpose: whoever re-serialises it changes the digest.
const json = (mediaType: string, value: unknown): Content =>
  content(mediaType, Buffer.from(`${JSON.stringify(value, undefined, 3)}\n`))

const descriptor = ({ mediaType, digest, bytes }: Content): { mediaType: string; digest: Digest; size: number } => ({
  mediaType,
  digest,
  size: bytes.length,
})
