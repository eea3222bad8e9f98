import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { Blobs, type BlobsDeps, type OpenedBlob } from '../../src/cache/blobs.ts'
import { createRights } from '../../src/cache/rights.ts'
import { systemClock } from '../../src/clock.ts'
import type { FillConfig } from '../../src/config/config.ts'
import { type ContentRejected, type Observer, silentObserver } from '../../src/log/observer.ts'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import type { ByteRange } from '../../src/oci/range.ts'
import type { Target } from '../../src/routing/target.ts'
import { type EmbeddedStores, openEmbeddedStores } from '../../src/store/embedded.ts'
import type { Upstream } from '../../src/upstream/upstream.ts'
import { PuppetUpstream } from '../fakes/puppet-upstream.ts'

export const defaultFills: FillConfig = {
  finishWithinBytes: 0,
  finishFromShare: 2,
  abandonMs: 0,
  nearBytes: 1024 * 1024,
  maxSideReads: 4,
  maxAttempts: 3,
  earlyRanges: false,
}

export function targetOf(repository: string, upstream = 'puppet.test'): Target {
  return { upstream, repository, requestedRepository: repository, basePath: `/v2/${repository}`, ns: undefined }
}

export const target = targetOf('library/app')

/** Bytes that look random and are the same every time. */
export function bytesOf(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length)
  let state = seed >>> 0 || 1
  for (let index = 0; index < length; index++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[index] = state & 0xff
  }
  return bytes
}

export type Setup = {
  blobs: Blobs
  upstream: PuppetUpstream
  stores: EmbeddedStores
  dataDir: string
  /** `outcome` or `outcome:reason` of each download that ended, in order. */
  ends: string[]
  storeFailures: string[]
  /** What was told of content that was refused. */
  rejected: ContentRejected[]
}

/** Blobs on real stores in a directory of its own, above an upstream in the test's hands. */
export async function setUp(
  options: {
    fills?: Partial<FillConfig>
    sources?: number
    maxBytes?: number
    wrap?: (deps: BlobsDeps) => Partial<BlobsDeps>
    upstreams?: Upstream[]
    offline?: boolean
  } = {},
): Promise<Setup> {
  const dataDir = await mkdtemp(join(tmpdir(), 'layover-blobs-'))
  const ends: string[] = []
  const storeFailures: string[] = []
  const rejected: ContentRejected[] = []
  const observer: Observer = {
    ...silentObserver,
    fillEnded: event => ends.push(event.reason === undefined ? event.outcome : `${event.outcome}:${event.reason}`),
    storeFailed: operation => storeFailures.push(operation),
    contentRejected: event => rejected.push(event),
  }
  const stores = await openEmbeddedStores({
    dataDir,
    maxBytes: options.maxBytes ?? 64 * 1024 * 1024,
    clock: systemClock,
    observer,
  })
  const upstream = new PuppetUpstream(options.sources ?? 1)
  const upstreams = new Map<string, Upstream>([upstream, ...(options.upstreams ?? [])].map(each => [each.name, each]))
  const offline = options.offline ?? false
  const rights = createRights({
    upstreams,
    metadata: stores.metadata,
    observer,
    offline,
  })
  const deps: BlobsDeps = {
    upstreams,
    store: stores.blobs,
    spool: stores.spool,
    rights,
    fills: { ...defaultFills, ...options.fills },
    clock: systemClock,
    observer,
    offline,
  }
  const blobs: Blobs = new Blobs({ ...deps, ...options.wrap?.(deps) })
  onTestFinished(async () => {
    await blobs.close()
    const wrong = await wrongFiles(dataDir)
    await stores.close()
    await rm(dataDir, { recursive: true, force: true })
    if (wrong.length > 0) throw new Error(`visible files that do not hash to their names: ${wrong.join(', ')}`)
  })
  return { blobs, upstream, stores, dataDir, ends, storeFailures, rejected }
}

/** Every visible file whose bytes are not what its name says. */
export async function wrongFiles(dataDir: string): Promise<string[]> {
  const wrong: string[] = []
  for (const algorithm of ['sha256', 'sha512']) {
    const root = join(dataDir, 'blobs', algorithm)
    const names = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => [])
    for (const entry of names.filter(each => each.isFile())) {
      const bytes = await readFile(join(entry.parentPath, entry.name))
      if (createHash(algorithm).update(bytes).digest('hex') !== entry.name) wrong.push(entry.name)
    }
  }
  return wrong
}

/** Reads a range, or everything, to its end. Rejects with what the reader throws. */
export async function readAll(blob: OpenedBlob, range?: ByteRange): Promise<Buffer> {
  const parts: Buffer[] = []
  const reader = blob.reader(range)
  const own = Buffer.alloc(64 * 1024)
  try {
    for (let position = range?.start ?? 0; range === undefined || position <= range.end; ) {
      const length = range ? range.end - position + 1 : Number.MAX_SAFE_INTEGER
      const bytes = await reader.read(position, length, () => own)
      if (bytes.length === 0) break
      parts.push(Buffer.from(bytes))
      position += bytes.length
    }
  } finally {
    reader.close()
    blob.close()
  }
  return Buffer.concat(parts)
}

/** Reads until an error; gives the bytes that came before it and the error. */
export async function readUntilBroken(blob: OpenedBlob, range?: ByteRange): Promise<{ bytes: number; error: unknown }> {
  const reader = blob.reader(range)
  const own = Buffer.alloc(64 * 1024)
  let position = range?.start ?? 0
  const from = position
  try {
    for (;;) {
      const bytes = await reader.read(position, (range?.end ?? Number.MAX_SAFE_INTEGER - 1) - position + 1, () => own)
      if (bytes.length === 0) throw new Error('the blob came to an end')
      position += bytes.length
    }
  } catch (error) {
    return { bytes: position - from, error }
  } finally {
    reader.close()
    blob.close()
  }
}

export function blobOf(length: number, seed = 1): { bytes: Buffer; digest: Digest } {
  const bytes = bytesOf(length, seed)
  return { bytes, digest: digestOf(bytes) }
}
