import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import { openS3Blobs } from '../../src/store/s3-blobs.ts'
import type { BlobStore } from '../../src/store/stores.ts'
import { FakeClock } from '../fakes/clock.ts'
import { recordingObserver, temporaryDirectory } from './opened.ts'
import { fakeBucket } from './s3-opened.ts'

const mebibyte = 1024 * 1024

it.each([
  { name: 'one request', multipartBytes: 1024 * mebibyte },
  { name: 'parts', multipartBytes: 5 * mebibyte },
])('F-36: a local file that is cut while it is uploaded in $name is removed, and ends nothing else', async one => {
  const uncaught: unknown[] = []
  const onUncaught = (error: unknown): void => void uncaught.push(error)
  process.on('uncaughtExceptionMonitor', onUncaught)
  onTestFinished(() => void process.off('uncaughtExceptionMonitor', onUncaught))
  const bucket = await fakeBucket()
  const bytes = randomBytes(12 * mebibyte)
  const digest = digestOf(bytes)
  const deleted: Digest[] = []
  const { observer, failures } = recordingObserver()
  const shared = await openS3Blobs({
    config: bucket.config({ multipartBytes: one.multipartBytes }),
    local: cutAt(bytes, 6 * mebibyte, deleted),
    queueDir: join(temporaryDirectory(), 'uploads'),
    clock: new FakeClock(),
    observer,
    pauses: { firstMs: 5, longestMs: 20 },
  })
  onTestFinished(() => shared.close())
  shared.enqueue(digest, bytes.length)
  await shared.idle()
  expect(uncaught).toEqual([])
  expect(bucket.objects.size).toBe(0)
  expect(failures.map(({ operation }) => operation)).toEqual(['s3.upload_corrupt'])
  expect(deleted).toEqual([digest])
})

/** A store whose file was whole when it was opened, and ends at `end` when it is read. */
function cutAt(bytes: Buffer, end: number, deleted: Digest[]): BlobStore {
  return {
    open: async () => ({
      size: bytes.length,
      read: async (buffer, position, length) =>
        position >= end ? 0 : bytes.copy(buffer, 0, position, Math.min(position + length, end)),
      close: async () => undefined,
    }),
    size: async () => bytes.length,
    publish: async () => undefined,
    delete: async digest => void deleted.push(digest),
  }
}
