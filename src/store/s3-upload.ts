import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  PutObjectCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import type { Observer } from '../log/observer.ts'
import { algorithmOf, type Digest, finish, hasher, hexOf } from '../oci/digest.ts'
import { request, type S3Api } from './s3-client.ts'
import { S3Error } from './s3-error.ts'
import { objectAttributes, saysOtherwise } from './s3-object.ts'
import type { BucketAbilities } from './s3-probe.ts'
import type { S3Queue, StartedMultipart } from './s3-queue.ts'
import type { BlobStore, OpenBlob } from './stores.ts'

const mebibyte = 1024 * 1024
/** A single PutObject takes no more. https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html */
const maxPutBytes = 5 * 1024 * mebibyte
const maxParts = 10_000
const usualPartBytes = 64 * mebibyte
const chunkBytes = 256 * 1024
const partAttempts = 3

/**
 * `uploaded`: it is there now. `present`: it was there already. `gone`: evicted here before its turn came. `corrupt`: the local file does not hash to its
 * digest any more; it was removed and nothing was uploaded.
 */
export type UploadOutcome = 'uploaded' | 'present' | 'gone' | 'corrupt'

export type UploadDeps = {
  readonly api: S3Api
  readonly local: BlobStore
  readonly queue: S3Queue
  readonly abilities: BucketAbilities
  readonly signal: AbortSignal
}

/**
 * Copies one verified local blob into the bucket. The hash of the payload is part of the signature, so that any service refuses bytes that do not match;
 * where checksums are known the service keeps it beside the object. Safe to repeat and to run on many replicas at once: the first one wins.
 * `replace`: an object that is there is not to be believed. Rejects with an {@link S3Error}.
 */
export async function upload(
  deps: UploadDeps,
  { digest, replace }: { readonly digest: Digest; readonly replace: boolean },
): Promise<UploadOutcome> {
  const blob = await deps.local.open(digest)
  if (blob === undefined) return 'gone'
  try {
    if (replace) return await copy(deps, { digest, blob, replace })
    const found = await look(deps, { digest, size: blob.size })
    if (found === 'same') return 'present'
    return await copy(deps, { digest, blob, replace: found === 'other' })
  } finally {
    await blob.close()
  }
}

type Copy = {
  readonly digest: Digest
  readonly blob: OpenBlob
  /** An object that cannot be right lies under the key, of another size or with wrong bytes: it is overwritten. */
  readonly replace: boolean
}

async function copy(deps: UploadDeps, job: Copy): Promise<UploadOutcome> {
  const { api, local } = deps
  try {
    const isLarge = job.blob.size > Math.min(api.config.multipartBytes, maxPutBytes)
    return await (isLarge ? putInParts(deps, job) : putWhole(deps, job))
  } catch (error) {
    if (!(error instanceof S3Error)) throw error
    if (error.reason === 'exists') return 'present'
    // Damaged here, or on the way? Only a look at the file can tell.
    if (error.reason !== 'mismatch' || (await isWhole(job))) throw error
    await local.delete(job.digest)
    return 'corrupt'
  }
}

/** What lies under the key, by its size and by the hash that the service may have kept. Without the right to list, 403 may mean nothing. */
async function look(
  { api, abilities, signal }: UploadDeps,
  { digest, size }: { readonly digest: Digest; readonly size: number },
): Promise<'nothing' | 'same' | 'other'> {
  const { client, config } = api
  const { Bucket, Key } = objectAttributes(config, digest)
  try {
    const head = await request(api, { operation: 'head', timeoutMs: config.requestTimeoutMs, signal }, options =>
      client.send(new HeadObjectCommand({ Bucket, Key, ChecksumMode: 'ENABLED' }), options),
    )
    return head.ContentLength === size && !saysOtherwise(head, digest) ? 'same' : 'other'
  } catch (error) {
    const reason = error instanceof S3Error ? error.reason : undefined
    if (reason === 'absent' || (reason === 'denied' && abilities.absentIs403)) return 'nothing'
    throw error
  }
}

async function putWhole(
  { api, abilities, signal }: UploadDeps,
  { digest, blob, replace }: Copy,
): Promise<UploadOutcome> {
  const { client, config, observer } = api
  const sha256 = await sha256Of({ digest, blob })
  const Body = bytesOf(blob, { from: 0, length: blob.size }, observer)
  const command = new PutObjectCommand({
    ...objectAttributes(config, digest),
    Body,
    ContentLength: blob.size,
    ...(abilities.checksums !== 'refused' && { ChecksumSHA256: sha256.toString('base64') }),
    ...(abilities.conditionalPuts !== 'refused' && !replace && { IfNoneMatch: '*' }),
  })
  command.middlewareStack.add(payloadHash(sha256), payloadHashStep)
  await sending(Body, signal, whileWhole =>
    request(api, { operation: 'put', signal: whileWhole }, options => client.send(command, options)),
  )
  return 'uploaded'
}

/**
 * Sends `body`. What breaks it ends the request and is what is thrown: the request itself would wait for the rest, and an error that nobody
 * listens for would end the process.
 */
async function sending<Result>(
  body: Readable,
  signal: AbortSignal,
  send: (whileWhole: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const broken = new AbortController()
  let reason: Error | undefined
  body.on('error', (error: Error) => {
    reason = error
    broken.abort(error)
  })
  try {
    return await send(AbortSignal.any([signal, broken.signal]))
  } catch (error) {
    throw signal.aborted ? error : (reason ?? error)
  } finally {
    body.destroy()
  }
}

/** The digest itself; for sha512 the file is read once more than it would be, which also shows whether it is whole. */
async function sha256Of({ digest, blob }: Pick<Copy, 'digest' | 'blob'>): Promise<Buffer> {
  if (algorithmOf(digest) === 'sha256') return Buffer.from(hexOf(digest), 'hex')
  const [whole, sha256] = [hasher('sha512'), createHash('sha256')]
  for await (const chunk of chunksOf(blob, { from: 0, length: blob.size })) {
    whole.update(chunk)
    sha256.update(chunk)
  }
  if (finish('sha512', whole) !== digest) throw mismatch()
  return sha256.digest()
}

/**
 * Parts are hashed before each of them is sent, and all of them together before the object is put together: a local file that changed is noticed
 * before anything is visible. https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
 */
async function putInParts(deps: UploadDeps, { digest, blob, replace }: Copy): Promise<UploadOutcome> {
  const { api, queue, abilities, signal } = deps
  const { client, config } = api
  const { Bucket, Key } = objectAttributes(config, digest)
  const timeoutMs = config.requestTimeoutMs
  const created = await request(api, { operation: 'other', timeoutMs, signal }, options =>
    client.send(new CreateMultipartUploadCommand(objectAttributes(config, digest)), options),
  )
  const UploadId = created.UploadId ?? ''
  await queue.started({ digest, uploadId: UploadId })
  try {
    const Parts = await putParts(deps, { digest, blob, target: { Bucket, Key, UploadId } })
    const command = new CompleteMultipartUploadCommand({
      Bucket,
      Key,
      UploadId,
      MultipartUpload: { Parts },
      ...(abilities.conditionalPuts !== 'refused' && !replace && { IfNoneMatch: '*' }),
    })
    await request(api, { operation: 'other', signal }, options => client.send(command, options))
    await queue.ended({ digest, uploadId: UploadId })
    return 'uploaded'
  } catch (error) {
    await abortMultipart(deps, { digest, uploadId: UploadId })
    throw error
  }
}

type Target = { readonly Bucket: string; readonly Key: string; readonly UploadId: string }
type Part = { readonly PartNumber: number; readonly ETag: string | undefined }

async function putParts(
  deps: UploadDeps,
  { digest, blob, target }: { readonly digest: Digest; readonly blob: OpenBlob; readonly target: Target },
): Promise<Part[]> {
  const partBytes = Math.max(Math.min(deps.api.config.multipartBytes, usualPartBytes), Math.ceil(blob.size / maxParts))
  const whole = hasher(algorithmOf(digest))
  const parts: Part[] = []
  for (let from = 0; from < blob.size; from += partBytes) {
    const range = { from, length: Math.min(partBytes, blob.size - from) }
    const hash = createHash('sha256')
    for await (const chunk of chunksOf(blob, range)) {
      whole.update(chunk)
      hash.update(chunk)
    }
    parts.push(await putPart(deps, { blob, range, target, PartNumber: parts.length + 1, sha256: hash.digest() }))
  }
  if (finish(algorithmOf(digest), whole) !== digest) throw mismatch()
  return parts
}

type PartJob = {
  readonly blob: OpenBlob
  readonly range: Range
  readonly target: Target
  readonly PartNumber: number
  readonly sha256: Buffer
}

async function putPart({ api, signal }: UploadDeps, job: PartJob): Promise<Part> {
  const { client, observer } = api
  const { blob, range, target, PartNumber, sha256 } = job
  for (let attempt = 1; ; attempt++) {
    const Body = bytesOf(blob, range, observer)
    const command = new UploadPartCommand({ ...target, PartNumber, Body, ContentLength: range.length })
    command.middlewareStack.add(payloadHash(sha256), payloadHashStep)
    try {
      const answer = await sending(Body, signal, whileWhole =>
        request(api, { operation: 'put', signal: whileWhole }, options => client.send(command, options)),
      )
      return { PartNumber, ETag: answer.ETag }
    } catch (error) {
      const reason = error instanceof S3Error ? error.reason : undefined
      // Gigabytes may have been sent already: a cut connection costs one part. Whatever asks for patience is repeated by the queue.
      if (attempt >= partAttempts || (reason !== 'connection' && reason !== 'server')) throw error
    }
  }
}

/** Ends a multipart upload, so that its parts are not paid for for ever. Fails silently: the start of the next process tries again. */
export async function abortMultipart(
  { api, queue }: Pick<UploadDeps, 'api' | 'queue'>,
  { digest, uploadId }: StartedMultipart,
): Promise<void> {
  const { client, config } = api
  const { Bucket, Key } = objectAttributes(config, digest)
  try {
    await request(api, { operation: 'other', timeoutMs: config.requestTimeoutMs }, options =>
      client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId: uploadId }), options),
    )
  } catch (error) {
    // Ended already is ended.
    if (!(error instanceof S3Error) || error.reason !== 'absent') return
  }
  await queue.ended({ digest, uploadId })
}

/** The SDK would sign "whatever comes" for a stream; with the hash known the service compares it with what arrived. */
function payloadHash(sha256: Buffer) {
  return <Args extends { request: unknown }, Output>(next: (args: Args) => Promise<Output>) =>
    (args: Args): Promise<Output> => {
      const { headers } = args.request as { headers: Record<string, string> }
      headers['x-amz-content-sha256'] = sha256.toString('hex')
      return next(args)
    }
}

const payloadHashStep = { step: 'build', name: 'layoverPayloadHash' } as const

type Range = { readonly from: number; readonly length: number }

function bytesOf(blob: OpenBlob, range: Range, observer: Observer): Readable {
  return Readable.from(counted(chunksOf(blob, range), observer), { objectMode: false, highWaterMark: chunkBytes })
}

async function* counted(chunks: AsyncIterable<Buffer>, observer: Observer): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    observer.sharedBytes('uploaded', chunk.byteLength)
    yield chunk
  }
}

async function* chunksOf(blob: OpenBlob, { from, length }: Range): AsyncGenerator<Buffer> {
  for (let done = 0; done < length; ) {
    // A fresh buffer each time: the one before may still wait in the socket.
    const buffer = Buffer.allocUnsafe(Math.min(chunkBytes, length - done))
    const count = await blob.read(buffer, from + done, buffer.byteLength)
    if (count === 0) throw mismatch()
    done += count
    yield buffer.subarray(0, count)
  }
}

async function isWhole({ digest, blob }: Copy): Promise<boolean> {
  const hash = hasher(algorithmOf(digest))
  try {
    for await (const chunk of chunksOf(blob, { from: 0, length: blob.size })) hash.update(chunk)
  } catch {
    return false
  }
  return finish(algorithmOf(digest), hash) === digest
}

const mismatch = (): S3Error => new S3Error('mismatch', 'the local file does not hash to its digest')
