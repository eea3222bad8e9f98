import type { Command } from 'commander'
import { type Flags, type LoadedConfig, readConfig } from '../config/load.ts'
import { ConfigError } from '../config/problem.ts'
import { exitCode } from './exit.ts'
import type { Terminal } from './terminal.ts'

export type ConfigOptions = Flags & { readonly config?: string }

/** The options of every command that reads the configuration. */
export function addConfigOptions(command: Command): Command {
  return command
    .option('-c, --config <file>', 'configuration file (default: $LAYOVER_CONFIG, else ./layover.yaml if it is there)')
    .option('--listen <address>', 'where the registry listens: host:port, :5000, [::1]:5000')
    .option('--admin <address>', 'where /metrics, /livez, /readyz and /status listen')
    .option('--data-dir <directory>', 'where blobs and manifests are kept')
    .option('--max-bytes <size>', 'budget of the data directory, such as 50GiB')
    .option('--prefetch <what>', 'what a pulled manifest fetches ahead: off, config or all')
    .option('--offline', 'never dial an upstream')
    .option('--log-level <level>', 'trace, debug, info, warn, error or silent')
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
