import { connect } from 'node:net'

export type RawResponse = {
  readonly status: number
  /** Lower-case names; repeated ones joined with ", ". */
  readonly headers: Readonly<Record<string, string>>
  /** Everything after the headers, as it came. */
  readonly body: Buffer
  /** How the connection ended: by FIN, by an error (RST), or not within the time given. */
  readonly ending: 'fin' | 'reset' | 'open'
}

/** Longer than a busy machine stands still: who waits for so long waits for something that does not come. */
const unhurriedMs = 20_000

/**
 * Sends bytes as they are and collects what comes back until the other side ends the connection, `enough` says so, or `timeoutMs` passed.
 * For what an HTTP client would hide: framing, two answers on one socket, how a connection ends.
 */
export function exchangeRaw(
  port: number,
  request: string,
  { enough, timeoutMs = unhurriedMs }: { enough?: (received: Buffer) => boolean; timeoutMs?: number } = {},
): Promise<{ bytes: Buffer; ending: RawResponse['ending'] }> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    const chunks: Buffer[] = []
    const finish = (ending: RawResponse['ending']): void => {
      clearTimeout(timer)
      socket.destroy()
      resolve({ bytes: Buffer.concat(chunks), ending })
    }
    const timer = setTimeout(() => finish('open'), timeoutMs)
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      if (enough?.(Buffer.concat(chunks))) finish('open')
    })
    socket.on('end', () => finish('fin'))
    socket.on('error', () => finish('reset'))
    socket.write(request)
  })
}

/**
 * One GET, HEAD, … on a connection of its own (`Connection: close` unless headers say otherwise). Rejects when the connection does not end, unless
 * `timeoutMs` says for how long to look: a body that is short for want of time must not pass for one that was cut.
 */
export async function rawRequest(
  port: number,
  target: string,
  {
    method = 'GET',
    headers = {},
    timeoutMs,
  }: { method?: string; headers?: Record<string, string>; timeoutMs?: number } = {},
): Promise<RawResponse> {
  const all = { host: `127.0.0.1:${port}`, connection: 'close', ...headers }
  const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  const { bytes, ending } = await exchangeRaw(
    port,
    `${method} ${target} HTTP/1.1\r\n${head.join('')}\r\n`,
    timeoutMs === undefined ? {} : { timeoutMs },
  )
  if (ending === 'open' && timeoutMs === undefined)
    throw new Error(`${method} ${target}: no end after ${unhurriedMs / 1000} s and ${bytes.length} bytes`)
  return { ...parseResponse(bytes), ending }
}

/** Splits one response into its parts. */
export function parseResponse(bytes: Buffer): Omit<RawResponse, 'ending'> {
  const end = bytes.indexOf('\r\n\r\n')
  const [statusLine = '', ...lines] = bytes.subarray(0, Math.max(0, end)).toString('latin1').split('\r\n')
  const headers: Record<string, string> = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    const value = line.slice(colon + 1).trim()
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value
  }
  return { status: Number(statusLine.split(' ')[1] ?? 0), headers, body: bytes.subarray(end + 4) }
}
