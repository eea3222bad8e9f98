import type { S3Config } from '../config/config.ts'
import { algorithmOf, type Digest, hexOf } from '../oci/digest.ts'
import { keyOf } from './s3-key.ts'

/** What every object of ours is created with: where it lies, and how the service keeps it. */
export function objectAttributes(config: S3Config, digest: Digest) {
  return {
    Bucket: config.bucket,
    Key: keyOf(config.prefix, digest),
    ContentType: 'application/octet-stream',
    ...(config.storageClass !== undefined && { StorageClass: config.storageClass as 'STANDARD' }),
    ...protection(config),
  }
}

/** What every object of ours carries, whatever it is: encryption and tags. */
export function protection({ sse, tags }: S3Config) {
  return { ...encryption(sse), ...tagging(tags) }
}

/**
 * True when the service itself computed another hash as it took the object in: somebody wrote other bytes under this key. Uploads in parts carry no hash of the
 * whole, and many services none at all.
 */
export function saysOtherwise(
  { ChecksumSHA256: checksum }: { readonly ChecksumSHA256?: string | undefined },
  digest: Digest,
): boolean {
  if (checksum === undefined || checksum.includes('-') || algorithmOf(digest) !== 'sha256') return false
  return checksum !== Buffer.from(hexOf(digest), 'hex').toString('base64')
}

function encryption(sse: S3Config['sse']) {
  if (sse === undefined) return {}
  if (sse === 'AES256') return { ServerSideEncryption: 'AES256' as const }
  return { ServerSideEncryption: 'aws:kms' as const, SSEKMSKeyId: sse.kmsKeyId }
}

function tagging(tags: S3Config['tags']) {
  const pairs = Object.entries(tags)
  return pairs.length === 0 ? {} : { Tagging: pairs.map(pair => pair.map(encodeURIComponent).join('=')).join('&') }
}
