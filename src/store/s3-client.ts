import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import type { S3Config } from '../config/config.ts'
import type { Observer, SharedOperation } from '../log/observer.ts'
import { S3Error, s3Error } from './s3-error.ts'

export const connectTimeoutMs = 2_000

/** The bucket with the client that talks to it and who is told of the requests. */
export type S3Api = { readonly client: S3Client; readonly config: S3Config; readonly observer: Observer }

type Request = {
  readonly operation: SharedOperation
  /** Undefined: as long as bytes move. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
}

type Answer = { readonly $metadata: { readonly httpStatusCode?: number | undefined } }

const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {} }

/**
 * A client for the bucket's API. Credentials come from the default chain: environment, shared files, web identity, container, instance.
 * It tries once: what may be repeated, and when, is decided where the outcome is known.
 */
export function createS3Client(config: S3Config, shared: Pick<S3ClientConfig, 'credentials'> = {}): S3Client {
  const agent = { keepAlive: true, maxSockets: 128 }
  return new S3Client({
    ...shared,
    region: config.region,
    ...(config.endpoint !== undefined && { endpoint: config.endpoint }),
    forcePathStyle: config.pathStyle,
    maxAttempts: 1,
    // The SDK would write to the console; every failure comes back as an error, and is told once.
    logger: silent,
    // The default adds a trailer in aws-chunked framing, which some services refuse and others store as content.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: connectTimeoutMs,
      socketTimeout: config.requestTimeoutMs,
      httpAgent: agent,
      httpsAgent: agent,
    },
  })
}

/** Runs one request. Rejects with an {@link S3Error}: `timeout` after `timeoutMs`, `cancelled` when `signal` fired, … */
export async function request<Result extends Answer>(
  { observer }: S3Api,
  { operation, timeoutMs, signal }: Request,
  send: (options: { abortSignal?: AbortSignal }) => Promise<Result>,
): Promise<Result> {
  const startedAt = performance.now()
  const secondsSince = (): number => (performance.now() - startedAt) / 1000
  const timeout = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs)
  const signals = [signal, timeout].filter(one => one !== undefined)
  try {
    const answer = await send(signals.length === 0 ? {} : { abortSignal: AbortSignal.any(signals) })
    observer.sharedRequest(operation, String(answer.$metadata.httpStatusCode ?? 200), secondsSince())
    return answer
  } catch (cause) {
    const error = failureOf(operation, cause, { timeout, signal })
    observer.sharedRequest(operation, error.reason, secondsSince())
    throw error
  }
}

type Signals = { readonly timeout: AbortSignal | undefined; readonly signal: AbortSignal | undefined }

function failureOf(operation: SharedOperation, cause: unknown, { timeout, signal }: Signals): S3Error {
  if (signal?.aborted === true) return new S3Error('cancelled', `the bucket: ${operation} was cancelled`, signal.reason)
  if (timeout?.aborted === true) return new S3Error('timeout', `the bucket: no answer to ${operation} in time`)
  return s3Error(operation, cause)
}
