import { Readable } from 'node:stream'
import {
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
} from '@aws-sdk/client-s3'
import type { Clock } from '../clock.ts'
import type { S3Config } from '../config/config.ts'
import type { Observer, SharedOperation } from '../log/observer.ts'
import type { Archive, ArchivedObject } from './archive.ts'
import { S3Breaker } from './s3-breaker.ts'
import { createS3Client, request, type S3Api } from './s3-client.ts'
import { S3Error } from './s3-error.ts'
import { protection } from './s3-object.ts'

/** Somebody waits for a read, and upstream can be asked instead. */
const defaultReadTimeoutMs = 1_000
/** Larger than any manifest that is accepted; what is larger was not written here. */
const maxObjectBytes = 16 * 1024 * 1024

export type S3ArchiveOptions = {
  readonly config: S3Config
  readonly clock: Clock
  readonly observer: Observer
  /** Whether a 403 on reading means absent, as it does for credentials that may not list. Default: it does not. */
  readonly absentIs403?: () => boolean
  /** For one object. Default: 1 s. */
  readonly readTimeoutMs?: number
}

/** Opens the {@link Archive} in a bucket. Asks nothing of it yet. Calls reject with an {@link S3Error}. */
export function openS3Archive(options: S3ArchiveOptions): Archive {
  return new S3Archive(options)
}

class S3Archive implements Archive {
  readonly #options: S3ArchiveOptions
  readonly #api: S3Api
  readonly #breaker: S3Breaker
  readonly #readTimeoutMs: number
  readonly #closing = new AbortController()

  constructor(options: S3ArchiveOptions) {
    const { config, clock, observer } = options
    this.#options = options
    this.#readTimeoutMs = options.readTimeoutMs ?? defaultReadTimeoutMs
    this.#api = { client: createS3Client(config), config, observer }
    this.#breaker = new S3Breaker(clock)
  }

  get(key: string): Promise<ArchivedObject | undefined> {
    const command = new GetObjectCommand(this.#at(key))
    return this.#read(async () => {
      const { answer, bytes } = await this.#request('get', this.#readTimeoutMs, async sending => {
        const answer = await this.#api.client.send(command, sending)
        return { $metadata: answer.$metadata, answer, bytes: await bodyOf(answer) }
      })
      return { bytes, contentType: answer.ContentType ?? '' }
    })
  }

  async has(key: string): Promise<boolean> {
    const command = new HeadObjectCommand(this.#at(key))
    const found = await this.#read(() =>
      this.#request('head', this.#readTimeoutMs, sending => this.#api.client.send(command, sending)),
    )
    return found !== undefined
  }

  async put(key: string, { bytes, contentType }: ArchivedObject): Promise<void> {
    const command = new PutObjectCommand({
      ...this.#at(key),
      // Not the storage class of the blobs: classes for rare reads bill small objects as large ones.
      ...protection(this.#api.config),
      ContentType: contentType,
      ContentLength: bytes.byteLength,
      Body: bytes,
    })
    await this.#request('put', this.#api.config.requestTimeoutMs, sending => this.#api.client.send(command, sending))
  }

  async delete(key: string): Promise<void> {
    const command = new DeleteObjectCommand(this.#at(key))
    try {
      await this.#request('delete', this.#api.config.requestTimeoutMs, sending =>
        this.#api.client.send(command, sending),
      )
    } catch (error) {
      undefinedWhenAbsent(error)
    }
  }

  async list({ prefix, after, limit }: Parameters<Archive['list']>[0]): Promise<readonly string[]> {
    const { config } = this.#api
    const command = new ListObjectsV2Command({
      Bucket: config.bucket,
      Prefix: config.prefix + prefix,
      MaxKeys: limit,
      ...(after !== undefined && { StartAfter: config.prefix + after }),
    })
    const answer = await this.#breaker.run(() =>
      this.#request('other', config.requestTimeoutMs, sending => this.#api.client.send(command, sending)),
    )
    return (answer.Contents ?? []).flatMap(({ Key }) => Key?.slice(config.prefix.length) ?? [])
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('the archive is closed'))
    this.#api.client.destroy()
  }

  #at(key: string): { readonly Bucket: string; readonly Key: string } {
    const { bucket, prefix } = this.#api.config
    return { Bucket: bucket, Key: prefix + key }
  }

  /** Undefined: it is not there. */
  #read<Result>(work: () => Promise<Result>): Promise<Result | undefined> {
    return this.#breaker
      .run<Result | undefined>(() => work().catch((error: unknown) => this.#undefinedWhenForbidden(error)))
      .catch(undefinedWhenAbsent)
  }

  #undefinedWhenForbidden(error: unknown): undefined {
    if (error instanceof S3Error && error.reason === 'denied' && this.#options.absentIs403?.() === true)
      return undefined
    throw error
  }

  #request<Result extends { readonly $metadata: { readonly httpStatusCode?: number | undefined } }>(
    operation: SharedOperation,
    timeoutMs: number,
    send: (options: { abortSignal?: AbortSignal }) => Promise<Result>,
  ): Promise<Result> {
    return request(this.#api, { operation, timeoutMs, signal: this.#closing.signal }, send)
  }
}

async function bodyOf({ ContentLength: length = Infinity, Body: body }: GetObjectCommandOutput): Promise<Uint8Array> {
  if (body === undefined) return new Uint8Array()
  if (length <= maxObjectBytes) return body.transformToByteArray()
  if (body instanceof Readable) body.destroy()
  throw new S3Error('invalid', 'the bucket: an archived record is larger than any record is')
}

function undefinedWhenAbsent(error: unknown): undefined {
  if (error instanceof S3Error && error.reason === 'absent') return undefined
  throw error
}
