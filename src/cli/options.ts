import { type Command, Option } from 'commander'
import { type Flags, type LoadedConfig, readConfig } from '../config/load.ts'
import { ConfigError } from '../config/problem.ts'
import { exitCode } from './exit.ts'
import type { Terminal } from './terminal.ts'

export type ConfigOptions = Flags & { readonly config?: string }

const settings: Readonly<Record<keyof Flags, readonly [flags: string, description: string]>> = {
  listen: ['--listen <address>', 'where the registry listens: host:port, :5000, [::1]:5000'],
  admin: ['--admin <address>', 'where the status page, /metrics, /livez, /readyz and /status are'],
  dataDir: ['--data-dir <directory>', 'where blobs and manifests are kept'],
  maxBytes: ['--max-bytes <size>', 'budget of the data directory, such as 50GiB'],
  prefetch: ['--prefetch <what>', 'what a pulled manifest fetches ahead: off, config or all'],
  offline: ['--offline', 'never dial an upstream'],
  logLevel: ['--log-level <level>', 'trace, debug, info, warn, error or silent'],
}
const everySetting = Object.keys(settings) as (keyof Flags)[]

/** The options of a command that reads the configuration: the file, and the settings that it uses (default: all). */
export function addConfigOptions(command: Command, used: readonly (keyof Flags)[] = everySetting): Command {
  command.option(
    '-c, --config <file>',
    'configuration file (default: $LAYOVER_CONFIG, else ./layover.yaml if it is there)',
  )
  for (const setting of used) command.addOption(new Option(...settings[setting]))
  return command
}

/** Reads the configuration as `serve` would; throws ConfigError. */
export function readConfigFor(options: ConfigOptions, terminal: Terminal): LoadedConfig {
  // Named one by one: the options of a command may hold more than settings.
  const { config, listen, admin, dataDir, maxBytes, prefetch, offline, logLevel } = options
  const flags = { listen, admin, dataDir, maxBytes, prefetch, offline, logLevel }
  return readConfig({ file: config, env: terminal.env, flags, cwd: terminal.cwd })
}

/** Prints every problem of a ConfigError; other errors pass. Gives the exit code. */
export function reportConfigError(error: unknown, terminal: Terminal): number {
  if (!(error instanceof ConfigError)) throw error
  terminal.err(`${error.message}\n`)
  return exitCode.usage
}
