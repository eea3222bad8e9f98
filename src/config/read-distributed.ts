import type { Config, RedirectConfig, RedisConfig, RedisEndpoint, ReplicaConfig, S3Config } from './config.ts'
import type { ServerInput } from './schema.ts'
import { readCa, readNamedFile, type Surroundings } from './secrets.ts'

/** The sections of the distributed set-up. What is missing in them is reported, and gives undefined. */
export function readDistributed(
  surroundings: Surroundings,
  server: ServerInput,
): Pick<Config, 's3' | 'redis' | 'hotTier' | 'replica'> {
  const { report } = surroundings
  const s3 = server.s3 && readS3(surroundings, server.s3)
  const redis = server.redis && readRedis(surroundings, server.redis)
  const replica = server.replica && readReplica(surroundings, server.replica)
  if (server.hotTier && !server.s3)
    report(['hotTier'], 'needs s3: without a bucket, storage.maxBytes is the budget', { key: true })
  if (server.replica && !server.redis)
    report(['replica'], 'needs redis: there the replicas find out who downloads what', { key: true })
  const maxBytes = server.hotTier?.maxBytes
  return {
    ...(s3 && { s3 }),
    ...(redis && { redis }),
    ...(replica && { replica }),
    ...(maxBytes !== undefined && { hotTier: { maxBytes } }),
  }
}

function readS3({ report }: Surroundings, input: NonNullable<ServerInput['s3']>): S3Config | undefined {
  if (input.sse !== undefined && input.kmsKeyId !== undefined)
    report(['s3', 'kmsKeyId'], 'only one of sse and kmsKeyId can be used')
  if (input.bucket === undefined) {
    report(['s3'], 'needs a bucket: set s3.bucket', { key: true })
    return undefined
  }
  const prefix = input.prefix?.replace(/^\/+|\/+$/g, '') ?? ''
  return {
    bucket: input.bucket,
    prefix: prefix === '' ? '' : `${prefix}/`,
    endpoint: input.endpoint,
    region: input.region,
    pathStyle: input.pathStyle,
    sse: input.kmsKeyId === undefined ? input.sse : { kmsKeyId: input.kmsKeyId },
    storageClass: input.storageClass,
    tags: input.tags,
    multipartBytes: input.multipartAbove,
    uploads: input.uploads,
    requestTimeoutMs: input.requestTimeout,
    redirect: readRedirect(report, input.redirect),
  }
}

/** What a signature can be valid for. https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html */
const longestSignatureMs = 7 * 24 * 3_600_000

function readRedirect(
  report: Surroundings['report'],
  { networks, minBytes, ttl, endpoint }: NonNullable<ServerInput['s3']>['redirect'],
): RedirectConfig | undefined {
  if (ttl > longestSignatureMs) report(['s3', 'redirect', 'ttl'], 'expected at most 7d')
  if (networks.length > 0) return { networks, minBytes, ttlMs: ttl, endpoint }
  if (endpoint !== undefined)
    report(['s3', 'redirect'], 'needs networks: without them nobody is sent to the bucket', { key: true })
  return undefined
}

function readRedis(surroundings: Surroundings, input: NonNullable<ServerInput['redis']>): RedisConfig | undefined {
  const endpoint = endpointOf(surroundings, input)
  const { report } = surroundings
  if (input.password !== undefined && input.passwordFile !== undefined)
    report(['redis', 'passwordFile'], 'only one of password and passwordFile can be used')
  const ca = readCa(surroundings, ['redis', 'ca'], input.ca)
  const isTls = input.tls || input.ca !== undefined || input.servername !== undefined
  const passwordFile =
    input.passwordFile === undefined
      ? undefined
      : readSecret(surroundings, ['redis', 'passwordFile'], input.passwordFile, 1)
  return (
    endpoint && {
      endpoint,
      username: input.username,
      password: input.password,
      passwordFile,
      sentinelUsername: input.sentinelUsername,
      sentinelPassword: input.sentinelPassword,
      tls: isTls ? { ca, servername: input.servername } : undefined,
      keyPrefix: input.keyPrefix,
      commandTimeoutMs: input.commandTimeout,
    }
  )
}

function endpointOf({ report }: Surroundings, input: NonNullable<ServerInput['redis']>): RedisEndpoint | undefined {
  const { url, sentinels, cluster } = input
  const given = [url, sentinels, cluster].filter(each => each !== undefined && each.length > 0)
  if (given.length !== 1) {
    report(['redis'], 'needs exactly one of url, sentinels and cluster', { key: true })
    return undefined
  }
  if (url !== undefined) return { kind: 'url', url }
  if (sentinels !== undefined && sentinels.length > 0) return { kind: 'sentinels', sentinels, name: input.sentinelName }
  return { kind: 'cluster', nodes: cluster ?? [] }
}

/** As long as what is read for https://www.rfc-editor.org/rfc/rfc2104#section-3 should be, at least. */
const minSecretBytes = 16

function readReplica(
  surroundings: Surroundings,
  input: NonNullable<ServerInput['replica']>,
): ReplicaConfig | undefined {
  const { url, secretFile, listen } = input
  if (url === undefined)
    surroundings.report(['replica'], 'needs url: under which the other replicas reach this one', { key: true })
  if (secretFile === undefined)
    surroundings.report(['replica'], 'needs secretFile: the secret that all replicas share', { key: true })
  if (url === undefined || secretFile === undefined) return undefined
  const path = readSecret(surroundings, ['replica', 'secretFile'], secretFile, minSecretBytes)
  return path === undefined ? undefined : { listen, url, secretFile: path }
}

/** The absolute path of a file that is there and long enough. */
function readSecret(
  surroundings: Surroundings,
  at: readonly string[],
  written: string,
  minBytes: number,
): string | undefined {
  const check = (content: string): string | undefined => {
    const length = Buffer.byteLength(content.trim())
    if (length === 0) return 'is empty'
    return length < minBytes ? `is too short: at least ${minBytes} bytes` : undefined
  }
  return readNamedFile(surroundings, at, written, check)?.path
}
