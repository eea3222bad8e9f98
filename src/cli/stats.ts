import { get } from 'node:http'
import { parseDuration } from '../config/duration.ts'
import { formatAddress } from '../config/address.ts'
import { ConfigError } from '../config/problem.ts'
import { describeError, redactUrl } from '../log/redact.ts'
import type { SavingsStats } from '../metrics/savings.ts'
import { exitCode } from './exit.ts'
import { dialable } from './healthcheck.ts'
import { type ConfigOptions, readConfigFor, reportConfigError } from './options.ts'
import { statsTable } from './stats-table.ts'
import type { Terminal } from './terminal.ts'

export type StatsOptions = ConfigOptions & {
  readonly url?: string
  readonly since?: string
  readonly last?: string
  readonly json?: boolean
}

const timeoutMs = 10_000
/** A page of a few hundred upstreams is far smaller. */
const maxBytes = 4 * 1024 * 1024

/** Asks the admin listener of a running Layover what was saved, and prints it. Gives 0, 1 for usage, 2 when it cannot be told. */
export async function stats(options: StatsOptions, terminal: Terminal, now = Date.now()): Promise<number> {
  let url: URL
  try {
    url = new URL('/savings', baseOf(options, terminal))
    const since = sinceOf(options, now)
    if (since !== undefined) url.searchParams.set('since', new Date(since).toISOString())
  } catch (error) {
    return reportConfigError(error, terminal)
  }
  try {
    const found = readStats(await textOf(url))
    terminal.out(options.json === true ? `${JSON.stringify(found, null, 2)}\n` : statsTable(found))
    return exitCode.ok
  } catch (error) {
    terminal.err(`cannot tell: ${redactUrl(url.href)}: ${describeFailure(error)}\n`)
    return exitCode.failed
  }
}

function baseOf(options: StatsOptions, terminal: Terminal): string {
  const { url } = options
  if (url === undefined) return `http://${formatAddress(dialable(readConfigFor(options, terminal).config.admin))}`
  if (/^http:\/\//i.test(url) && URL.canParse(url)) return url
  throw wrong('--url', `expected a URL such as http://127.0.0.1:5001, the admin address of a Layover`)
}

function sinceOf({ since, last }: StatsOptions, now: number): number | undefined {
  if (since !== undefined && last !== undefined) throw wrong('--last', 'only one of --since and --last can be used')
  if (last !== undefined) {
    const ms = parseDuration(last)
    if (ms === undefined || ms === 0) throw wrong('--last', `expected a duration such as 24h or 30d`)
    return now - ms
  }
  if (since === undefined) return undefined
  const at = /^\d{4}-\d{2}/.test(since) ? Date.parse(since) : Number.NaN
  if (!Number.isFinite(at)) throw wrong('--since', `expected a date such as 2026-11-01 or 2026-11-01T16:00:00Z`)
  if (at > now) throw wrong('--since', 'is in the future')
  return at
}

const wrong = (where: string, message: string): ConfigError => new ConfigError([{ where, message }])

function textOf(url: URL): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { signal: AbortSignal.timeout(timeoutMs), agent: false }, response => {
      const chunks: Buffer[] = []
      let size = 0
      response.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size > maxBytes) response.destroy(new NotLayover())
        else chunks.push(chunk)
      })
      response.on('error', reject)
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8')
        if (response.statusCode === 200) resolve(text)
        else reject(response.statusCode === 404 ? new NotLayover() : refusal(response.statusCode, text))
      })
    })
    request.on('error', reject)
  })
}

/** With what it says of it, which is in the words of this program or another. */
function refusal(status: number | undefined, text: string): Error {
  const [, said] = /"error": ?"([^"\\]{1,200})"/.exec(text) ?? []
  return new Error(said ?? `it answered ${status}`)
}

/** Something else listens there. */
class NotLayover extends Error {
  override readonly name = 'NotLayover'
}

function readStats(text: string): SavingsStats {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new NotLayover('no JSON', { cause })
  }
  if (isStats(value)) return value
  throw new NotLayover()
}

/** Only what the table is made of would matter, and all of it comes together. */
function isStats(value: unknown): value is SavingsStats {
  return typeof value === 'object' && value !== null && 'pullsAvoided' in value && 'upstreams' in value
}

function describeFailure(error: unknown): string {
  if (error instanceof NotLayover)
    return 'this is no admin listener of a Layover of this version; --url takes its address, such as http://127.0.0.1:5001'
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'ECONNREFUSED')
    return 'nobody listens there. Is Layover running? --url takes the admin address of another one'
  if (error instanceof Error && (error.name === 'TimeoutError' || code === 'ABORT_ERR')) return 'no answer in time'
  return describeError(error)
}
