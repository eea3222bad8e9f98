import { randomBytes } from 'node:crypto'
import { DeleteObjectCommand, ListObjectsV2Command, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import type { Clock } from '../../clock.ts'
import type { S3Config } from '../../config/config.ts'
import { silentObserver } from '../../log/observer.ts'
import { redactUrl } from '../../log/redact.ts'
import { type Digest, digestOf } from '../../oci/digest.ts'
import { createS3Client, request, type S3Api } from '../../store/s3-client.ts'
import { S3Error, type S3Reason } from '../../store/s3-error.ts'
import { keyOf } from '../../store/s3-key.ts'
import { objectAttributes } from '../../store/s3-object.ts'
import { type BucketAbilities, probeBucket } from '../../store/s3-probe.ts'
import { S3Reader } from '../../store/s3-reader.ts'
import type { Check, CheckContext } from './check.ts'
import { judgeClock } from './clock-skew.ts'

/** Whether the bucket does what Layover asks of it, tried with two objects of a few bytes that are deleted again. */
export function bucketCheck(config: S3Config, clock: Clock): Check {
  return { name: 'bucket', run: context => examine(context, config, clock) }
}

async function examine(context: CheckContext, config: S3Config, clock: Clock): Promise<void> {
  const where = `${config.bucket} at ${config.endpoint === undefined ? `AWS ${config.region}` : redactUrl(config.endpoint)}`
  const client = createS3Client(config)
  const dates = watchDates(client)
  const api: S3Api = { client, config, observer: silentObserver }
  try {
    context.step(`writing to ${where}`)
    const abilities = await probeBucket({ api, signal: context.signal })
    await readBack(context, { api, clock, where })
    judgeAbilities(context, abilities, where)
  } catch (error) {
    if (!(error instanceof S3Error) || error.reason === 'cancelled') throw error
    context.fail(`${where}: ${error.message}`, advices[error.reason] ?? 'ask whoever runs the bucket')
  } finally {
    judgeClock(context, { who: 'the bucket', date: dates.last(), now: clock.now() })
    client.destroy()
  }
}

/** The Date header of the latest answer, errors included: a clock that is off is why signatures are refused. */
function watchDates(client: S3Client): { last(): string | undefined } {
  let last: string | undefined
  client.middlewareStack.add(
    next => async args => {
      const output = await next(args)
      last = dateOf(output.response) ?? last
      return output
    },
    // Next to the wire: an answer that says no becomes an exception further up.
    { step: 'deserialize', priority: 'low', name: 'watchDates' },
  )
  return { last: () => last }
}

function dateOf(response: unknown): string | undefined {
  const { headers } = (response ?? {}) as { readonly headers?: Readonly<Record<string, unknown>> }
  const date = headers?.['date']
  return typeof date === 'string' ? date : undefined
}

type Reading = { readonly api: S3Api; readonly clock: Clock; readonly where: string }

async function readBack(context: CheckContext, { api, clock, where }: Reading): Promise<void> {
  const { client, config } = api
  const bytes = Buffer.concat([Buffer.from('layover doctor '), randomBytes(16)])
  const digest = digestOf(bytes)
  // Who reads the body learns of it too.
  const reader = new S3Reader({ api, clock, onBodyFailure: () => undefined })
  const command = new PutObjectCommand({
    ...objectAttributes(config, digest),
    Body: bytes,
    ContentLength: bytes.byteLength,
  })
  try {
    await request(api, { operation: 'put', signal: context.signal }, options => client.send(command, options))
    context.step(`reading a signed URL of ${where}`)
    const whole = await read(reader, { digest, offset: 0, signal: context.signal })
    context.step(`reading a range of ${where}`)
    const part = await read(reader, { digest, offset: 8, end: 13, signal: context.signal })
    if (!whole.equals(bytes) || !part.equals(bytes.subarray(8, 14)))
      context.fail(`${where}: what is read is not what was written`, 'see what stands between: a proxy, a gateway')
    else context.ok(`${where}: writes, reads by signed URL and ranges work`)
    await list(context, api, { digest, where })
  } finally {
    await reader.close()
    await remove(api, digest)
  }
}

type ReadQuestion = {
  readonly digest: Digest
  readonly offset: number
  readonly end?: number
  readonly signal: AbortSignal
}

async function read(reader: S3Reader, { digest, ...range }: ReadQuestion): Promise<Buffer> {
  const blob = await reader.open(digest, range, false)
  const chunks: Buffer[] = []
  for await (const chunk of blob?.body ?? []) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

async function list(
  context: CheckContext,
  api: S3Api,
  { digest, where }: { readonly digest: Digest; readonly where: string },
): Promise<void> {
  const { client, config } = api
  context.step(`listing ${where}`)
  const key = keyOf(config.prefix, digest)
  const command = new ListObjectsV2Command({ Bucket: config.bucket, Prefix: key, MaxKeys: 1 })
  try {
    const answer = await request(api, { operation: 'other', signal: context.signal }, options =>
      client.send(command, options),
    )
    if (answer.Contents?.[0]?.Key === key) return
    context.warn(
      `${where}: its list lacks an object that was just written`,
      'lists are eventually right at some services',
    )
  } catch (error) {
    if (!(error instanceof S3Error) || error.reason === 'cancelled') throw error
    context.warn(
      `${where}: cannot be listed (${error.reason})`,
      'allow s3:ListBucket: without it what is absent cannot be told from what is forbidden, and the bucket cannot be searched',
    )
  }
}

/** Also after the time is over; whether deleting works is found by the probe. */
async function remove({ client, config, observer }: S3Api, digest: Digest): Promise<void> {
  const command = new DeleteObjectCommand({ Bucket: config.bucket, Key: keyOf(config.prefix, digest) })
  await request({ client, config, observer }, { operation: 'delete', timeoutMs: config.requestTimeoutMs }, options =>
    client.send(command, options),
  ).catch(() => undefined)
}

function judgeAbilities(context: CheckContext, abilities: BucketAbilities, where: string): void {
  const { conditionalPuts, checksums, deletes } = abilities
  if (conditionalPuts === 'honoured' && checksums === 'honoured')
    context.ok(`${where}: conditional writes and checksums are honoured`)
  if (conditionalPuts !== 'honoured')
    context.warn(
      `${where}: conditional writes (If-None-Match) are ${conditionalPuts}`,
      'nothing breaks: replicas may upload the same blob twice; a newer version of the service may know them',
    )
  if (checksums !== 'honoured')
    context.warn(
      `${where}: checksums (x-amz-checksum-sha256) are ${checksums}: a wrong one ${checksums === 'ignored' ? 'was accepted' : 'cannot be sent'}`,
      'nothing breaks: every read is verified here; a newer version of the service may check uploads',
    )
  if (!deletes)
    context.warn(
      `${where}: objects cannot be deleted; two of a few bytes stay there`,
      'allow s3:DeleteObject: without it an object that was damaged stays in the way',
    )
}

const advices: Partial<Readonly<Record<S3Reason, string>>> = {
  denied:
    'see the credentials (environment, profile, web identity, instance role), the clock, and that they allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket here',
  no_bucket: 'create the bucket, or set s3.bucket, s3.region and s3.endpoint to where it is',
  connection:
    'see that s3.endpoint is right and that no firewall is between; behind most services but AWS set s3.pathStyle',
  timeout: 'see that no firewall drops packets on the way, or raise s3.requestTimeout',
  slow_down: 'the service asks for fewer requests: lower s3.uploads, or ask whoever runs it',
  server: 'the service is ill: ask whoever runs it',
  invalid: 'see s3.region, s3.sse, s3.storageClass and s3.tags: the service refuses the request as it is',
  unsupported: 'see s3.sse, s3.storageClass and s3.tags: the service does not know one of them',
}
