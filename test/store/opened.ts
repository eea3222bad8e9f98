import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { onTestFinished } from 'vitest'
import type { Clock } from '../../src/clock.ts'
import { silentObserver, type Observer } from '../../src/log/observer.ts'
import { digestOf, type Algorithm, type Digest } from '../../src/oci/digest.ts'
import { openEmbeddedStores, type EmbeddedStores } from '../../src/store/embedded.ts'
import type { RecordLimits } from '../../src/store/record-limits.ts'
import type { BlobStore, RandomAccess, Spool } from '../../src/store/stores.ts'

/** Time that goes on by one millisecond whenever it is asked, so that uses have an order. */
export class TickingClock implements Clock {
  #now = 1_700_000_000_000

  now(): number {
    this.#now += 1
    return this.#now
  }

  monotonic(): number {
    return this.now()
  }
}

/** Remembers what the stores told about their work. */
export function recordingObserver() {
  const failures: { readonly operation: string; readonly error: unknown }[] = []
  const evictions: { readonly blobs: number; readonly bytes: number }[] = []
  const observer: Observer = {
    ...silentObserver,
    storeFailed: (operation, error) => void failures.push({ operation, error }),
    evicted: (blobs, bytes) => void evictions.push({ blobs, bytes }),
  }
  return { observer, failures, evictions }
}

/** A directory that is removed when the test ends. */
export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'layover-store-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

export type Opening = {
  readonly dataDir?: string
  readonly maxBytes?: number
  readonly observer?: Observer
  readonly clock?: Clock
  readonly recordLimits?: RecordLimits
}

/** Embedded stores that are closed when the test ends. */
export async function opened(options: Opening = {}): Promise<EmbeddedStores & { readonly dataDir: string }> {
  const dataDir = options.dataDir ?? temporaryDirectory()
  const stores = await openEmbeddedStores({
    dataDir,
    maxBytes: options.maxBytes ?? 64 * 1024 * 1024,
    clock: options.clock ?? new TickingClock(),
    observer: options.observer ?? silentObserver,
    ...(options.recordLimits && { recordLimits: options.recordLimits }),
  })
  onTestFinished(() => stores.close())
  return { ...stores, dataDir }
}

/** Bytes that look random and are the same for the same seed. */
export function content(seed: number | string, size: number): Buffer {
  const block = createHash('sha512').update(String(seed)).digest()
  return Buffer.alloc(size, block)
}

/** Spools and publishes `bytes` as a download would. */
export async function publish(
  stores: { readonly blobs: BlobStore; readonly spool: Spool },
  bytes: Uint8Array,
  algorithm: Algorithm = 'sha256',
): Promise<Digest> {
  const digest = digestOf(bytes, algorithm)
  const file = await stores.spool.create(bytes.byteLength)
  if (file === undefined) throw new Error(`no room for ${bytes.byteLength} bytes`)
  try {
    await file.write([bytes], 0)
    await stores.blobs.publish(digest, bytes.byteLength, file)
  } finally {
    await file.close()
  }
  return digest
}

/** Everything from 0 to the end, in reads of odd sizes. */
export async function readAll(file: RandomAccess, step = 10_007): Promise<Buffer> {
  const parts: Buffer[] = []
  for (let position = 0; ; ) {
    const buffer = Buffer.alloc(step)
    const count = await file.read(buffer, position, step)
    if (count === 0) return Buffer.concat(parts)
    parts.push(buffer.subarray(0, count))
    position += count
  }
}

/** What a client would get, or undefined. */
export async function readBlob(blobs: BlobStore, digest: Digest): Promise<Buffer | undefined> {
  const blob = await blobs.open(digest)
  if (blob === undefined) return undefined
  try {
    return await readAll(blob)
  } finally {
    await blob.close()
  }
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}

export type FoundFile = { readonly digest: string; readonly size: number; readonly whole: boolean }

/** Every file that is visible under a digest, with whether it hashes to its name. */
export function blobFiles(dataDir: string): readonly FoundFile[] {
  return readdirSync(join(dataDir, 'blobs'), { recursive: true, encoding: 'utf8' })
    .filter(name => statSync(join(dataDir, 'blobs', name)).isFile())
    .map(name => {
      const [algorithm = '', , hex = ''] = name.split('/')
      const bytes = readFileSync(join(dataDir, 'blobs', name))
      const whole = createHash(algorithm).update(bytes).digest('hex') === hex
      return { digest: `${algorithm}:${hex}`, size: bytes.byteLength, whole }
    })
    .sort((a, b) => a.digest.localeCompare(b.digest))
}

/** The index as another process sees it. */
export function rowsOf(dataDir: string, sql: string): readonly Record<string, unknown>[] {
  const database = new DatabaseSync(join(dataDir, 'index.sqlite'))
  try {
    return database.prepare(sql).all()
  } finally {
    database.close()
  }
}
