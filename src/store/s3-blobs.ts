import { once } from 'node:events'
import { DeleteObjectCommand, HeadObjectCommand } from '@aws-sdk/client-s3'
import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { S3Config } from '../config/config.ts'
import type { Log } from '../log/log.ts'
import type { Observer } from '../log/observer.ts'
import type { Digest } from '../oci/digest.ts'
import type { Wait } from './hedged.ts'
import { type BlobPages, S3Backlog } from './s3-backlog.ts'
import { S3Breaker } from './s3-breaker.ts'
import { createS3Client, request, type S3Api } from './s3-client.ts'
import { S3Error } from './s3-error.ts'
import { keyOf } from './s3-key.ts'
import { endLeftovers } from './s3-leftovers.ts'
import { S3Links } from './s3-links.ts'
import { S3Presence } from './s3-presence.ts'
import { assumedAbilities, type BucketAbilities, probeBucket } from './s3-probe.ts'
import { type PendingUpload, S3Queue } from './s3-queue.ts'
import { S3Reader } from './s3-reader.ts'
import { saysOtherwise } from './s3-object.ts'
import { upload, type UploadOutcome } from './s3-upload.ts'
import { type Pauses, S3Uploader } from './s3-uploader.ts'
import { within } from './within.ts'
import type { BlobLink, BlobLinks, BlobStore, SharedBlob, SharedBlobs } from './stores.ts'

/** A client may wait for it, and can be served from elsewhere. */
const headTimeoutMs = 2_000
const deleteTimeoutMs = 5_000
/** A client that could be redirected waits no longer than this to learn whether it is: it can be served at once without. */
const linkWaitMs = 1_000
/** Nobody can look after a client that was sent away, so what it is sent to was seen lately: another replica may have deleted it. */
const linkPresenceMs = 30_000
const defaultPauses: Pauses = { firstMs: 500, longestMs: 60_000 }
/** Names of pending uploads cost little; beyond that the bucket has been away for days and the disk has evicted most of them. */
const defaultMaxPending = 100_000

export type S3BlobsOptions = {
  readonly config: S3Config
  /** The hot tier: where uploads come from. */
  readonly local: BlobStore
  /** A directory of this replica alone, where pending uploads are remembered; created when missing. */
  readonly queueDir: string
  readonly clock: Clock
  readonly observer: Observer
  readonly log?: Log
  /** What lies in the hot tier, once it is known: what of it is not in the bucket is uploaded, once. */
  readonly existing?: { settled(): Promise<void>; readonly page: BlobPages }
  readonly maxPending?: number
  readonly pauses?: Pauses
  /** How time passes while the bucket does not answer. */
  readonly wait?: Wait
}

/** {@link SharedBlobs} in a bucket, with what only those who put things together need. */
export interface S3SharedBlobs extends SharedBlobs, BlobLinks {
  /** True while the blob still has to be uploaded: hand it to the hot tier, which then evicts it last. */
  isPending(digest: Digest): boolean
  /** What the bucket can do, as far as it was found out. */
  abilities(): BucketAbilities
  /** Resolves when no upload waits or runs. */
  idle(): Promise<void>
}

/**
 * Opens the blobs of a bucket. Never waits for the bucket and never fails because of it: the probe of what it can do, the end of leftover multipart uploads
 * and what an earlier process left to upload are taken up in the background. Rejects when the queue's directory cannot be read.
 */
export async function openS3Blobs(options: S3BlobsOptions): Promise<S3SharedBlobs> {
  const queue = new S3Queue(options.queueDir)
  const { pending, multiparts } = await queue.load()
  const blobs = new S3Blobs(options, queue)
  blobs.resume(pending)
  blobs.tidy(multiparts)
  blobs.takeUpBacklog()
  return blobs
}

class S3Blobs implements S3SharedBlobs {
  readonly #options: S3BlobsOptions
  readonly #api: S3Api
  readonly #queue: S3Queue
  readonly #reader: S3Reader
  readonly #uploader: S3Uploader
  readonly #breaker: S3Breaker
  readonly #presence: S3Presence
  readonly #links: S3Links | undefined
  readonly #backlog: S3Backlog | undefined
  readonly #heads = new Map<Digest, Promise<number | undefined>>()
  /** Those that could not be deleted when they were to be: their next upload overwrites them, whatever size they have. */
  readonly #distrusted = new LRUCache<Digest, true>({ max: 10_000 })
  readonly #closing = new AbortController()
  readonly #background = new Set<Promise<void>>()
  #abilities: BucketAbilities | undefined
  #probing: Promise<BucketAbilities> | undefined
  #closed: Promise<void> | undefined

  constructor(options: S3BlobsOptions, queue: S3Queue) {
    const { config, clock, observer } = options
    this.#options = options
    this.#queue = queue
    this.#api = { client: createS3Client(config), config, observer }
    this.#breaker = new S3Breaker(clock)
    this.#reader = new S3Reader({
      api: this.#api,
      clock,
      onBodyFailure: error => this.#breaker.report(error),
      wait: options.wait,
    })
    this.#presence = new S3Presence(clock)
    const { redirect } = config
    this.#links = redirect && new S3Links({ config, redirect, clock, client: this.#api.client })
    const { existing, log } = options
    this.#backlog =
      existing &&
      new S3Backlog({
        directory: options.queueDir,
        config,
        pages: (after, limit) => existing.page(after, limit),
        hasRoom: () => this.#closed === undefined && this.#uploader.pending().uploads < config.uploads,
        add: ({ digest, size }) => this.enqueue(digest, size),
        failed: error => observer.storeFailed('s3.backlog', error),
        log,
      })
    this.#uploader = new S3Uploader({
      queue,
      clock,
      parallel: config.uploads,
      maxPending: options.maxPending ?? defaultMaxPending,
      pauses: options.pauses ?? defaultPauses,
      upload: (digest, signal) => this.#upload(digest, signal),
      done: (upload, outcome) => this.#uploaded(upload, outcome),
      failed: ({ digest }, error, final) => {
        observer.storeFailed(final ? 's3.upload_given_up' : 's3.upload', error)
        if (final) log?.warn({ digest, error }, 'a blob is not uploaded: the bucket refuses it')
      },
      ended: () => this.#backlog?.pump(),
      unsaved: error => observer.storeFailed('s3.queue', error),
    })
  }

  size(digest: Digest, signal?: AbortSignal): Promise<number | undefined> {
    if (signal?.aborted === true)
      return Promise.reject(new S3Error('cancelled', 'the bucket: not asked', signal.reason))
    if (this.#distrusted.has(digest)) return Promise.resolve(undefined)
    const known = this.#presence.get(digest)
    return known === undefined ? this.#look(digest) : Promise.resolve(known.size)
  }

  #look(digest: Digest): Promise<number | undefined> {
    const running = this.#heads.get(digest)
    if (running !== undefined) return running
    // Shared by all who ask meanwhile, so the signal of one of them does not end it; it takes a few seconds at most.
    const head = this.#head(digest).finally(() => this.#heads.delete(digest))
    this.#heads.set(digest, head)
    return head
  }

  async open(
    digest: Digest,
    options: { readonly offset: number; readonly end?: number; readonly signal?: AbortSignal },
  ): Promise<SharedBlob | undefined> {
    const known = this.#presence.get(digest)
    if (known !== undefined && known.size === undefined) return undefined
    // It had wrong bytes and could not be deleted: until it is replaced it is as if it were not there.
    if (this.#distrusted.has(digest)) return undefined
    const blob = await this.#breaker.run(() => this.#reader.open(digest, options, this.abilities().absentIs403))
    this.#presence.set(digest, blob?.size)
    return blob
  }

  async link(digest: Digest): Promise<BlobLink | undefined> {
    if (!this.#links || this.#distrusted.has(digest) || this.isPending(digest)) return undefined
    const seen = this.#presence.get(digest, linkPresenceMs)
    const size = seen ? seen.size : await within(linkWaitMs, this.#look(digest))
    const url = size === undefined ? undefined : await this.#links.urlOf(digest)
    return url === undefined || size === undefined ? undefined : { url, size }
  }

  enqueue(digest: Digest, size: number): void {
    // What was filled from the bucket a moment ago does not go back there.
    if (this.#presence.get(digest)?.size === size && !this.#distrusted.has(digest)) return
    if (this.#closed !== undefined || this.#uploader.add({ digest, size })) return
    this.#options.observer.storeFailed(
      's3.queue_full',
      new Error('the queue of uploads is full: a blob is not uploaded'),
    )
  }

  async delete(digest: Digest): Promise<void> {
    const { client, config } = this.#api
    this.#uploader.cancel(digest)
    this.#presence.forget(digest)
    this.#distrusted.set(digest, true)
    const command = new DeleteObjectCommand({ Bucket: config.bucket, Key: keyOf(config.prefix, digest) })
    await this.#breaker
      .run(() =>
        request(this.#api, { operation: 'delete', timeoutMs: deleteTimeoutMs }, options =>
          client.send(command, options),
        ),
      )
      .catch(undefinedWhenAbsent)
    this.#distrusted.delete(digest)
    this.#presence.forget(digest)
  }

  pending(): { readonly uploads: number; readonly bytes: number } {
    return this.#uploader.pending()
  }

  isPending(digest: Digest): boolean {
    return this.#uploader.isPending(digest)
  }

  abilities(): BucketAbilities {
    return this.#abilities ?? assumedAbilities
  }

  idle(): Promise<void> {
    return this.#uploader.idle()
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  /** Takes up the uploads that an earlier process left. */
  resume(pending: readonly PendingUpload[]): void {
    for (const left of pending) this.#uploader.add(left, { saved: true })
  }

  /** Begins with what was on the disk before there was a bucket, in the background: files whose index was lost are found again first. */
  takeUpBacklog(): void {
    const { existing } = this.#options
    if (!existing || !this.#backlog) return
    const backlog = this.#backlog
    this.#inBackground('s3.backlog', async () => {
      await Promise.race([existing.settled(), once(this.#closing.signal, 'abort')])
      if (!this.#closing.signal.aborted) await backlog.start()
    })
  }

  /** Finds out what the bucket can do and ends what an earlier process began, in the background. */
  tidy(multiparts: Parameters<typeof endLeftovers>[1]): void {
    const { clock } = this.#options
    const signal = this.#closing.signal
    this.#inBackground('s3.probe', async () => void (await this.#probe()))
    this.#inBackground('s3.leftovers', () =>
      endLeftovers({ api: this.#api, queue: this.#queue, clock, signal }, multiparts),
    )
  }

  async #close(): Promise<void> {
    this.#closing.abort()
    await this.#uploader.close()
    await this.#backlog?.close()
    await Promise.allSettled([...this.#background, ...this.#heads.values()])
    await this.#reader.close()
    this.#links?.close()
    this.#api.client.destroy()
  }

  async #head(digest: Digest): Promise<number | undefined> {
    const { client, config } = this.#api
    const { signal } = this.#closing
    const command = new HeadObjectCommand({
      Bucket: config.bucket,
      Key: keyOf(config.prefix, digest),
      ChecksumMode: 'ENABLED',
    })
    const answer = await this.#breaker
      .run(() =>
        request(this.#api, { operation: 'head', timeoutMs: headTimeoutMs, signal }, options =>
          client.send(command, options),
        ).catch((error: unknown) => this.#undefinedWhenForbidden(error)),
      )
      .catch(undefinedWhenAbsent)
    const size = answer && !saysOtherwise(answer, digest) ? answer.ContentLength : undefined
    this.#presence.set(digest, size)
    return size
  }

  #undefinedWhenForbidden(error: unknown): undefined {
    if (error instanceof S3Error && error.reason === 'denied' && this.abilities().absentIs403) return undefined
    throw error
  }

  async #upload(digest: Digest, signal: AbortSignal): Promise<UploadOutcome> {
    const abilities = await this.#probe()
    const replace = this.#distrusted.has(digest)
    const { local } = this.#options
    try {
      return await upload({ api: this.#api, local, queue: this.#queue, abilities, signal }, { digest, replace })
    } catch (error) {
      if (error instanceof S3Error && error.reason === 'unsupported') this.#expectLess(abilities)
      throw error
    }
  }

  /** The endpoint knows less than it said when it was probed, or another one answers now. */
  #expectLess(abilities: BucketAbilities): void {
    this.#abilities = { ...abilities, conditionalPuts: 'refused', checksums: 'refused' }
  }

  #uploaded({ digest, size }: PendingUpload, outcome: UploadOutcome): void {
    const { observer } = this.#options
    if (outcome === 'uploaded') this.#distrusted.delete(digest)
    if (outcome === 'uploaded' || outcome === 'present') this.#presence.set(digest, size)
    if (outcome === 'gone') observer.storeFailed('s3.upload_evicted', new Error('a blob was evicted before its upload'))
    if (outcome === 'corrupt') observer.storeFailed('s3.upload_corrupt', new Error(`${digest} is damaged on disk`))
  }

  async #probe(): Promise<BucketAbilities> {
    if (this.#abilities !== undefined) return this.#abilities
    this.#probing ??= probeBucket({ api: this.#api, signal: this.#closing.signal }).finally(() => {
      this.#probing = undefined
    })
    const abilities = await this.#probing
    this.#abilities ??= abilities
    this.#options.log?.info(this.#abilities, 'the bucket was probed')
    return this.#abilities
  }

  #inBackground(operation: string, work: () => Promise<void>): void {
    const running = work()
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#options.observer.storeFailed(operation, error)
      })
      .finally(() => this.#background.delete(running))
    this.#background.add(running)
  }
}

function undefinedWhenAbsent(error: unknown): undefined {
  if (error instanceof S3Error && error.reason === 'absent') return undefined
  throw error
}
