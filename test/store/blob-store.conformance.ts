import { describe, expect, it, onTestFinished } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import type { BlobStore, Spool } from '../../src/store/stores.ts'
import { content, publish, readAll, readBlob } from './opened.ts'

export type BlobStoreUnderTest = { readonly blobs: BlobStore; readonly spool: Spool; close(): Promise<void> }

/** What every BlobStore and its Spool must do. `open` gives an empty store with room for at least 16 MiB. */
export function describeBlobStore(name: string, open: () => Promise<BlobStoreUnderTest>): void {
  const fresh = async (): Promise<BlobStoreUnderTest> => {
    const stores = await open()
    onTestFinished(() => stores.close())
    return stores
  }

  describe(`${name} as a BlobStore`, () => {
    it('knows nothing of a blob that was never published', async () => {
      const { blobs } = await fresh()
      const digest = digestOf(content('never', 10))
      expect(await blobs.open(digest)).toBeUndefined()
      expect(await blobs.size(digest)).toBeUndefined()
      await blobs.delete(digest)
    })

    it('gives back exactly the bytes that were published', async () => {
      const stores = await fresh()
      const bytes = content('exact', 1_000_003)
      const digest = await publish(stores, bytes)
      expect(await stores.blobs.size(digest)).toBe(bytes.byteLength)
      expect((await readBlob(stores.blobs, digest))?.equals(bytes)).toBe(true)
    })

    it('keeps a blob of no bytes', async () => {
      const stores = await fresh()
      const digest = await publish(stores, Buffer.alloc(0))
      expect(await stores.blobs.size(digest)).toBe(0)
      expect(await readBlob(stores.blobs, digest)).toHaveLength(0)
    })

    it('T-27: keeps sha256 and sha512 of the same bytes apart', async () => {
      const stores = await fresh()
      const bytes = content('both', 1000)
      const long = await publish(stores, bytes, 'sha512')
      expect(await stores.blobs.size(digestOf(bytes))).toBeUndefined()
      expect((await readBlob(stores.blobs, long))?.equals(bytes)).toBe(true)
    })

    it('reads at any position, and 0 bytes at the end and beyond', async () => {
      const stores = await fresh()
      const bytes = content('positions', 5000)
      const blob = await stores.blobs.open(await publish(stores, bytes))
      const buffer = Buffer.alloc(100)
      expect(await blob?.read(buffer, 4950, 100)).toBe(50)
      expect(buffer.subarray(0, 50).equals(bytes.subarray(4950))).toBe(true)
      expect(await blob?.read(buffer, 5000, 100)).toBe(0)
      expect(await blob?.read(buffer, 9000, 100)).toBe(0)
      await blob?.close()
    })

    it('shows nothing of a blob before it is published', async () => {
      const { blobs, spool } = await fresh()
      const bytes = content('early', 3000)
      const file = await spool.create(bytes.byteLength)
      await file?.write([bytes], 0)
      expect(await blobs.open(digestOf(bytes))).toBeUndefined()
      expect(await blobs.size(digestOf(bytes))).toBeUndefined()
      await file?.discard()
      await file?.close()
      expect(await blobs.open(digestOf(bytes))).toBeUndefined()
    })

    it('refuses to publish a file of another size, and shows nothing then', async () => {
      const { blobs, spool } = await fresh()
      const bytes = content('short', 3000)
      const file = await spool.create(4000)
      if (file === undefined) throw new Error('no room')
      await file.write([bytes], 0)
      await expect(blobs.publish(digestOf(bytes), 4000, file)).rejects.toThrow(/3000 bytes, not 4000/)
      expect(await blobs.size(digestOf(bytes))).toBeUndefined()
      await file.close()
    })

    it('is content when a blob is published again', async () => {
      const stores = await fresh()
      const bytes = content('again', 2000)
      const digest = await publish(stores, bytes)
      expect(await publish(stores, bytes)).toBe(digest)
      expect((await readBlob(stores.blobs, digest))?.equals(bytes)).toBe(true)
    })

    it('T-28: lets two publish one blob at once; both succeed and the bytes are whole', async () => {
      const stores = await fresh()
      const bytes = content('race', 200_000)
      const digests = await Promise.all([1, 2, 3, 4].map(() => publish(stores, bytes)))
      expect(new Set(digests).size).toBe(1)
      expect((await readBlob(stores.blobs, digestOf(bytes)))?.equals(bytes)).toBe(true)
    })

    it('F-21: an open blob stays readable after it was deleted; who comes later finds nothing', async () => {
      const stores = await fresh()
      const bytes = content('deleted', 300_000)
      const digest = await publish(stores, bytes)
      const blob = await stores.blobs.open(digest)
      if (blob === undefined) throw new Error('it was published')
      await stores.blobs.delete(digest)
      expect(await stores.blobs.open(digest)).toBeUndefined()
      expect(await stores.blobs.size(digest)).toBeUndefined()
      expect((await readAll(blob)).equals(bytes)).toBe(true)
      await blob.close()
    })

    it('can be published again after it was deleted, while the old one is still read', async () => {
      const stores = await fresh()
      const bytes = content('reborn', 50_000)
      const digest = await publish(stores, bytes)
      const old = await stores.blobs.open(digest)
      await stores.blobs.delete(digest)
      await publish(stores, bytes)
      expect((await readBlob(stores.blobs, digest))?.equals(bytes)).toBe(true)
      await old?.close()
      expect((await readBlob(stores.blobs, digest))?.equals(bytes)).toBe(true)
    })

    it('serves many readers of one blob at once, each closing when it likes', async () => {
      const stores = await fresh()
      const bytes = content('many', 100_000)
      const digest = await publish(stores, bytes)
      const whole = await Promise.all(
        Array.from({ length: 50 }, async () => (await readBlob(stores.blobs, digest))?.equals(bytes)),
      )
      expect(new Set(whole)).toEqual(new Set([true]))
    })

    it('refuses to read for a reader that has closed, and lets it close twice', async () => {
      const stores = await fresh()
      const digest = await publish(stores, content('closed', 100))
      const [one, other] = [await stores.blobs.open(digest), await stores.blobs.open(digest)]
      await one?.close()
      await one?.close()
      await expect(one?.read(Buffer.alloc(10), 0, 10)).rejects.toThrow(/closed/)
      expect(await other?.read(Buffer.alloc(10), 0, 10)).toBe(10)
      await other?.close()
    })
  })

  describe(`${name} as a Spool`, () => {
    it('writes lists of chunks, empty ones too, and reads what was written while more comes', async () => {
      const { spool } = await fresh()
      const file = await spool.create(undefined)
      if (file === undefined) throw new Error('no room')
      const bytes = content('chunks', 600_000)
      for (let at = 0; at < bytes.byteLength; at += 100_000) {
        const part = bytes.subarray(at, at + 100_000)
        await file.write([part.subarray(0, 1), Buffer.alloc(0), part.subarray(1)], at)
        const buffer = Buffer.alloc(100_000)
        expect(await file.read(buffer, at, buffer.byteLength)).toBe(part.byteLength)
        expect(buffer.equals(part)).toBe(true)
      }
      await file.write([], bytes.byteLength)
      expect((await readAll(file)).equals(bytes)).toBe(true)
      await file.close()
    })

    it('stays readable after publish until it is closed, and discard does nothing then', async () => {
      const { blobs, spool } = await fresh()
      const bytes = content('handed over', 70_000)
      const file = await spool.create(bytes.byteLength)
      if (file === undefined) throw new Error('no room')
      await file.write([bytes], 0)
      await blobs.publish(digestOf(bytes), bytes.byteLength, file)
      await file.discard()
      expect((await readAll(file)).equals(bytes)).toBe(true)
      await file.close()
      expect((await readBlob(blobs, digestOf(bytes)))?.equals(bytes)).toBe(true)
    })

    it('stays readable after discard until it is closed', async () => {
      const { spool } = await fresh()
      const bytes = content('discarded', 70_000)
      const file = await spool.create(bytes.byteLength)
      if (file === undefined) throw new Error('no room')
      await file.write([bytes], 0)
      await file.discard()
      await file.discard()
      expect((await readAll(file)).equals(bytes)).toBe(true)
      await expect(file.write([bytes], 70_000)).rejects.toThrow(/discarded/)
      await file.close()
    })

    it('gives every file a name of its own', async () => {
      const { spool } = await fresh()
      const files = await Promise.all([1, 2, 3].map(() => spool.create(10)))
      expect(new Set(files.map(file => file?.path)).size).toBe(3)
      await Promise.all(files.map(async file => file?.close()))
    })
  })
}
