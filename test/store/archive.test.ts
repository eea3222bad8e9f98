import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type Digest, digestOf, hexOf } from '../../src/oci/digest.ts'
import type { Archive } from '../../src/store/archive.ts'
import { digestOfManifestKey, linkKey, linkOfKey, tagObjectKey, tagOfKey } from '../../src/store/archive-keys.ts'
import { archivedMetadata, type ArchivedMetadataOptions } from '../../src/store/archived-metadata.ts'
import { openS3Archive } from '../../src/store/s3-archive.ts'
import type { TagRecord } from '../../src/store/stores.ts'
import { FakeClock } from '../fakes/clock.ts'
import { MemoryMetadata } from '../fakes/memory-metadata.ts'
import { accessKeyId, FakeS3, type S3Options, secretAccessKey } from '../fakes/s3.ts'
import { describeMetadataStore } from './metadata.conformance.ts'
import { opened, recordingObserver } from './opened.ts'
import { useCredentials } from './s3-opened.ts'

const upstream = 'docker.io'
const repository = 'library/alpine'
const mediaType = 'application/vnd.oci.image.manifest.v1+json'
const [config, layer] = ['config', 'layer'].map(text => digestOf(Buffer.from(text))) as [Digest, Digest]
const bytes = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: config, size: 6 },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: layer, size: 5 }],
  }),
)
const manifest = { digest: digestOf(bytes), mediaType, bytes }
const key = { upstream, repository, tag: '3.20' }
const tag: TagRecord = { digest: manifest.digest, mediaType, size: bytes.byteLength, checkedAt: 42 }
const manifestPath = `manifests/sha256/${hexOf(manifest.digest).slice(0, 2)}/${hexOf(manifest.digest)}`
const tagPath = 'tags/docker.io/library/alpine/_/3.20.json'

async function startedBucket(options: S3Options = {}): Promise<FakeS3> {
  useCredentials(accessKeyId, secretAccessKey)
  const bucket = await FakeS3.start(options)
  onTestFinished(() => bucket.stop())
  return bucket
}

type Opening = Partial<ArchivedMetadataOptions> & { readonly bucket?: FakeS3; readonly absentIs403?: boolean }

/** Records in memory with an archive in a bucket behind them, closed when the test ends. */
async function openedArchive({ bucket: given, absentIs403 = false, ...options }: Opening = {}) {
  const bucket = given ?? (await startedBucket())
  const clock = new FakeClock()
  const front = new MemoryMetadata()
  const { observer, failures } = recordingObserver()
  const archive = openS3Archive({
    config: bucket.config({ prefix: 'site/', requestTimeoutMs: 500 }),
    clock,
    observer,
    absentIs403: () => absentIs403,
  })
  const metadata = archivedMetadata({
    metadata: front,
    archive,
    clock,
    observer,
    pauses: { firstMs: 5, longestMs: 20 },
    closeMs: 50,
    ...options,
  })
  onTestFinished(() => metadata.close())
  const flushAll = (): void => {
    for (const records of [front.manifests, front.tags, front.links, front.documents]) records.clear()
  }
  const reasons = (): string[] => failures.map(({ operation }) => operation)
  return { metadata, bucket, clock, front, archive, flushAll, reasons }
}

const countOf = (bucket: FakeS3, method: string): number => bucket.seen.filter(seen => seen.method === method).length

/** As the cache does for a pull: content, rights, then the tag. */
async function putImage({ metadata }: Pick<Awaited<ReturnType<typeof openedArchive>>, 'metadata'>): Promise<void> {
  await metadata.putManifest(manifest)
  await metadata.putLinks(upstream, repository, [config, layer], 'named')
  await metadata.putLinks(upstream, repository, [manifest.digest, layer], 'confirmed')
  await metadata.putTag(key, tag)
  await metadata.idle()
}

describeMetadataStore('embedded with an archive', async () => {
  const { metadata } = await openedArchive({ metadata: (await opened()).metadata })
  return metadata
})

/** Has lost everything that the archive keeps whenever it is asked. */
class Forgetful extends MemoryMetadata {
  override async getManifest() {
    return undefined
  }
  override async getTag() {
    return undefined
  }
  override async knownTags() {
    return []
  }
  override async isConfirmedAt() {
    return false
  }
}

describeMetadataStore('what an archive gives back by itself', async () => {
  const { metadata } = await openedArchive({ metadata: new Forgetful() })
  return metadata
})

describe('an archive of records', () => {
  it('F-63: after a FLUSHALL every record of a pull comes back, and is in front again', async () => {
    const opened = await openedArchive()
    const { metadata, front, flushAll, bucket } = opened
    await putImage(opened)
    flushAll()
    expect(await metadata.getTag(key)).toEqual(tag)
    const found = await metadata.getManifest(manifest.digest)
    expect(found && { ...found, bytes: Buffer.from(found.bytes) }).toEqual(manifest)
    expect(await metadata.getLink(upstream, repository, manifest.digest)).toBe('confirmed')
    expect(await metadata.isConfirmedAt(upstream, layer)).toBe(true)
    expect(await metadata.knownTags(upstream, repository)).toEqual(['3.20'])
    expect([front.manifests.size, front.tags.size]).toEqual([1, 1])
    await bucket.stop()
    expect(await metadata.getLink(upstream, repository, manifest.digest)).toBe('confirmed')
    expect(await metadata.getTag(key)).toEqual(tag)
  })

  it('T-11: what a manifest names may be read again once its repository is known to hold it, and by no other', async () => {
    const opened = await openedArchive()
    await putImage(opened)
    opened.flushAll()
    const { metadata } = opened
    expect(await metadata.getLink(upstream, 'library/other', manifest.digest)).toBeUndefined()
    expect(await metadata.getLink(upstream, 'library/other', config)).toBeUndefined()
    expect(await metadata.getLink('quay.io', repository, manifest.digest)).toBeUndefined()
    expect(await metadata.getLink(upstream, repository, manifest.digest)).toBe('confirmed')
    expect(await metadata.getLink(upstream, repository, config)).toBe('named')
    expect(await metadata.isConfirmedAt(upstream, config)).toBe(false)
  })

  it('writes each record as an object of its own, the manifest byte for byte under its media type', async () => {
    const opened = await openedArchive()
    await putImage(opened)
    expect([...opened.bucket.objects.keys()].sort()).toEqual(
      [
        `site/${manifestPath}`,
        `site/${tagPath}`,
        ...[manifest.digest, layer].map(digest => `site/${linkKey({ upstream, repository, digest })}`),
      ].sort(),
    )
    const object = opened.bucket.objects.get(`site/${manifestPath}`)
    expect(object?.bytes.equals(bytes)).toBe(true)
    expect(object?.headers['content-type']).toBe(mediaType)
  })

  it('a new name costs one request, however many ask for it, until some seconds have passed', async () => {
    const { metadata, bucket, clock } = await openedArchive()
    await Promise.all(Array.from({ length: 50 }, () => metadata.getTag(key)))
    await metadata.getTag(key)
    expect(countOf(bucket, 'GET')).toBe(1)
    clock.advance(10_001)
    await metadata.getTag(key)
    expect(countOf(bucket, 'GET')).toBe(2)
  })

  it('finds what was put a moment after it was not there', async () => {
    const { metadata, flushAll } = await openedArchive()
    expect(await metadata.getTag(key)).toBeUndefined()
    expect(await metadata.isConfirmedAt(upstream, layer)).toBe(false)
    await metadata.putTag(key, tag)
    await metadata.putLinks(upstream, repository, [layer], 'confirmed')
    flushAll()
    expect(await metadata.getTag(key)).toEqual(tag)
    await metadata.idle()
    flushAll()
    expect(await metadata.getTag(key)).toEqual(tag)
    expect(await metadata.isConfirmedAt(upstream, layer)).toBe(true)
  })

  it('tells the archive once an hour of a tag that stays what it was, and at once of one that moved', async () => {
    const { metadata, bucket, clock } = await openedArchive()
    const putAndCount = async (record: TagRecord): Promise<number> => {
      await metadata.putTag(key, record)
      await metadata.idle()
      return countOf(bucket, 'PUT')
    }
    expect(await putAndCount(tag)).toBe(1)
    clock.advance(60_000)
    expect(await putAndCount({ ...tag, checkedAt: 43 })).toBe(1)
    expect(await putAndCount({ ...tag, digest: layer })).toBe(2)
    clock.advance(60 * 60_000)
    expect(await putAndCount({ ...tag, digest: layer, checkedAt: 99 })).toBe(3)
  })

  it('what the archive lost or never had is written again when it is read in front', async () => {
    const { metadata, front, bucket } = await openedArchive()
    await front.putManifest(manifest)
    await front.putTag(key, tag)
    await front.putLinks(upstream, repository, [manifest.digest], 'confirmed')
    for (let round = 0; round < 3; round++) {
      await metadata.getManifest(manifest.digest)
      await metadata.getTag(key)
      await metadata.getLink(upstream, repository, manifest.digest)
      await metadata.idle()
    }
    expect(bucket.objects.size).toBe(3)
    expect([countOf(bucket, 'HEAD'), countOf(bucket, 'PUT')]).toEqual([3, 3])
  })

  it('does not bring back what was deleted', async () => {
    const opened = await openedArchive()
    const { metadata, bucket, flushAll } = opened
    await putImage(opened)
    await metadata.deleteManifest(manifest.digest)
    await metadata.deleteTag(key)
    await metadata.deleteLink(upstream, repository, layer)
    flushAll()
    expect(await metadata.getManifest(manifest.digest)).toBeUndefined()
    expect(await metadata.getTag(key)).toBeUndefined()
    expect(await metadata.knownTags(upstream, repository)).toEqual([])
    expect(await metadata.isConfirmedAt(upstream, layer)).toBe(false)
    await metadata.idle()
    expect(await metadata.getManifest(manifest.digest)).toBeUndefined()
    expect([...bucket.objects.keys()]).toEqual([`site/${linkKey({ upstream, repository, digest: manifest.digest })}`])
  })

  it.each([
    ['other bytes', Buffer.from('{}'), mediaType],
    ['no bytes', Buffer.alloc(0), mediaType],
    ['a type that no manifest has', bytes, 'text/html'],
  ])('T-26: a manifest with %s is ignored and reported, and written anew', async (_what, wrong, type) => {
    const opened = await openedArchive()
    const { metadata, bucket, flushAll, reasons } = opened
    bucket.objects.set(`site/${manifestPath}`, { bytes: wrong, headers: { 'content-type': type } })
    expect(await metadata.getManifest(manifest.digest)).toBeUndefined()
    expect(await metadata.getManifest(manifest.digest)).toBeUndefined()
    expect(reasons()).toEqual(['archive.corrupt'])
    await putImage(opened)
    flushAll()
    expect((await metadata.getManifest(manifest.digest))?.mediaType).toBe(mediaType)
  })

  it('F-64: a tag record that is none is ignored and reported', async () => {
    for (const wrong of [
      '',
      '{',
      '[]',
      '{"digest":"sha256:x"}',
      JSON.stringify({ ...tag, extra: 1 }),
      '9'.repeat(9999),
    ]) {
      const { metadata, bucket, front, reasons } = await openedArchive()
      bucket.objects.set(`site/${tagPath}`, { bytes: Buffer.from(wrong), headers: {} })
      expect(await metadata.getTag(key)).toBeUndefined()
      expect(reasons()).toEqual(['archive.corrupt'])
      expect(front.tags.size).toBe(0)
    }
  })

  it('F-65: a tag that moves while the archive is asked for it does not move back', async () => {
    const { metadata, archive, bucket, front } = await openedArchive()
    await archive.put(tagPath, { bytes: Buffer.from(JSON.stringify(tag)), contentType: 'application/json' })
    bucket.break('PUT', { kind: 'slow', ms: 200 })
    const moved = { ...tag, digest: layer, checkedAt: 43 }
    const asked = metadata.getTag(key)
    await metadata.putTag(key, moved)
    await metadata.putTag(key, { ...moved, checkedAt: 44 })
    front.tags.clear()
    expect((await asked)?.digest).toBe(layer)
    expect((await metadata.getTag(key))?.digest).toBe(layer)
  })

  it('without the right to list, a 403 is an absence', async () => {
    const bucket = await startedBucket({ mayList: false })
    const { metadata, reasons } = await openedArchive({ bucket, absentIs403: true })
    expect(await metadata.getTag(key)).toBeUndefined()
    expect(await metadata.getLink(upstream, repository, layer)).toBeUndefined()
    expect(reasons()).toEqual([])
  })
})

describe('an archive that is away', () => {
  it('F-55: reads find nothing at once, writes come back at once, and all is written when it is back', async () => {
    const opened = await openedArchive()
    const { metadata, bucket, front, flushAll } = opened
    bucket.break('GET', { kind: 'status', status: 503, code: 'SlowDown' })
    bucket.break('HEAD', { kind: 'status', status: 503, code: 'SlowDown' })
    bucket.break('PUT', { kind: 'status', status: 503, code: 'SlowDown' })
    await metadata.putManifest(manifest)
    await metadata.putTag(key, tag)
    await metadata.putLinks(upstream, repository, [layer], 'confirmed')
    expect([front.manifests.size, front.tags.size, front.links.size]).toEqual([1, 1, 1])
    expect(await metadata.getTag({ ...key, tag: 'new' })).toBeUndefined()
    expect(await metadata.knownTags(upstream, repository)).toEqual(['3.20'])
    expect(metadata.pending()).toBe(3)
    bucket.heal()
    await metadata.idle()
    flushAll()
    opened.clock.advance(60_000)
    expect(await metadata.getTag(key)).toEqual(tag)
    expect(bucket.objects.size).toBe(3)
  })

  it('drops what is beyond the bound, says so once, and every read and write in front goes on', async () => {
    const { metadata, bucket, front, reasons } = await openedArchive({ maxPending: 3 })
    bucket.break('PUT', { kind: 'status', status: 503, code: 'SlowDown' })
    for (let n = 0; n < 50; n++) await metadata.putTag({ ...key, tag: `t${n}` }, tag)
    expect(front.tags.size).toBe(50)
    expect(metadata.pending()).toBeLessThanOrEqual(3 + 4)
    expect(reasons().filter(reason => reason === 'archive.queue_full')).toHaveLength(1)
  })

  it('bounds what waits by its bytes too', async () => {
    const { metadata, bucket, reasons } = await openedArchive({ maxPendingBytes: 2_000 })
    bucket.break('PUT', { kind: 'status', status: 503, code: 'SlowDown' })
    for (let n = 0; n < 50; n++) await metadata.putTag({ ...key, tag: `t${n}` }, tag)
    expect(metadata.pending()).toBeLessThanOrEqual(2 + 4)
    expect(reasons()).toContain('archive.queue_full')
  })

  it('gives up an object that the bucket refuses for itself, and writes the others', async () => {
    const { metadata, bucket, reasons } = await openedArchive()
    bucket.break(`PUT ${manifestPath}`, { kind: 'status', status: 400, code: 'InvalidRequest' })
    await metadata.putManifest(manifest)
    await metadata.putTag(key, tag)
    await metadata.idle()
    expect(reasons().at(-1)).toBe('archive.write_given_up')
    expect([...bucket.objects.keys()]).toEqual([`site/${tagPath}`])
  })

  it('closes in bounded time and says how much was left', async () => {
    const { metadata, bucket, reasons } = await openedArchive()
    bucket.break('PUT', { kind: 'hang' })
    await metadata.putTag(key, tag)
    await metadata.close()
    expect(reasons()).toContain('archive.unwritten')
  })

  it('writes of one key do not overtake each other: the last one stays', async () => {
    const stored: string[] = []
    const release: (() => void)[] = []
    const archive: Archive = {
      get: () => Promise.resolve(undefined),
      has: () => Promise.resolve(false),
      delete: () => Promise.resolve(),
      list: () => Promise.resolve([]),
      close: () => Promise.resolve(),
      put: (_key, object) =>
        new Promise(resolve => {
          release.push(() => {
            stored.push(Buffer.from(object.bytes).toString())
            resolve()
          })
        }),
    }
    const { metadata } = await openedArchive({ archive })
    for (const checkedAt of [1, 2, 3]) await metadata.putTag(key, { ...tag, size: checkedAt, checkedAt })
    expect(release).toHaveLength(1)
    release.shift()?.()
    await expect.poll(() => release.length).toBe(1)
    release.shift()?.()
    await metadata.idle()
    expect(stored.map(text => (JSON.parse(text) as TagRecord).checkedAt)).toEqual([1, 3])
  })
})

describe('names in an archive', () => {
  const part = fc.stringMatching(/^[a-z0-9]{1,4}(?:[._-][a-z0-9]{1,3})?$/)
  const repositories = fc.array(part, { minLength: 1, maxLength: 4 }).map(parts => parts.join('/'))
  const tags = fc.stringMatching(/^\w[\w.-]{0,12}$/)

  it('T-24: every tag and every link has a key of its own, from which it is read back', () => {
    fc.assert(
      fc.property(part, repositories, tags, (upstream, repository, tag) => {
        expect(tagOfKey(tagObjectKey({ upstream, repository, tag }) ?? '')).toEqual({ upstream, repository, tag })
        const link = { upstream, repository, digest: layer }
        expect(linkOfKey(linkKey(link) ?? '')).toEqual(link)
      }),
    )
  })

  it('T-25: what does not follow its grammar has no key', () => {
    for (const wrong of ['', '..', '../x', 'a/../b', 'A', 'a//b', '/a', 'a/', 'a b', '_', 'a/_/b', 'a%2fb', 'a\n']) {
      expect(tagObjectKey({ upstream, repository: wrong, tag: '1' })).toBeUndefined()
      expect(linkKey({ upstream, repository: wrong, digest: layer })).toBeUndefined()
    }
    for (const wrong of ['', '..', '-a', 'a/b', 'a b', 'a'.repeat(129)])
      expect(tagObjectKey({ ...key, tag: wrong })).toBeUndefined()
    for (const wrong of ['', '..', 'a/b', '-', 'a b']) expect(tagObjectKey({ ...key, upstream: wrong })).toBeUndefined()
  })

  it('keys of others are none of ours', () => {
    for (const wrong of [
      '',
      'tags',
      'tags/a/b/c.json',
      'manifests/sha256/00/x',
      `blobs/sha256/ab/${hexOf(layer)}`,
      `links/a/sha256/zz/${hexOf(layer)}/b/_`,
    ])
      expect([tagOfKey(wrong), linkOfKey(wrong), digestOfManifestKey(wrong)]).toEqual([undefined, undefined, undefined])
    expect(digestOfManifestKey(manifestPath)).toBe(manifest.digest)
  })
})
