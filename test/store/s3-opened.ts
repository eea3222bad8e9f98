import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import type { S3Config } from '../../src/config/config.ts'
import type { Digest } from '../../src/oci/digest.ts'
import type { Wait } from '../../src/store/hedged.ts'
import { openEmbeddedStores } from '../../src/store/embedded.ts'
import { openS3Blobs, type S3SharedBlobs } from '../../src/store/s3-blobs.ts'
import { digestOfKey } from '../../src/store/s3-key.ts'
import { FakeClock } from '../fakes/clock.ts'
import { accessKeyId, FakeS3, type S3Options, secretAccessKey } from '../fakes/s3.ts'
import { recordingObserver, temporaryDirectory, TickingClock } from './opened.ts'

/** Credentials as the default chain finds them first. */
export function useCredentials(id: string, secret: string): void {
  process.env.AWS_ACCESS_KEY_ID = id
  process.env.AWS_SECRET_ACCESS_KEY = secret
}

/** A fake bucket that ends with the test; at its end everything in it hashes to its key. */
export async function fakeBucket(options: S3Options = {}, prefix = ''): Promise<FakeS3> {
  useCredentials(accessKeyId, secretAccessKey)
  const bucket = await FakeS3.start(options)
  onTestFinished(async () => {
    await bucket.stop()
    expectHonestKeys(
      [...bucket.objects].map(([key, { bytes }]) => ({ key, bytes })),
      prefix,
    )
  })
  return bucket
}

/** Every object lies under the digest of its bytes. */
export function expectHonestKeys(
  objects: readonly { readonly key: string; readonly bytes: Uint8Array }[],
  prefix: string,
): void {
  const wrong = objects.filter(({ key, bytes }) => {
    const digest = digestOfKey(prefix, key)
    const [algorithm = 'sha256'] = digest?.split(':') ?? []
    return digest !== `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`
  })
  expect(wrong.map(({ key }) => key)).toEqual([])
}

export type S3Opening = {
  readonly config: S3Config
  readonly dataDir?: string
  /** How far the clock is ahead of its usual start. */
  readonly aheadMs?: number
  readonly maxBytes?: number
  readonly maxPending?: number
  /** Uploads what is in the directory already. */
  readonly backlog?: boolean
  /** How time passes while the bucket does not answer. */
  readonly wait?: Wait
  readonly pauses?: { readonly firstMs: number; readonly longestMs: number }
}

/** A hot tier and the bucket behind it, closed when the test ends. */
export async function openedS3(opening: S3Opening) {
  const { config, dataDir = temporaryDirectory(), maxBytes = 64 * 1024 * 1024, maxPending } = opening
  const clock = new FakeClock()
  clock.advance(opening.aheadMs ?? 0)
  const { observer, failures, evictions } = recordingObserver()
  const requests: string[] = []
  const bytes = { read: 0, uploaded: 0 }
  const all = {
    ...observer,
    sharedRequest: (operation: string, outcome: string) => void requests.push(`${operation} ${outcome}`),
    sharedBytes: (direction: 'read' | 'uploaded', count: number) => {
      bytes[direction] += count
    },
  }
  let pinned: ((digest: Digest) => boolean) | undefined
  const stores = await openEmbeddedStores({
    dataDir,
    maxBytes,
    clock: new TickingClock(),
    observer: all,
    isPinned: digest => pinned?.(digest) ?? false,
  })
  const shared = await openS3Blobs({
    config,
    local: stores.blobs,
    ...(opening.backlog === true && { existing: stores }),
    queueDir: join(dataDir, 'uploads'),
    clock,
    observer: all,
    pauses: opening.pauses ?? { firstMs: 5, longestMs: 20 },
    ...(maxPending !== undefined && { maxPending }),
    ...(opening.wait && { wait: opening.wait }),
  })
  pinned = digest => shared.isPending(digest)
  const close = async (): Promise<void> => {
    await shared.close()
    await stores.close()
  }
  onTestFinished(close)
  return { stores, shared, clock, failures, evictions, requests, bytes, dataDir, close }
}

/** What `open` gives, in one piece. */
export async function readShared(
  shared: S3SharedBlobs,
  digest: Digest,
  range: { readonly offset: number; readonly end?: number; readonly signal?: AbortSignal } = { offset: 0 },
): Promise<Buffer | undefined> {
  const blob = await shared.open(digest, range)
  if (blob === undefined) return undefined
  const chunks: Buffer[] = []
  for await (const chunk of blob.body) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}
