import { CreateBucketCommand, GetObjectCommand, HeadObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import type { Digest } from '../src/oci/digest.ts'
import { keyOf } from '../src/store/s3-key.ts'
import { startRadosgw } from '../test/fakes/radosgw.ts'

const bucket = 'bench'
const credentials = { accessKeyId: 'testkey', secretAccessKey: 'testsecret' }

/** A bucket on a real S3 service, in memory. */
export type Bucket = {
  /** `host:port` of the service. */
  readonly host: string
  /** Variables that replicas find the credentials in. */
  readonly env: Readonly<Record<string, string>>
  /** The section `s3` of a configuration. `host`: another way to the service, such as a link in front of it. */
  settings(prefix: string, host?: string): Readonly<Record<string, unknown>>
  holds(prefix: string, digest: Digest): Promise<boolean>
  /** A signed URL, good for an hour. `host`: another way to the service. */
  urlOf(prefix: string, digest: Digest, host?: string): Promise<string>
  close(): Promise<void>
}

export async function startBucket(): Promise<Bucket> {
  const service = await startRadosgw()
  const clientOf = (endpoint: string): S3Client =>
    new S3Client({ region: 'us-east-1', endpoint, forcePathStyle: true, credentials })
  const client = clientOf(service.endpoint)
  const close = async (): Promise<void> => {
    client.destroy()
    await service.stop()
  }
  try {
    await client.send(new CreateBucketCommand({ Bucket: bucket }))
  } catch (error) {
    await close()
    throw error
  }
  const { host } = new URL(service.endpoint)
  const at = (prefix: string, digest: Digest): { Bucket: string; Key: string } => ({
    Bucket: bucket,
    Key: keyOf(prefix, digest),
  })
  return {
    host,
    env: { AWS_ACCESS_KEY_ID: credentials.accessKeyId, AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey },
    settings: (prefix, way = host) => ({ bucket, prefix, endpoint: `http://${way}`, pathStyle: true }),
    async holds(prefix, digest) {
      try {
        await client.send(new HeadObjectCommand(at(prefix, digest)))
        return true
      } catch (error) {
        if (error instanceof Error && error.name === 'NotFound') return false
        throw error
      }
    },
    urlOf: (prefix, digest, way = host) =>
      getSignedUrl(clientOf(`http://${way}`), new GetObjectCommand(at(prefix, digest)), { expiresIn: 3600 }),
    close,
  }
}
