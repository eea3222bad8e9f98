import { type Clock, systemClock } from '../clock.ts'
import type { Config } from '../config/config.ts'
import { version } from '../version.ts'
import { type Check, type Finding, runCheck } from './doctor/check.ts'
import { dataDirectoryCheck } from './doctor/data-directory.ts'
import { listenerChecks } from './doctor/listeners.ts'
import { FindingsScreen } from './doctor/screen.ts'
import { upstreamChecks } from './doctor/upstreams.ts'
import { exitCode } from './exit.ts'
import { type ConfigOptions, readConfigFor, reportConfigError } from './options.ts'
import type { Terminal } from './terminal.ts'

export type DoctorOptions = ConfigOptions & {
  /** One JSON object instead of lines. */
  readonly json?: boolean
  /** A person reads the output stream. */
  readonly isTerminal?: boolean
  readonly clock?: Clock
  /** For each check; default 5 seconds. */
  readonly timeBoxMs?: number
}

const defaultTimeBoxMs = 5000

/**
 * Looks at everything that `serve` would use with this configuration, and says what is wrong and what to do. All checks run, also after
 * one failed. Gives the exit code: 0, or 3 when a check failed; 1 when the configuration itself cannot be read.
 */
export async function doctor(options: DoctorOptions, terminal: Terminal): Promise<number> {
  let config: Config
  try {
    config = readConfigFor(options, terminal).config
  } catch (error) {
    return reportConfigError(error, terminal)
  }
  const { clock = systemClock, timeBoxMs = defaultTimeBoxMs, json = false } = options
  const groups = await planChecks(config, clock)
  const isColoured = options.isTerminal === true && (terminal.env['NO_COLOR'] ?? '') === ''
  const screen = new FindingsScreen({ names: groups.flat().map(({ name }) => name), isColoured })
  const findings: Finding[] = []
  for (const group of groups) {
    const found = (await Promise.all(group.map(check => runCheck(check, timeBoxMs)))).flat()
    findings.push(...found)
    if (!json) terminal.out(screen.lines(found))
  }
  const isOk = findings.every(({ verdict }) => verdict !== 'FAIL')
  terminal.out(json ? `${JSON.stringify({ ok: isOk, version, findings }, undefined, 2)}\n` : screen.summary(findings))
  return isOk ? exitCode.ok : exitCode.checkFailed
}

/** In the order of the report; what stands in one group runs at once. The clients of Redis and S3 are loaded where they are configured. */
async function planChecks(config: Config, clock: Clock): Promise<readonly (readonly Check[])[]> {
  const { redis, s3, replica } = config
  const groups: (readonly Check[])[] = [
    [dataDirectoryCheck(config)],
    listenerChecks(config),
    upstreamChecks(config, clock),
  ]
  if (redis) groups.push([(await import('./doctor/redis.ts')).redisCheck(redis, clock)])
  if (s3) groups.push([(await import('./doctor/bucket.ts')).bucketCheck(s3, clock)])
  if (replica) groups.push([(await import('./doctor/replica.ts')).replicaCheck(replica, clock)])
  return groups
}
