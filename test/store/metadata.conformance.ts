import { describe, expect, it, onTestFinished } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import type { MetadataStore, TagRecord } from '../../src/store/stores.ts'

const bytes = Buffer.from('{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}\n')
const manifest = { digest: digestOf(bytes), mediaType: 'application/vnd.oci.image.manifest.v1+json', bytes }
const upstream = 'docker.io'
const repository = 'library/alpine'
const key = { upstream, repository, tag: '3.20' }
const tag: TagRecord = { digest: manifest.digest, mediaType: manifest.mediaType, size: bytes.byteLength, checkedAt: 42 }

/** What every MetadataStore must do. `open` gives an empty one. */
export function describeMetadataStore(name: string, open: () => Promise<MetadataStore>): void {
  const fresh = async (): Promise<MetadataStore> => {
    const metadata = await open()
    onTestFinished(() => metadata.close())
    return metadata
  }

  describe(`${name} as a MetadataStore`, () => {
    it('knows nothing at first', async () => {
      const metadata = await fresh()
      expect(await metadata.getManifest(manifest.digest)).toBeUndefined()
      expect(await metadata.getTag(key)).toBeUndefined()
      expect(await metadata.knownTags(upstream, repository)).toEqual([])
      expect(await metadata.getLink(upstream, repository, manifest.digest)).toBeUndefined()
      expect(await metadata.isConfirmedAt(upstream, manifest.digest)).toBe(false)
      expect(await metadata.getDocument('tags')).toBeUndefined()
    })

    it('lets everything be deleted that is not there', async () => {
      const metadata = await fresh()
      await metadata.deleteManifest(manifest.digest)
      await metadata.deleteTag(key)
      await metadata.deleteLink(upstream, repository, manifest.digest)
      expect(await metadata.getTag(key)).toBeUndefined()
    })

    it('keeps manifests byte for byte, with their media type', async () => {
      const metadata = await fresh()
      await metadata.putManifest(manifest)
      await metadata.putManifest(manifest)
      const found = await metadata.getManifest(manifest.digest)
      expect(found && { ...found, bytes: Buffer.from(found.bytes) }).toEqual(manifest)
      await metadata.deleteManifest(manifest.digest)
      expect(await metadata.getManifest(manifest.digest)).toBeUndefined()
    })

    it('keeps manifests under sha512 too', async () => {
      const metadata = await fresh()
      const digest = digestOf(bytes, 'sha512')
      await metadata.putManifest({ ...manifest, digest })
      expect((await metadata.getManifest(digest))?.digest).toBe(digest)
      expect(await metadata.getManifest(manifest.digest)).toBeUndefined()
    })

    it('T-26: treats bytes that do not hash to their digest as missing', async () => {
      const metadata = await fresh()
      await metadata.putManifest({ ...manifest, bytes: Buffer.from('{"other":true}') })
      expect(await metadata.getManifest(manifest.digest)).toBeUndefined()
      await metadata.putManifest(manifest)
      expect(await metadata.getManifest(manifest.digest)).toBeDefined()
    })

    it('moves a tag to what was put last', async () => {
      const metadata = await fresh()
      await metadata.putTag(key, tag)
      expect(await metadata.getTag(key)).toEqual(tag)
      const moved = { ...tag, digest: digestOf(Buffer.from('new')), checkedAt: 43 }
      await metadata.putTag(key, moved)
      expect(await metadata.getTag(key)).toEqual(moved)
      await metadata.deleteTag(key)
      expect(await metadata.getTag(key)).toBeUndefined()
    })

    it('T-24: keeps tags of other upstreams, repositories and spellings apart', async () => {
      const metadata = await fresh()
      await metadata.putTag(key, tag)
      expect(await metadata.getTag({ ...key, upstream: 'quay.io' })).toBeUndefined()
      expect(await metadata.getTag({ ...key, repository: 'alpine' })).toBeUndefined()
      expect(await metadata.getTag({ ...key, repository: 'Library/alpine' })).toBeUndefined()
      expect(await metadata.getTag({ ...key, tag: '3.2' })).toBeUndefined()
    })

    it('F-65: a tag may name a manifest that is gone', async () => {
      const metadata = await fresh()
      await metadata.putTag(key, tag)
      expect(await metadata.getTag(key)).toEqual(tag)
      expect(await metadata.getManifest(tag.digest)).toBeUndefined()
    })

    it('P-78: lists the known tags of one repository in lexical order', async () => {
      const metadata = await fresh()
      for (const known of ['b', 'a', 'B', '10', '9', 'a.1']) await metadata.putTag({ ...key, tag: known }, tag)
      await metadata.putTag({ ...key, repository: 'library/alpine2', tag: 'z' }, tag)
      await metadata.putTag({ ...key, upstream: 'quay.io', tag: 'y' }, tag)
      expect(await metadata.knownTags(upstream, repository)).toEqual(['10', '9', 'B', 'a', 'a.1', 'b'])
    })

    it('T-11: a link opens its own repository and no other', async () => {
      const metadata = await fresh()
      await metadata.putLinks(upstream, repository, [manifest.digest], 'named')
      expect(await metadata.getLink(upstream, repository, manifest.digest)).toBe('named')
      expect(await metadata.getLink(upstream, 'library/other', manifest.digest)).toBeUndefined()
      expect(await metadata.getLink('quay.io', repository, manifest.digest)).toBeUndefined()
    })

    it('T-11: confirmed replaces named, named never replaces confirmed', async () => {
      const metadata = await fresh()
      const other = digestOf(Buffer.from('other'))
      await metadata.putLinks(upstream, repository, [manifest.digest, other], 'named')
      await metadata.putLinks(upstream, repository, [manifest.digest], 'confirmed')
      await metadata.putLinks(upstream, repository, [manifest.digest, other], 'named')
      expect(await metadata.getLink(upstream, repository, manifest.digest)).toBe('confirmed')
      expect(await metadata.getLink(upstream, repository, other)).toBe('named')
      await metadata.putLinks(upstream, repository, [], 'confirmed')
    })

    it('T-42: takes thousands of links at once', async () => {
      const metadata = await fresh()
      const digests = Array.from({ length: 4096 }, (_, index) => digestOf(Buffer.from(`layer ${index}`)))
      await metadata.putLinks(upstream, repository, digests, 'named')
      const some = digests.filter((_, index) => index % 255 === 0 || index === 4095)
      const links = await Promise.all(some.map(digest => metadata.getLink(upstream, repository, digest)))
      expect(new Set(links)).toEqual(new Set(['named']))
    })

    it('tells whether any repository of an upstream is confirmed to hold a digest', async () => {
      const metadata = await fresh()
      await metadata.putLinks(upstream, repository, [manifest.digest], 'named')
      expect(await metadata.isConfirmedAt(upstream, manifest.digest)).toBe(false)
      await metadata.putLinks(upstream, 'library/busybox', [manifest.digest], 'confirmed')
      expect(await metadata.isConfirmedAt(upstream, manifest.digest)).toBe(true)
      expect(await metadata.isConfirmedAt('quay.io', manifest.digest)).toBe(false)
      await metadata.deleteLink(upstream, 'library/busybox', manifest.digest)
      expect(await metadata.isConfirmedAt(upstream, manifest.digest)).toBe(false)
      expect(await metadata.getLink(upstream, repository, manifest.digest)).toBe('named')
    })

    it('keeps a document with its attributes, and the last one put', async () => {
      const metadata = await fresh()
      const document = {
        bytes: Buffer.from('{"tags":["ü"]}'),
        mediaType: 'application/json',
        storedAt: 7,
        attributes: { next: 'n=1&last=ü' },
      }
      await metadata.putDocument('key\u0000 with anything', { ...document, storedAt: 6 })
      await metadata.putDocument('key\u0000 with anything', document)
      const found = await metadata.getDocument('key\u0000 with anything')
      expect(found && { ...found, bytes: Buffer.from(found.bytes) }).toEqual(document)
      expect(await metadata.getDocument('key')).toBeUndefined()
    })
  })
}
