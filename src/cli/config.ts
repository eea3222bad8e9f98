import { existsSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { formatAddress } from '../config/address.ts'
import { configJsonSchema } from '../config/schema.ts'
import { describeSystemError } from '../config/secrets.ts'
import { describeConfig } from '../config/show.ts'
import { formatSize } from '../config/size.ts'
import { starterFile } from '../config/starter.ts'
import { exitCode } from './exit.ts'
import { type ConfigOptions, readConfigFor, reportConfigError } from './options.ts'
import type { Terminal } from './terminal.ts'
import { loudWarnings } from './warnings.ts'

/** Says whether `serve` would accept the configuration: a summary, or every problem. Gives the exit code. */
export function checkConfig(options: ConfigOptions, terminal: Terminal): number {
  try {
    const { config, file } = readConfigFor(options, terminal)
    const names = config.upstreams.map(({ name }) => name)
    const fallback = config.upstreams.find(upstream => upstream.default)?.name ?? 'none'
    terminal.out(
      [
        `ok: ${file ?? 'no file, built-in defaults'}`,
        `  registry    ${formatAddress(config.listen)}`,
        `  admin       ${formatAddress(config.admin)}`,
        `  data        ${config.dataDir}, at most ${formatSize(config.storage.maxBytes)}`,
        `  upstreams   ${names.join(', ')} (default: ${fallback})`,
        ...loudWarnings(config).map(warning => `  WARNING     ${warning}`),
        '',
      ].join('\n'),
    )
    return exitCode.ok
  } catch (error) {
    return reportConfigError(error, terminal)
  }
}

/** Prints the effective configuration as YAML. Gives the exit code. */
export function showConfig(options: ConfigOptions, terminal: Terminal): number {
  try {
    terminal.out(describeConfig(readConfigFor(options, terminal)))
    return exitCode.ok
  } catch (error) {
    return reportConfigError(error, terminal)
  }
}

export function printSchema(terminal: Terminal): number {
  terminal.out(`${JSON.stringify(configJsonSchema(), undefined, 2)}\n`)
  return exitCode.ok
}

/** Writes a starter file, and its schema beside it for editors. Refuses to replace a configuration. Gives the exit code. */
export function initConfig(file: string, terminal: Terminal): number {
  const path = resolve(terminal.cwd, file)
  const schema = join(dirname(path), 'layover.schema.json')
  try {
    // wx: fails when it is there, without a moment between looking and writing.
    writeFileSync(path, starterFile(basename(schema)), { flag: 'wx' })
    const schemaIsNew = !existsSync(schema)
    writeFileSync(schema, `${JSON.stringify(configJsonSchema(), undefined, 2)}\n`)
    terminal.out(
      `wrote ${path}${schemaIsNew ? ` and ${basename(schema)} beside it` : ''}\nnext: layover config check --config ${path}\n`,
    )
    return exitCode.ok
  } catch (error) {
    const exists = error instanceof Error && 'code' in error && error.code === 'EEXIST'
    terminal.err(
      exists
        ? `${path} is there already: it was left alone\n`
        : `cannot write ${path}: ${describeSystemError(error)}\n`,
    )
    return exitCode.usage
  }
}
