import { describe, expect, it } from 'vitest'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import type { Archive, ArchivedObject } from '../../src/store/archive.ts'
import { linkKey, manifestKey, tagObjectKey } from '../../src/store/archive-keys.ts'
import { isReindexKey, reindex, type ReindexProgress } from '../../src/store/reindex.ts'
import { MemoryMetadata } from '../fakes/memory-metadata.ts'
import { recordingObserver } from './opened.ts'

const mediaType = 'application/vnd.oci.image.manifest.v1+json'
const layer = digestOf(Buffer.from('layer'))
const at = { upstream: 'docker.io', repository: 'library/alpine' }

function manifestOf(n: number): { readonly digest: Digest; readonly bytes: Buffer } {
  const layers = [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: layer, size: 5 }]
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, layers, annotations: { n: String(n) } }))
  return { digest: digestOf(bytes), bytes }
}

class MemoryArchive implements Archive {
  readonly objects = new Map<string, ArchivedObject>()
  gets = 0
  async get(key: string) {
    this.gets += 1
    return this.objects.get(key)
  }
  async has(key: string) {
    return this.objects.has(key)
  }
  async put(key: string, object: ArchivedObject) {
    this.objects.set(key, object)
  }
  async delete(key: string) {
    this.objects.delete(key)
  }
  async list({ prefix, after = '', limit }: Parameters<Archive['list']>[0]) {
    return [...this.objects.keys()]
      .filter(key => key.startsWith(prefix) && key > after)
      .sort()
      .slice(0, limit)
  }
  async close() {}
}

/** An archive of `count` manifests, each with its link and its tag. */
function archiveOf(count: number): MemoryArchive {
  const archive = new MemoryArchive()
  for (let n = 0; n < count; n++) {
    const { digest, bytes } = manifestOf(n)
    const tag = JSON.stringify({ digest, mediaType, size: bytes.byteLength, checkedAt: 42 })
    archive.objects.set(manifestKey(digest), { bytes, contentType: mediaType })
    archive.objects.set(linkKey({ ...at, digest }) ?? '', { bytes: Buffer.alloc(0), contentType: 'a/b' })
    archive.objects.set(tagObjectKey({ ...at, tag: `v${n}` }) ?? '', { bytes: Buffer.from(tag), contentType: 'a/b' })
  }
  return archive
}

type Changes = { readonly after?: string; readonly isUp?: () => boolean; readonly metadata?: MemoryMetadata }

async function run(archive: Archive, { after, isUp = () => true, metadata = new MemoryMetadata() }: Changes = {}) {
  const progress: ReindexProgress[] = []
  const { observer, failures } = recordingObserver()
  const failure: unknown = await reindex({
    archive,
    metadata,
    observer,
    after,
    isUp,
    onProgress: step => void progress.push(step),
    pageSize: 3,
  }).catch((error: unknown) => error)
  return { metadata, progress, failures, failure }
}

const sizes = ({ manifests, links, tags }: MemoryMetadata): number[] => [manifests.size, links.size, tags.size]

describe('reindex', () => {
  it('F-63: puts back every manifest, link and tag, and what manifests name', async () => {
    const { metadata, failure } = await run(archiveOf(10))
    expect(failure).toBeUndefined()
    expect(sizes(metadata)).toEqual([10, 11, 10])
    expect(await metadata.getLink(at.upstream, at.repository, layer)).toBe('named')
    expect(await metadata.getTag({ ...at, tag: 'v3' })).toMatchObject({ digest: manifestOf(3).digest, checkedAt: 42 })
  })

  it('F-65: puts a tag back after what it names', async () => {
    const { metadata } = await run(archiveOf(4))
    const first = metadata.writes.indexOf('putTag')
    expect(metadata.writes.slice(first).every(write => write === 'putTag')).toBe(true)
    expect(first).toBe(12)
  })

  it('changes nothing when it is run again, and replaces no newer tag', async () => {
    const archive = archiveOf(5)
    const { metadata } = await run(archive)
    const newer = { digest: layer, mediaType, size: 1, checkedAt: 43 }
    await metadata.putTag({ ...at, tag: 'v1' }, newer)
    metadata.writes.length = 0
    const { progress } = await run(archive, { metadata })
    expect(metadata.writes).toEqual([])
    expect(progress.filter(({ restored, ignored }) => restored + ignored > 0)).toEqual([])
    expect(await metadata.getTag({ ...at, tag: 'v1' })).toEqual(newer)
  })

  it('goes on after the last page that was told when the store went away', async () => {
    const archive = archiveOf(7)
    let pages = 0
    const stopped = await run(archive, { isUp: () => ++pages <= 4 })
    expect(stopped.failure).toBeInstanceOf(Error)
    const after = stopped.progress.at(-1)?.after ?? ''
    expect(isReindexKey(after)).toBe(true)
    const asked = archive.gets
    const { metadata, failure } = await run(archive, { after, metadata: stopped.metadata })
    expect(failure).toBeUndefined()
    expect(sizes(metadata)).toEqual([7, 8, 7])
    expect(archive.gets - asked).toBe(7)
  })

  it('T-26: ignores and reports what is not what it should be', async () => {
    const archive = archiveOf(2)
    archive.objects.set(manifestKey(layer), { bytes: Buffer.from('{}'), contentType: mediaType })
    archive.objects.set(tagObjectKey({ ...at, tag: 'bad' }) ?? '', { bytes: Buffer.from('{}'), contentType: 'a/b' })
    archive.objects.set('tags/somebody/elses.json', { bytes: Buffer.from('{}'), contentType: 'a/b' })
    const { metadata, failures, progress } = await run(archive)
    expect(sizes(metadata)).toEqual([2, 3, 2])
    expect(failures.map(({ operation }) => operation)).toEqual(['archive.corrupt', 'archive.corrupt'])
    expect(progress.at(-1)).toMatchObject({ stage: 'tags', restored: 2, ignored: 2 })
  })
})
