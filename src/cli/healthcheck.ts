import { get } from 'node:http'
import { formatAddress, isUnspecified } from '../config/address.ts'
import type { Address } from '../config/config.ts'
import { describeError } from '../log/redact.ts'
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
    const url = options.url ?? `http://${formatAddress(dialable(readConfigFor(options, terminal).config.admin))}/livez`
    const status = await statusOf(url)
    if (status === 200) return exitCode.ok
    terminal.err(`not healthy: ${url} answered ${status}\n`)
  } catch (error) {
    if (error instanceof Error && error.name === 'ConfigError') return reportConfigError(error, terminal)
    terminal.err(`not healthy: ${describeError(error)}\n`)
  }
  return exitCode.usage
}

/** "Every address" can be listened on, not dialled. */
function dialable({ host, port }: Address): Address {
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
