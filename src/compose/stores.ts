import { join } from 'node:path'
import type { Clock } from '../clock.ts'
import type { Config } from '../config/config.ts'
import type { Log } from '../log/log.ts'
import type { Observer } from '../log/observer.ts'
import type { BlobCatalog, Catalog } from '../store/catalog.ts'
import { type EmbeddedStores, openEmbeddedStores } from '../store/embedded.ts'
import type { Leases } from '../store/leases.ts'
import { LocalLeases } from '../store/local-leases.ts'
import type { Questions } from '../store/questions.ts'
import { collectLessOften } from './memory.ts'
import { PassingBlobs } from '../store/passing-blobs.ts'
import type { RedisState } from '../store/redis-connection.ts'
import type { S3SharedBlobs } from '../store/s3-blobs.ts'
import type { BlobLinks, BlobStore, MetadataStore, SharedBlobs, Spool, StorageUsage } from '../store/stores.ts'
import type { Totals } from '../store/totals.ts'
import { tracedCalls } from '../tracing/traced-calls.ts'
import type { Tracer } from '../tracing/tracer.ts'

export type StoresOptions = {
  readonly config: Config
  readonly clock: Clock
  readonly observer: Observer
  readonly log: Log
  readonly tracer: Tracer
}

/** What the configuration asks for: all of it on this disk, or a bucket in place of much of the blobs, or Redis in place of the records, or both. */
export type Stores = {
  readonly blobs: BlobStore
  readonly spool: Spool
  readonly metadata: MetadataStore
  readonly shared: SharedBlobs | undefined
  /** Undefined: clients are sent nowhere. */
  readonly links: BlobLinks | undefined
  readonly leases: Leases
  readonly totals: Totals
  /** Undefined: no other replica would tell. */
  readonly questions: Questions | undefined
  /** What is known here, and what lies on this disk, for the status page. */
  readonly catalog: Catalog
  readonly blobCatalog: BlobCatalog
  usage(): StorageUsage
  /** Undefined: there is no Redis. */
  redis(): RedisState | undefined
  /** Nothing may use them any more. Safe to repeat. */
  close(): Promise<void>
}

/** Rejects when the data directory cannot be used. A Redis or a bucket that is away is a matter of the pulls, not of the start (F-55, F-59). */
export async function openStores(options: StoresOptions): Promise<Stores> {
  const { config, clock, observer, log } = options
  if (config.s3 || config.redis) collectLessOften()
  let bucket: S3SharedBlobs | undefined
  const embedded = await openEmbeddedStores({
    dataDir: config.dataDir,
    maxBytes: budgetOf(config),
    clock,
    observer,
    isPinned: digest => bucket?.isPending(digest) ?? false,
  })
  const closing: (() => Promise<void> | void)[] = [() => embedded.close()]
  const close = async (): Promise<void> => {
    for (const part of closing.splice(0).toReversed()) await part()
  }
  try {
    if (config.s3) {
      const { openS3Blobs } = await importBucket()
      const queueDir = join(config.dataDir, 'uploads')
      bucket = await openS3Blobs({
        config: config.s3,
        local: embedded.blobs,
        existing: embedded,
        queueDir,
        clock,
        observer,
        log,
      })
      closing.push(() => bucket?.close())
    }
    const { metadata, leases, questions, totals, state, catalog } = config.redis
      ? await openRedis(options, closing)
      : local(embedded, clock)
    const records = bucket ? await archived({ metadata, bucket, options, closing }) : metadata
    return {
      blobs: bucket && config.hotTier?.maxBytes === 0 ? passing(embedded, bucket, observer, closing) : embedded.blobs,
      spool: embedded.spool,
      metadata: records,
      shared: bucket && tracedCalls<SharedBlobs>(options.tracer, bucket, 's3', ['size', 'open', 'delete']),
      links: config.s3?.redirect && bucket,
      leases,
      totals,
      questions,
      catalog,
      blobCatalog: embedded.catalog,
      usage: () => embedded.usage(),
      redis: state,
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

// Their clients take memory and time to start, and most installations have neither: they are loaded where they are used.
async function importRedis() {
  return {
    ...(await import('../store/redis-client.ts')),
    ...(await import('../store/redis-catalog.ts')),
    ...(await import('../store/redis-connection.ts')),
    ...(await import('../store/redis-leases.ts')),
    ...(await import('../store/redis-metadata.ts')),
    ...(await import('../store/redis-totals.ts')),
    ...(await import('../store/redis-questions.ts')),
  }
}

async function importBucket() {
  return {
    ...(await import('../store/s3-blobs.ts')),
    ...(await import('../store/s3-archive.ts')),
    ...(await import('../store/archived-metadata.ts')),
  }
}

/** Running downloads and uploads that wait need room also where nothing else is to be kept. */
function budgetOf({ s3, hotTier, storage }: Config): number {
  return s3 && hotTier && hotTier.maxBytes > 0 ? hotTier.maxBytes : storage.maxBytes
}

type Records = {
  readonly metadata: MetadataStore
  readonly leases: Leases
  readonly totals: Totals
  readonly questions: Questions | undefined
  readonly catalog: Catalog
  readonly state: () => RedisState | undefined
}

const local = ({ metadata, totals, catalog }: EmbeddedStores, clock: Clock): Records => ({
  metadata,
  totals,
  catalog,
  leases: new LocalLeases({ clock }),
  questions: undefined,
  state: () => undefined,
})

async function openRedis(
  { config: { redis: config }, clock, observer, log, tracer }: StoresOptions,
  closing: (() => Promise<void> | void)[],
): Promise<Records> {
  if (!config) throw new Error('no Redis is configured')
  const { RedisCatalog, RedisConnection, RedisLeases, RedisQuestions, RedisTotals, openRedisMetadata, patienceMs } =
    await importRedis()
  const connection = new RedisConnection({ config, observer, log })
  closing.push(() => connection.close())
  const metadata = await openRedisMetadata({ config, clock, observer, log, connection })
  closing.push(() => metadata.close())
  const leases = new RedisLeases({ connection, keyPrefix: config.keyPrefix, patienceMs: patienceMs(config) })
  const questions = new RedisQuestions({ connection, keyPrefix: config.keyPrefix })
  const totals = new RedisTotals({ connection, keyPrefix: config.keyPrefix, clock })
  const catalog = new RedisCatalog({ connection, keyPrefix: config.keyPrefix, clock })
  return {
    metadata: tracedCalls<MetadataStore>(tracer, metadata, 'redis', recordCalls),
    leases: tracedCalls<Leases>(tracer, leases, 'redis', ['acquire']),
    questions: tracedCalls<Questions>(tracer, questions, 'redis', ['take']),
    totals,
    catalog,
    state: () => connection.state(),
  }
}

/** Each is one round trip, or some at once. */
const recordCalls = [
  'getManifest',
  'putManifest',
  'deleteManifest',
  'getTag',
  'putTag',
  'deleteTag',
  'knownTags',
  'getLink',
  'putLinks',
  'deleteLink',
  'isConfirmedAt',
  'getDocument',
  'putDocument',
] as const

/** Records that outlive Redis and this disk, because they rest in the bucket too. */
async function archived({
  metadata,
  bucket,
  options: { config, clock, observer, tracer },
  closing,
}: {
  readonly metadata: MetadataStore
  readonly bucket: S3SharedBlobs
  readonly options: StoresOptions
  readonly closing: (() => Promise<void> | void)[]
}): Promise<MetadataStore> {
  if (!config.s3) return metadata
  const { openS3Archive, archivedMetadata } = await importBucket()
  const absentIs403 = (): boolean => bucket.abilities().absentIs403
  const archive = openS3Archive({ config: config.s3, clock, observer, absentIs403 })
  const found = tracedCalls(tracer, archive, 's3', ['get', 'has', 'list'])
  const both = archivedMetadata({ metadata, archive: found, clock, observer })
  closing.push(() => both.close())
  return both
}

function passing(
  { blobs }: EmbeddedStores,
  bucket: S3SharedBlobs,
  observer: Observer,
  closing: (() => Promise<void> | void)[],
): BlobStore {
  const through = new PassingBlobs({
    blobs,
    isNeeded: digest => bucket.isPending(digest),
    failed: error => observer.storeFailed('delete', error),
  })
  closing.push(() => through.close())
  return through
}
