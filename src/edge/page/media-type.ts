const names: Readonly<Record<string, string>> = {
  'application/vnd.oci.image.index.v1+json': 'index',
  'application/vnd.docker.distribution.manifest.list.v2+json': 'index (Docker)',
  'application/vnd.oci.image.manifest.v1+json': 'image',
  'application/vnd.docker.distribution.manifest.v2+json': 'image (Docker)',
  'application/vnd.oci.artifact.manifest.v1+json': 'artifact',
  'application/vnd.oci.image.config.v1+json': 'config',
  'application/vnd.docker.container.image.v1+json': 'config (Docker)',
  'application/vnd.oci.image.layer.v1.tar': 'tar',
  'application/vnd.oci.image.layer.v1.tar+gzip': 'tar, gzip',
  'application/vnd.oci.image.layer.v1.tar+zstd': 'tar, zstd',
  'application/vnd.docker.image.rootfs.diff.tar.gzip': 'tar, gzip (Docker)',
}

/** A word for the common ones, the type itself for all others: anyone may call theirs what they like. */
export const mediaTypeName = (mediaType: string): string =>
  Object.hasOwn(names, mediaType) ? (names[mediaType] ?? mediaType) : mediaType
