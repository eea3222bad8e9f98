import type { Readable } from 'node:stream'
import { GetObjectCommand } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { LRUCache } from 'lru-cache'
import { Agent, request as httpRequest } from 'undici'
import type { Clock } from '../clock.ts'
import type { Digest } from '../oci/digest.ts'
import { S3Body } from './s3-body.ts'
import { hedged, systemWait, type Wait } from './hedged.ts'
import { connectTimeoutMs, type S3Api } from './s3-client.ts'
import { reasonOfCode, S3Error, s3Error } from './s3-error.ts'
import { keyOf } from './s3-key.ts'
import type { SharedBlob } from './stores.ts'

/**
 * Without an answer for 2 s the bucket is asked once more on another connection, and 2 s later the next place is.
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-design-patterns.html
 */
const againMs = 2_000
const giveUpMs = 4_000
/** How long a signed URL is valid, and how long it is used: the rest is room for a slow answer and a clock that is off. */
const signedSeconds = 15 * 60
const reusedMs = (signedSeconds * 1000) / 2
const maxSignedUrls = 10_000
const maxErrorBytes = 16 * 1024

export type ReadRange = { readonly offset: number; readonly end?: number; readonly signal?: AbortSignal | undefined }

type S3ReaderDeps = {
  readonly api: S3Api
  readonly clock: Clock
  readonly onBodyFailure: (error: S3Error) => void
  readonly wait?: Wait | undefined
}

/**
 * Reads objects by signed URLs with a plain HTTP client: half the CPU of the SDK's GetObject per byte. URLs are secrets: they are in no error and no log.
 */
export class S3Reader {
  readonly #api: S3Api
  readonly #clock: Clock
  readonly #onBodyFailure: (error: S3Error) => void
  readonly #wait: Wait
  readonly #agent: Agent
  readonly #urls = new LRUCache<Digest, { readonly url: string; readonly until: number }>({ max: maxSignedUrls })

  /** `onBodyFailure` is told when a body breaks after it was opened. */
  constructor({ api, clock, onBodyFailure, wait = systemWait }: S3ReaderDeps) {
    this.#wait = wait
    this.#api = api
    this.#onBodyFailure = onBodyFailure
    this.#clock = clock
    this.#agent = new Agent({
      allowH2: false,
      connections: 128,
      connect: { timeout: connectTimeoutMs },
      headersTimeout: giveUpMs + 1_000,
      bodyTimeout: api.config.requestTimeoutMs,
      keepAliveTimeout: 10_000,
    })
  }

  /** The bytes from `offset` to `end` (inclusive) or to the last one. Undefined: no such object. Rejects with an {@link S3Error}. */
  async open(digest: Digest, range: ReadRange, absentIs403: boolean): Promise<SharedBlob | undefined> {
    const startedAt = performance.now()
    const secondsSince = (): number => (performance.now() - startedAt) / 1000
    try {
      const blob = await this.#openWithFreshUrl(digest, range, absentIs403)
      this.#api.observer.sharedRequest('get', blob === undefined ? 'absent' : '200', secondsSince())
      return blob
    } catch (cause) {
      const error = range.signal?.aborted === true ? cancelled(range.signal) : s3Error('get', cause)
      this.#api.observer.sharedRequest('get', error.reason, secondsSince())
      throw error
    }
  }

  close(): Promise<void> {
    return this.#agent.destroy()
  }

  /** A URL that is refused may be one that was signed with credentials that have run out since: a new one is tried once. */
  async #openWithFreshUrl(digest: Digest, range: ReadRange, absentIs403: boolean): Promise<SharedBlob | undefined> {
    const known = this.#urls.get(digest)
    if (known !== undefined && known.until > this.#clock.monotonic()) {
      const answer = await this.#get(known.url, range)
      if (!(answer instanceof S3Error)) return answer
      if (answer.reason !== 'denied') return absentOr(answer)
      this.#urls.delete(digest)
    }
    const answer = await this.#get(await this.#sign(digest), range)
    if (!(answer instanceof S3Error)) return answer
    this.#urls.delete(digest)
    return answer.reason === 'denied' && absentIs403 ? undefined : absentOr(answer)
  }

  async #sign(digest: Digest): Promise<string> {
    const { client, config } = this.#api
    const command = new GetObjectCommand({ Bucket: config.bucket, Key: keyOf(config.prefix, digest) })
    const url = await getSignedUrl(client, command, { expiresIn: signedSeconds })
    this.#urls.set(digest, { url, until: this.#clock.monotonic() + reusedMs })
    return url
  }

  /** The blob, or the error that the service answered with. Throws what the HTTP client throws, or that no answer came in time. */
  #get(url: string, range: ReadRange): Promise<SharedBlob | S3Error> {
    return hedged(signal => this.#getFrom(url, { ...range, signal }), {
      againMs,
      giveUpMs,
      signal: range.signal,
      wait: this.#wait,
      onAgain: () => this.#api.observer.sharedRequest('get', 'hedged'),
      discard: answer => {
        if (!(answer instanceof S3Error)) discard(answer.body)
      },
      late: () => new S3Error('timeout', 'the bucket: no answer to get in time'),
    })
  }

  async #getFrom(url: string, range: ReadRange): Promise<SharedBlob | S3Error> {
    try {
      return await this.#getOnce(url, range)
    } catch (error) {
      // A connection that was kept may be closed by the other side at the moment it is used again: that says nothing about the service.
      if (range.signal?.aborted === true || s3Error('get', error).reason !== 'connection') throw error
      return this.#getOnce(url, range)
    }
  }

  async #getOnce(url: string, range: ReadRange): Promise<SharedBlob | S3Error> {
    const { statusCode, headers, body } = await httpRequest(url, {
      dispatcher: this.#agent,
      ...(rangeHeader(range) && { headers: { range: rangeHeader(range) } }),
      ...(range.signal && { signal: range.signal }),
    })
    if (statusCode !== 200 && statusCode !== 206) return refusal(statusCode, body)
    const found = statusCode === 206 ? partOf(headers) : wholeOf(headers)
    if (found === undefined || found.offset !== range.offset || found.end !== lastByte(range, found.size)) {
      discard(body)
      return new S3Error('invalid', 'the bucket: the answer holds another range than was asked for')
    }
    const onBytes = (bytes: number): void => this.#api.observer.sharedBytes('read', bytes)
    return {
      offset: found.offset,
      size: found.size,
      body: new S3Body(body, { onBytes, onFailure: this.#onBodyFailure }),
    }
  }
}

function rangeHeader({ offset, end }: ReadRange): string | undefined {
  if (offset === 0 && end === undefined) return undefined
  return `bytes=${offset}-${end ?? ''}`
}

const lastByte = ({ end }: ReadRange, size: number): number => Math.min(end ?? size - 1, size - 1)

type Headers = Readonly<Record<string, string | string[] | undefined>>
type Found = { readonly offset: number; readonly end: number; readonly size: number }

function wholeOf(headers: Headers): Found | undefined {
  const size = numberFrom(headers['content-length'])
  return size === undefined ? undefined : { offset: 0, end: size - 1, size }
}

/** RFC 9110 section 14.4; the length of the body must agree. */
function partOf(headers: Headers): Found | undefined {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(String(headers['content-range']))
  const [offset, end, size] = [Number(match?.[1]), Number(match?.[2]), Number(match?.[3])]
  const length = numberFrom(headers['content-length'])
  return match !== null && length === end - offset + 1 ? { offset, end, size } : undefined
}

function numberFrom(value: string | string[] | undefined): number | undefined {
  return typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : undefined
}

async function refusal(status: number, body: Readable): Promise<S3Error> {
  const code = /<Code>([\w.-]{1,64})<\/Code>/.exec(await textOf(body))?.[1] ?? ''
  return new S3Error(reasonOfCode(code, status), `the bucket: get failed: ${code} (${status})`)
}

async function textOf(body: Readable): Promise<string> {
  let text = ''
  for await (const chunk of body) {
    text += String(chunk)
    if (text.length > maxErrorBytes) break
  }
  return text
}

function discard(body: Readable): void {
  body.on('error', () => {})
  body.destroy()
}

function absentOr(error: S3Error): undefined {
  if (error.reason !== 'absent') throw error
}

function cancelled({ reason }: AbortSignal): S3Error {
  return new S3Error('cancelled', 'the bucket: get was cancelled', reason)
}
