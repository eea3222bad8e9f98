import type { IncomingMessage } from 'node:http'
import { RegistryError, unsupported } from '../oci/errors.ts'

/** What is in the body of a GET is nobody's business; more than this is not even read (P-17, F-69). */
const maxBodyBytes = 64 * 1024

/**
 * Refuses what a registry client never sends, before anything is looked up: two Host headers or none (P-19), odd transfer codings (T-31),
 * bodies, expectations (P-17), methods that write (P-15, P-16), and our own requests coming back to us (P-105).
 */
export function checkRequest(req: IncomingMessage, via: string): void {
  const { method = '', headers } = req
  if (!isRead(method))
    throw unsupported(`${method} is not supported: this is a read-only cache, push to the registry itself`)
  const hosts = countHosts(req)
  if (hosts > 1 || (hosts === 0 && req.httpVersion !== '1.0'))
    throw new RegistryError(400, 'UNSUPPORTED', 'a request takes exactly one Host header')
  const coding = headers['transfer-encoding']
  if (coding !== undefined && coding !== 'chunked')
    throw new RegistryError(400, 'UNSUPPORTED', 'unknown transfer coding', { headers: { connection: 'close' } })
  if (Number(headers['content-length'] ?? 0) > maxBodyBytes)
    throw new RegistryError(413, 'SIZE_INVALID', 'a GET request takes no body', { headers: { connection: 'close' } })
  if (headers.expect !== undefined && headers.expect.toLowerCase() !== '100-continue')
    throw new RegistryError(417, 'UNSUPPORTED', 'the only expectation that can be met is 100-continue')
  if (headers.via !== undefined && headers.via.includes(via))
    throw new RegistryError(508, 'UNAVAILABLE', 'this cache was asked by itself: an upstream URL points back at it')
}

/**
 * True when so much may follow the headers that the connection is better closed after the answer than read to the end of the body (F-69).
 * A short body of a GET is skipped instead, and the connection kept.
 */
export function isBodyLeftUnread({ method = '', headers }: IncomingMessage): boolean {
  if (headers['transfer-encoding'] !== undefined) return true
  const length = Number(headers['content-length'] ?? 0)
  return length > maxBodyBytes || (length > 0 && !isRead(method))
}

function isRead(method: string): boolean {
  return method === 'GET' || method === 'HEAD'
}

function countHosts(req: IncomingMessage): number {
  let hosts = 0
  for (let index = 0; index < req.rawHeaders.length; index += 2) {
    const name = req.rawHeaders[index]
    if (name?.length === 4 && name.toLowerCase() === 'host') hosts++
  }
  return hosts
}
