import { systemClock } from '../clock.ts'
import type { Config, RedisConfig, S3Config } from '../config/config.ts'
import { type Observer, silentObserver } from '../log/observer.ts'
import { describeError } from '../log/redact.ts'
import { exitCode } from './exit.ts'
import { type ConfigOptions, readConfigFor, reportConfigError } from './options.ts'
import type { Terminal } from './terminal.ts'

export type ReindexCommandOptions = ConfigOptions & {
  /** Goes on after this key, as an earlier run printed it. */
  readonly after?: string
}

/** Fills Redis from the records in the bucket. Progress goes to the error stream. Gives the exit code. */
export async function reindexRedis(options: ReindexCommandOptions, terminal: Terminal): Promise<number> {
  let config: Config
  try {
    config = readConfigFor(options, terminal).config
  } catch (error) {
    return reportConfigError(error, terminal)
  }
  const { s3, redis } = config
  if (s3 && redis) return fill({ s3, redis, after: options.after }, terminal)
  terminal.err('nothing to rebuild: reindex fills Redis from the bucket, and this configuration does not have both\n')
  return exitCode.usage
}

type Filling = { readonly s3: S3Config; readonly redis: RedisConfig; readonly after: string | undefined }

async function fill({ s3, redis, after }: Filling, terminal: Terminal): Promise<number> {
  const { isReindexKey, reindex } = await import('../store/reindex.ts')
  const { openRedisMetadata } = await import('../store/redis-metadata.ts')
  const { openS3Archive } = await import('../store/s3-archive.ts')
  if (after !== undefined && !isReindexKey(after)) {
    terminal.err(`--after takes a key that an earlier run printed, not ${JSON.stringify(after)}\n`)
    return exitCode.usage
  }
  let wentAway = false
  const observer: Observer = {
    ...silentObserver,
    storeFailed: (operation, error) => {
      // Also when it is back by the end of a page: what was put meanwhile is not there.
      wentAway ||= operation === 'redis.unavailable'
      terminal.err(`${operation}: ${describeError(error)}\n`)
    },
  }
  const metadata = await openRedisMetadata({ config: redis, clock: systemClock, observer })
  const archive = openS3Archive({ config: s3, clock: systemClock, observer, readTimeoutMs: s3.requestTimeoutMs })
  // Writes that Redis refuses (memory, rights) leave it up.
  const isUp = (): boolean => !wentAway && metadata.usage().isUp && metadata.usage().refusals.length === 0
  let done = after
  try {
    if (!isUp()) throw new Error('Redis does not answer')
    await reindex({
      archive,
      metadata,
      observer,
      after,
      isUp,
      onProgress: progress => {
        done = progress.after
        const { stage, restored, kept, ignored } = progress
        terminal.err(`${stage}: ${restored} restored, ${kept} were there, ${ignored} ignored; done up to ${done}\n`)
      },
    })
    terminal.err('Redis has what the bucket has\n')
    return exitCode.ok
  } catch (error) {
    terminal.err(`stopped: ${describeError(error)}\n`)
    if (done !== undefined) terminal.err(`go on with: layover reindex --after '${done}'\n`)
    return exitCode.failed
  } finally {
    await archive.close()
    await metadata.close()
  }
}
