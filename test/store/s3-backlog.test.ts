import { randomBytes } from 'node:crypto'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import { keyOf } from '../../src/store/s3-key.ts'
import type { FakeS3 } from '../fakes/s3.ts'
import { opened, publish, temporaryDirectory } from './opened.ts'
import { fakeBucket, openedS3 } from './s3-opened.ts'

const patience = { timeout: 20_000 }

/** A directory with so many blobs in it, as one machine leaves it. */
async function directoryWith(count: number): Promise<{ dataDir: string; digests: Digest[] }> {
  const dataDir = temporaryDirectory()
  const stores = await opened({ dataDir })
  const digests: Digest[] = []
  for (let index = 0; index < count; index++) digests.push(await publish(stores, randomBytes(100 + index)))
  await stores.close()
  return { dataDir, digests }
}

const keysOf = (digests: readonly Digest[]): string[] => digests.map(digest => keyOf('', digest)).sort()
const keysIn = (bucket: FakeS3): string[] => [...bucket.objects.keys()].sort()
/** Requests about blobs; the probe has a random one of its own. */
const about = (bucket: FakeS3, digests: readonly Digest[], since: number): string[] =>
  bucket.seen.slice(since).flatMap(({ method, key }) => (keysOf(digests).includes(key) ? [method] : []))

describe('what was on the disk before there was a bucket', () => {
  it('is uploaded, with a look at the bucket first, and only once', async () => {
    const { dataDir, digests } = await directoryWith(12)
    const bucket = await fakeBucket()
    const first = await openedS3({ config: bucket.config(), dataDir, backlog: true })
    await expect.poll(() => keysIn(bucket), patience).toEqual(keysOf(digests))
    await first.shared.idle()
    await first.close()
    const since = bucket.seen.length
    const second = await openedS3({ config: bucket.config(), dataDir, backlog: true })
    // What is published from now on takes the usual way.
    const fresh = randomBytes(10)
    second.shared.enqueue(await publish(second.stores, fresh), fresh.length)
    await second.shared.idle()
    expect(bucket.objects.has(keyOf('', digestOf(fresh)))).toBe(true)
    expect(about(bucket, digests, since)).toEqual([])
  })

  it('never fills the queue: few wait at a time, and those that are new have their turn', async () => {
    const { dataDir, digests } = await directoryWith(30)
    const bucket = await fakeBucket()
    bucket.break('PUT', { kind: 'status', status: 503, code: 'SlowDown' })
    const { shared, stores } = await openedS3({ config: bucket.config({ uploads: 3 }), dataDir, backlog: true })
    await expect.poll(() => bucket.struck, patience).toBeGreaterThan(3)
    expect(shared.pending().uploads).toBe(3)
    const fresh = randomBytes(10)
    shared.enqueue(await publish(stores, fresh), fresh.length)
    expect(shared.pending().uploads).toBe(4)
    bucket.heal()
    await expect.poll(() => keysIn(bucket), patience).toEqual(keysOf([...digests, digestOf(fresh)]))
  })

  it('goes on after a restart, and leaves out none', async () => {
    const { dataDir, digests } = await directoryWith(450)
    const bucket = await fakeBucket()
    const first = await openedS3({ config: bucket.config(), dataDir, backlog: true })
    await expect.poll(() => bucket.objects.size, patience).toBeGreaterThan(210)
    await first.close()
    const since = bucket.seen.length
    expect(bucket.objects.size).toBeLessThan(450)
    await openedS3({ config: bucket.config(), dataDir, backlog: true })
    await expect.poll(() => keysIn(bucket), patience).toEqual(keysOf(digests))
    // A page or two are looked at again, not all.
    expect(about(bucket, digests, since).filter(method => method === 'HEAD').length).toBeLessThan(450)
  })

  it('is found again first when the index was lost', async () => {
    const { dataDir, digests } = await directoryWith(5)
    for (const name of readdirSync(dataDir).filter(each => each.startsWith('index.sqlite'))) rmSync(join(dataDir, name))
    const bucket = await fakeBucket()
    await openedS3({ config: bucket.config(), dataDir, backlog: true })
    await expect.poll(() => keysIn(bucket), patience).toEqual(keysOf(digests))
  })

  it('goes to another bucket as a whole', async () => {
    const { dataDir, digests } = await directoryWith(3)
    for (const bucket of [await fakeBucket(), await fakeBucket()]) {
      const { shared, close } = await openedS3({ config: bucket.config(), dataDir, backlog: true })
      await expect.poll(() => keysIn(bucket), patience).toEqual(keysOf(digests))
      await shared.idle()
      await close()
    }
  })

  it('a blob that is damaged on disk, or gone, holds up no other', async () => {
    const { dataDir, digests } = await directoryWith(5)
    const bucket = await fakeBucket()
    const [lost = digests[0], ...others] = digests
    const { stores, close } = await openedS3({ config: bucket.config({ uploads: 1 }), dataDir, backlog: true })
    if (lost) await stores.blobs.delete(lost)
    await expect.poll(() => others.every(digest => bucket.objects.has(keyOf('', digest))), patience).toBe(true)
    await close()
  })
})
