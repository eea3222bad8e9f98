import { randomUUID } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { formatAddress } from '../config/address.ts'
import type { Config } from '../config/config.ts'
import { formatDuration } from '../config/duration.ts'
import type { LoadedConfig } from '../config/load.ts'
import { describeSystemError } from '../config/secrets.ts'
import { makeDirectory } from '../store/make-directory.ts'
import { formatSize } from '../config/size.ts'
import { createLog, type Log } from '../log/log.ts'
import { describeError, redactText } from '../log/redact.ts'
import { version } from '../version.ts'
import { exitCode } from './exit.ts'
import { type ConfigOptions, readConfigFor, reportConfigError } from './options.ts'
import type { Terminal } from './terminal.ts'
import { loudWarnings } from './warnings.ts'

/** What `compose.ts` gives for a running registry. */
export type Running = {
  readonly registryUrl: string
  readonly adminUrl: string
  /** Stops accepting and waits for running responses up to the configured time; `now`: does not wait. */
  close(options?: { readonly now?: boolean }): Promise<void>
}

export type Start = (parts: { readonly config: Config; readonly log: Log }) => Promise<Running>

/** Runs the registry until a signal; gives the exit code. */
export async function serve(options: ConfigOptions, terminal: Terminal): Promise<number> {
  let loaded: LoadedConfig
  try {
    loaded = readConfigFor(options, terminal)
    prepareDirectory(loaded.config.dataDir)
  } catch (error) {
    if (!(error instanceof CannotStart)) return reportConfigError(error, terminal)
    terminal.err(`${error.message}\n`)
    return exitCode.usage
  }
  const { startLayover } = await import('../compose.ts')
  return serveUntilSignal(loaded, startLayover, terminal)
}

class CannotStart extends Error {
  override readonly name = 'CannotStart'
}

async function serveUntilSignal(loaded: LoadedConfig, start: Start, terminal: Terminal): Promise<number> {
  const { config } = loaded
  const log = createLog({ level: config.log.level })
  const stop = listenForStop(log, config)
  let running: Running
  try {
    running = await start({ config, log })
  } catch (error) {
    const known = describeStartError(error, config)
    terminal.err(`${known ?? `cannot start: ${describeFailure(error)}`}\n`)
    return known === undefined ? exitCode.failed : exitCode.usage
  }
  announce({ loaded, running, log, terminal })
  await stop
  try {
    await running.close()
    log.info('stopped')
    return exitCode.ok
  } catch (error) {
    log.error({ error }, 'could not stop cleanly')
    return exitCode.failed
  }
}

/** Resolves with the first SIGTERM or SIGINT. The second ends the process at once: whoever sends it knows what runs. */
function listenForStop(log: Log, config: Config): Promise<void> {
  return new Promise(resolve => {
    let stopping = false
    const onSignal = (signal: NodeJS.Signals): void => {
      if (stopping) process.exit(exitCode.ok)
      stopping = true
      log.info(
        { signal },
        `stopping: running responses have up to ${formatDuration(config.drainMs)}, a second signal ends at once`,
      )
      resolve()
    }
    process.on('SIGTERM', onSignal)
    process.on('SIGINT', onSignal)
  })
}

/**
 * Writing a file is the only proof: mode bits say nothing about read-only mounts, quotas and other users' mounts.
 * A full disk is not for this to judge: the stores make room, or say that there is none (F-34).
 */
function prepareDirectory(directory: string): void {
  const probe = join(directory, `.probe-${randomUUID()}`)
  try {
    makeDirectory(directory, 0o750)
    writeFileSync(probe, '')
    rmSync(probe)
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && (cause.code === 'ENOSPC' || cause.code === 'EDQUOT')) return
    throw new CannotStart(
      `cannot write to the data directory ${directory}: ${describeSystemError(cause)}. Make it writable for this user, or choose another with --data-dir or LAYOVER_DATA_DIR.`,
      { cause },
    )
  }
}

/** Of a data directory that another Layover has, without SQLite's own words for it: a "database is locked" would be taken for damage. */
function describeFailure(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined
  // 5: SQLITE_BUSY
  const isHeld = cause instanceof Error && 'errcode' in cause && cause.errcode === 5
  return isHeld && error instanceof Error ? redactText(error.message) : describeError(error)
}

/** What to do about an address that cannot be listened on; undefined: it is something else. */
export function describeStartError(error: unknown, config: Config): string | undefined {
  const found = findListenError(error)
  if (found === undefined) return undefined
  const [what, flag, address] = listenerOf(found.port, config)
  const why: Readonly<Record<string, string>> = {
    EADDRINUSE: `${address} is in use by another program. Stop that, or choose another address with ${flag}`,
    EACCES: `this user may not listen on ${address}. Choose a port above 1023 with ${flag}`,
    EADDRNOTAVAIL: `this machine has no address ${address}. Choose one that it has, or 0.0.0.0 for all, with ${flag}`,
    ENOTFOUND: `the name in ${address} cannot be resolved. Choose an address with ${flag}`,
  }
  const reason = why[found.code]
  return reason && `cannot start ${what}: ${reason}.`
}

/** What it is for, what sets it, and the address. */
function listenerOf(port: number | undefined, { listen, admin, replica }: Config): readonly [string, string, string] {
  if (port !== undefined && port === admin.port) return ['the admin listener', '--admin', formatAddress(admin)]
  if (port !== undefined && replica && port === replica.listen.port && port !== listen.port)
    return ['the listener for other replicas', 'replica.listen', formatAddress(replica.listen)]
  return ['the registry', '--listen', formatAddress(listen)]
}

function findListenError(error: unknown): { readonly code: string; readonly port: number | undefined } | undefined {
  for (let current = error, depth = 0; current instanceof Error && depth < 8; current = current.cause, depth++) {
    const { code, syscall, port } = current as NodeJS.ErrnoException & { port?: number }
    if (code !== undefined && (syscall === 'listen' || syscall === 'bind' || syscall === 'getaddrinfo'))
      return { code, port }
  }
  return undefined
}

function announce(started: { loaded: LoadedConfig; running: Running; log: Log; terminal: Terminal }): void {
  const { loaded, running, log, terminal } = started
  const { config, file } = loaded
  const warnings = loudWarnings(config)
  if (terminal.interactive) {
    terminal.err(describeStart(loaded, running, warnings))
    return
  }
  log.info(
    {
      version,
      registry: running.registryUrl,
      admin: running.adminUrl,
      dataDir: config.dataDir,
      maxBytes: config.storage.maxBytes,
      config: file ?? 'built-in',
      upstreams: config.upstreams.map(({ name }) => name),
      ...(config.offline ? { offline: true } : {}),
    },
    'ready',
  )
  for (const warning of warnings) log.warn(warning)
}

function describeStart({ config, file }: LoadedConfig, running: Running, warnings: readonly string[]): string {
  const lines = [
    `Layover ${version}`,
    `  registry    ${running.registryUrl}`,
    `  admin       ${running.adminUrl}  (a page for browsers, /status /metrics /livez /readyz)`,
    `  data        ${config.dataDir}, at most ${formatSize(config.storage.maxBytes)}`,
    `  config      ${file ?? 'built-in defaults'}`,
    `  upstreams   ${config.upstreams.map(({ name }) => name).join(', ')}${config.offline ? '  (offline: none is asked)' : ''}`,
    ...warnings.map(warning => `  WARNING     ${warning}`),
  ]
  return `${lines.join('\n')}\n`
}
