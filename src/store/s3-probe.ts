import { randomBytes } from 'node:crypto'
import { DeleteObjectCommand, HeadObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { type Digest, digestOf, hexOf } from '../oci/digest.ts'
import { request, type S3Api } from './s3-client.ts'
import { S3Error, type S3Reason } from './s3-error.ts'
import { keyOf } from './s3-key.ts'
import { objectAttributes } from './s3-object.ts'

/** `honoured`: it does what it says. `ignored`: accepted without effect. `refused`: requests with it fail, so it is not sent. */
export type Support = 'honoured' | 'ignored' | 'refused'

/** What an endpoint can do, as found by trying. */
export type BucketAbilities = {
  /** `If-None-Match: *` on PutObject. */
  readonly conditionalPuts: Support
  /** `x-amz-checksum-sha256` on PutObject. */
  readonly checksums: Support
  /** Whether these credentials may delete. */
  readonly deletes: boolean
  /** Without the right to list, a missing object is answered with 403: then a 403 on reading means absent. */
  readonly absentIs403: boolean
}

/** Until the probe has an answer: what AWS can do. */
export const assumedAbilities: BucketAbilities = {
  conditionalPuts: 'honoured',
  checksums: 'honoured',
  deletes: true,
  absentIs403: false,
}

type Probe = { readonly api: S3Api; readonly signal?: AbortSignal }

/**
 * Tries what the bucket can do with one object of a few random bytes, which lies under its own digest and is deleted again.
 * Six small requests. Rejects with an {@link S3Error} when the bucket cannot be written at all.
 */
export async function probeBucket(probe: Probe): Promise<BucketAbilities> {
  const bytes = Buffer.concat([Buffer.from('layover probe '), randomBytes(16)])
  const digest = digestOf(bytes)
  const absentIs403 = (await outcomeOf(head(probe, digest))) === 'denied'
  const put = putter(probe, digest, bytes)
  try {
    const checksums = await checksumSupport(put, digest)
    if (checksums === 'refused') await put({})
    const again = await outcomeOf(put({ IfNoneMatch: '*' }))
    const conditionalPuts = supportFrom(again, 'exists')
    return { conditionalPuts, checksums, deletes: await remove(probe, digest), absentIs403 }
  } catch (error) {
    await remove(probe, digest).catch(() => false)
    throw error
  }
}

type Extras = { readonly IfNoneMatch?: string; readonly ChecksumSHA256?: string }

async function checksumSupport(put: (extras: Extras) => Promise<unknown>, digest: Digest): Promise<Support> {
  try {
    await put({ ChecksumSHA256: base64Of(digest) })
  } catch (error) {
    if (error instanceof S3Error && (error.reason === 'unsupported' || error.reason === 'invalid')) return 'refused'
    throw error
  }
  // The bytes are right, only the header is not: whoever ignores it stores nothing wrong.
  const wrong = await outcomeOf(put({ ChecksumSHA256: Buffer.alloc(32).toString('base64') }))
  return wrong === 'done' ? 'ignored' : 'honoured'
}

function supportFrom(outcome: Outcome, honoured: S3Reason): Support {
  if (outcome === honoured || outcome === 'conflict') return 'honoured'
  return outcome === 'done' ? 'ignored' : 'refused'
}

type Outcome = 'done' | S3Reason

/** What became of a request, in a word. Rejects when there was no answer that tells something about the request. */
async function outcomeOf(work: Promise<unknown>): Promise<Outcome> {
  try {
    await work
    return 'done'
  } catch (error) {
    if (!(error instanceof S3Error) || error.reason === 'cancelled') throw error
    if (error.isOutage && error.reason !== 'denied') throw error
    return error.reason
  }
}

const base64Of = (digest: Digest): string => Buffer.from(hexOf(digest), 'hex').toString('base64')

function head({ api, signal }: Probe, digest: Digest): Promise<unknown> {
  const { client, config } = api
  const command = new HeadObjectCommand({ Bucket: config.bucket, Key: keyOf(config.prefix, digest) })
  return request(api, { operation: 'head', timeoutMs: config.requestTimeoutMs, signal }, options =>
    client.send(command, options),
  )
}

function putter({ api, signal }: Probe, digest: Digest, bytes: Buffer) {
  const { client, config } = api
  return (extras: Extras): Promise<unknown> => {
    const command = new PutObjectCommand({
      ...objectAttributes(config, digest),
      Body: bytes,
      ContentLength: bytes.byteLength,
      ...extras,
    })
    return request(api, { operation: 'put', timeoutMs: config.requestTimeoutMs, signal }, options =>
      client.send(command, options),
    )
  }
}

async function remove({ api }: Probe, digest: Digest): Promise<boolean> {
  const { client, config } = api
  const command = new DeleteObjectCommand({ Bucket: config.bucket, Key: keyOf(config.prefix, digest) })
  const outcome = await outcomeOf(
    // Also after `signal`: the probe leaves nothing behind.
    request(api, { operation: 'delete', timeoutMs: config.requestTimeoutMs }, options => client.send(command, options)),
  )
  return outcome === 'done'
}
