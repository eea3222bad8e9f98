import { CreateBucketCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import type { S3Config } from '../../src/config/config.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { archivedMetadata } from '../../src/store/archived-metadata.ts'
import { reindex } from '../../src/store/reindex.ts'
import { openS3Archive } from '../../src/store/s3-archive.ts'
import { createS3Client } from '../../src/store/s3-client.ts'
import { MemoryMetadata } from '../fakes/memory-metadata.ts'
import { type Radosgw, startRadosgw } from '../fakes/radosgw.ts'
import { recordingObserver } from './opened.ts'
import { useCredentials } from './s3-opened.ts'

let service: Radosgw
beforeAll(async () => {
  service = await startRadosgw()
}, 120_000)
afterAll(() => service?.stop())

async function newBucket(): Promise<S3Config> {
  useCredentials('testkey', 'testsecret')
  const config: S3Config = {
    bucket: 'records',
    prefix: 'some/prefix/',
    endpoint: service.endpoint,
    region: 'us-east-1',
    pathStyle: true,
    sse: undefined,
    storageClass: undefined,
    tags: { team: 'a b' },
    multipartBytes: 1024 ** 3,
    uploads: 4,
    requestTimeoutMs: 10_000,
  }
  const client = createS3Client(config)
  await client.send(new CreateBucketCommand({ Bucket: config.bucket }))
  client.destroy()
  return config
}

const mediaType = 'application/vnd.oci.image.manifest.v1+json'
const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, layers: [] }))
const manifest = { digest: digestOf(bytes), mediaType, bytes }
const at = { upstream: 'localhost:5000', repository: 'library/al__pine' }
const tagOf = (n: number) => ({ digest: manifest.digest, mediaType, size: bytes.byteLength, checkedAt: n })

describe('an archive in a real bucket', () => {
  it('F-63: gives back what was put, page by page, on a miss and by reindex', async () => {
    const config = await newBucket()
    const { observer, failures } = recordingObserver()
    const open = () => {
      const front = new MemoryMetadata()
      const archive = openS3Archive({ config, clock: systemClock, observer, readTimeoutMs: 10_000 })
      const metadata = archivedMetadata({ metadata: front, archive, clock: systemClock, observer })
      onTestFinished(() => metadata.close())
      return { front, archive, metadata }
    }
    const first = open()
    await first.metadata.putManifest(manifest)
    await first.metadata.putLinks(at.upstream, at.repository, [manifest.digest], 'confirmed')
    for (let n = 0; n < 20; n++) await first.metadata.putTag({ ...at, tag: `_v${n}.0-X` }, tagOf(n))
    await first.metadata.idle()

    const { metadata, archive } = open()
    expect((await metadata.getManifest(manifest.digest))?.mediaType).toBe(mediaType)
    expect(await metadata.getLink(at.upstream, at.repository, manifest.digest)).toBe('confirmed')
    expect(await metadata.getTag({ ...at, tag: '_v7.0-X' })).toEqual(tagOf(7))
    expect(await metadata.getTag({ ...at, tag: 'none' })).toBeUndefined()
    expect(await metadata.knownTags(at.upstream, at.repository)).toHaveLength(20)

    const fresh = open()
    expect(await fresh.metadata.isConfirmedAt(at.upstream, manifest.digest)).toBe(true)
    await metadata.deleteTag({ ...at, tag: '_v7.0-X' })
    await metadata.idle()
    const filled = new MemoryMetadata()
    await reindex({ archive, metadata: filled, observer, isUp: () => true, onProgress: () => {}, pageSize: 3 })
    expect([filled.manifests.size, filled.links.size, filled.tags.size]).toEqual([1, 1, 19])
    expect(failures).toEqual([])
  }, 60_000)
})
