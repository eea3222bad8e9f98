import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { S3Config } from '../config/config.ts'
import type { Log } from '../log/log.ts'
import { type Digest, isDigest } from '../oci/digest.ts'
import type { PendingUpload } from './s3-queue.ts'

/** What lies on the disk, in the order of digests: those after `after`, at most `limit`. */
export type BlobPages = (after: Digest | undefined, limit: number) => readonly PendingUpload[]

export type S3BacklogOptions = {
  /** Where it is remembered how far it came; there already. */
  readonly directory: string
  readonly config: S3Config
  readonly pages: BlobPages
  /** Whether one more may wait: false as long as there is other work. */
  readonly hasRoom: () => boolean
  /** Takes on an upload and remembers it over a restart. */
  readonly add: (upload: PendingUpload) => void
  readonly failed: (error: unknown) => void
  readonly log?: Log | undefined
}

type Mark = { readonly bucket: string; readonly after: Digest | undefined; readonly done: boolean }

const pageSize = 200
/** A line in the log for every so many. */
const toldEvery = 1_000

/**
 * Uploads what was on the disk before there was a bucket, once: in the order of digests, a few at a time, when nothing else waits. It goes on where
 * an earlier process stopped, and starts over with another bucket.
 */
export class S3Backlog {
  readonly #options: S3BacklogOptions
  readonly #bucket: string
  readonly #path: string
  #page: PendingUpload[] = []
  #after: Digest | undefined
  #taken = 0
  #state: 'unread' | 'working' | 'done' = 'unread'
  #saving: Promise<void> = Promise.resolve()

  constructor(options: S3BacklogOptions) {
    const { bucket, prefix, endpoint, region } = options.config
    this.#options = options
    this.#bucket = [endpoint ?? region, bucket, prefix].join(' ')
    this.#path = join(options.directory, 'backlog.json')
  }

  /** Reads how far it came and begins. Never rejects. */
  async start(): Promise<void> {
    const mark = await readMark(this.#path)
    const isSame = mark?.bucket === this.#bucket
    this.#after = isSame ? mark.after : undefined
    this.#state = isSame && mark.done ? 'done' : 'working'
    this.pump()
  }

  /** Takes on as many as have room. Called whenever an upload ended. Never throws. */
  pump(): void {
    const { hasRoom, add, failed } = this.#options
    try {
      while (this.#state === 'working' && hasRoom()) {
        const next = this.#next()
        if (next) add(next)
      }
    } catch (error) {
      // The index could not be read; the next start tries again.
      this.#state = 'done'
      failed(error)
    }
  }

  /** Resolves when it is remembered how far it came. Nothing more is taken on. */
  async close(): Promise<void> {
    this.#state = 'done'
    await this.#saving
  }

  #next(): PendingUpload | undefined {
    const next = this.#page.shift()
    if (next) {
      this.#taken += 1
      this.#after = next.digest
      if (this.#taken % toldEvery === 0) this.#tell('so many blobs that were on the disk before are checked')
      return next
    }
    this.#page = [...this.#options.pages(this.#after, pageSize)]
    // Those before are taken on: should this be the last that is known after a crash, none is left out.
    this.#save(this.#page.length === 0)
    if (this.#page.length > 0) return undefined
    this.#state = 'done'
    if (this.#taken > 0) this.#tell('all blobs that were on the disk before are checked')
    return undefined
  }

  #tell(message: string): void {
    this.#options.log?.info({ blobs: this.#taken }, message)
  }

  #save(done: boolean): void {
    const mark: Mark = { bucket: this.#bucket, after: this.#after, done }
    const temporary = `${this.#path}.new`
    this.#saving = this.#saving
      .then(() => writeFile(temporary, JSON.stringify(mark), { mode: 0o640 }))
      .then(() => rename(temporary, this.#path))
      .catch(this.#options.failed)
  }
}

/** Undefined: there is none that can be read, so it begins at the beginning. */
async function readMark(path: string): Promise<Mark | undefined> {
  try {
    const { bucket, after, done } = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>
    if (typeof bucket !== 'string') return undefined
    return { bucket, after: typeof after === 'string' && isDigest(after) ? after : undefined, done: done === true }
  } catch {
    return undefined
  }
}
