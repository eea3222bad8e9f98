import { get } from 'node:http'
import { formatAddress, isUnspecified } from '../config/address.ts'
import type { Address } from '../config/config.ts'
import { ConfigError } from '../config/problem.ts'
import { describeError, redactUrl } from '../log/redact.ts'
import { exitCode } from './exit.ts'
import { type ConfigOptions, readConfigFor, reportConfigError } from './options.ts'
import type { Terminal } from './terminal.ts'

const timeoutMs = 3000

/** Asks the admin listener of this configuration for /livez. Gives 0 when it answers 200, else 1, as HEALTHCHECK wants. */
export async function healthcheck(
  options: ConfigOptions & { readonly url?: string },
  terminal: Terminal,
): Promise<number> {
  try {
    const url =
      readUrl(options.url) ?? `http://${formatAddress(dialable(readConfigFor(options, terminal).config.admin))}/livez`
    const status = await statusOf(url)
    if (status === 200) return exitCode.ok
    terminal.err(`not healthy: ${redactUrl(url)} answered ${status}\n`)
  } catch (error) {
    if (error instanceof ConfigError) return reportConfigError(error, terminal)
    terminal.err(`not healthy: ${describeError(error)}\n`)
  }
  return exitCode.usage
}

function readUrl(given: string | undefined): string | undefined {
  if (given === undefined) return undefined
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(given)?.[1]?.toLowerCase()
  const wrong = (problem: string): ConfigError =>
    new ConfigError([{ where: '--url', message: `${problem}, expected a URL such as http://127.0.0.1:5001/livez` }])
  if (scheme === undefined) throw wrong('http:// is missing')
  if (scheme !== 'http') throw wrong('only http:// is asked')
  if (!URL.canParse(given)) throw wrong('is no URL')
  return given
}

/** "Every address" can be listened on, not dialled. */
export function dialable({ host, port }: Address): Address {
  if (!isUnspecified(host)) return { host, port }
  return { host: host === '::' ? '::1' : '127.0.0.1', port }
}

function statusOf(url: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = get(url, { signal: AbortSignal.timeout(timeoutMs), agent: false }, response => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    request.on('error', reject)
  })
}
