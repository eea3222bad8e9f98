import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import type { Fault } from './faults.ts'

/** An answer before it is written. `body` absent: no body at all. */
export type Answer = {
  readonly status: number
  readonly headers: Record<string, string | string[]>
  readonly body?: Uint8Array
}

type WriteOptions = {
  readonly response: ServerResponse
  readonly answer: Answer
  readonly fault: Fault | undefined
  readonly gate: { at: number; wait(): Promise<void> } | undefined
  readonly head: boolean
  readonly onBytes: (bytes: number) => void
}

const chunkBytes = 64 * 1024

/** Writes an answer with backpressure, broken in the way that `fault` says. */
export async function writeAnswer({ response, answer, fault, gate, head, onBytes }: WriteOptions): Promise<void> {
  const plan = planned(answer, fault)
  if (plan.closeDelimited) {
    // Without a length and without chunks the end of the connection is the end of the body.
    response.useChunkedEncodingByDefault = false
    response.shouldKeepAlive = false
  }
  response.writeHead(plan.status, plan.headers)
  if (head || answer.body === undefined) {
    response.end()
    return
  }
  response.flushHeaders()
  const stops = [gate?.at, plan.stopAt].filter(at => at !== undefined)
  let position = 0
  while (position < plan.body.length) {
    if (gate !== undefined && position === gate.at) await gate.wait()
    if (position === plan.stopAt) break
    const next = Math.min(position + plan.chunkBytes, plan.body.length, ...stops.filter(at => at > position))
    if (!(await writeChunk(response, plan.body.subarray(position, next), onBytes))) return
    position = next
    if (plan.chunkDelayMs > 0) await sleep(plan.chunkDelayMs)
  }
  if (gate !== undefined && position === gate.at && position === plan.body.length) await gate.wait()
  finish(response, plan)
}

type Plan = {
  status: number
  headers: Record<string, string | string[]>
  body: Uint8Array
  stopAt: number | undefined
  ending: 'end' | 'fin' | 'rst' | 'stall'
  closeDelimited: boolean
  chunkBytes: number
  chunkDelayMs: number
}

function planned(answer: Answer, fault: Fault | undefined): Plan {
  const body = answer.body ?? new Uint8Array()
  const plan: Plan = {
    status: answer.status,
    headers: { 'content-length': String(body.length), ...answer.headers },
    body,
    stopAt: undefined,
    ending: 'end',
    closeDelimited: false,
    chunkBytes,
    chunkDelayMs: 0,
  }
  if (answer.status === 204 || answer.status === 304) delete plan.headers['content-length']
  switch (fault?.kind) {
    case 'cut':
      return { ...plan, stopAt: Math.min(fault.at, body.length), ending: fault.how }
    case 'stall':
      return { ...plan, stopAt: Math.min(fault.at, body.length), ending: 'stall' }
    case 'slow':
      return { ...plan, chunkBytes: Math.max(1, Math.round(fault.bytesPerSecond / 20)), chunkDelayMs: 50 }
    case 'flip':
      return { ...plan, body: flipped(body, fault.at) }
    case 'lie':
      return { ...plan, headers: { ...plan.headers, 'content-length': String(fault.contentLength) }, ending: 'fin' }
    case 'longer':
      return { ...plan, body: Buffer.concat([body, Buffer.alloc(fault.extra, 0x78)]), ending: 'fin' }
    case 'noLength':
      return {
        ...plan,
        headers: without(plan.headers, 'content-length'),
        closeDelimited: true,
        stopAt: fault.closeAt,
        ending: fault.how ?? 'fin',
      }
    case 'chunked':
      return {
        ...plan,
        headers: without(plan.headers, 'content-length'),
        stopAt: fault.cutAt,
        ending: fault.cutAt === undefined ? 'end' : 'fin',
      }
    case 'gzip': {
      const packed = gzipSync(body)
      const headers = { ...plan.headers, 'content-encoding': 'gzip', 'content-length': String(packed.length) }
      return { ...plan, body: packed, headers }
    }
    default:
      return plan
  }
}

function without(headers: Record<string, string | string[]>, name: string): Record<string, string | string[]> {
  return Object.fromEntries(Object.entries(headers).filter(([key]) => key !== name))
}

function flipped(body: Uint8Array, at: number): Uint8Array {
  const copy = Buffer.from(body)
  copy[at] = (copy[at] ?? 0) ^ 1
  return copy
}

/** False when the other side has gone. */
function writeChunk(response: ServerResponse, chunk: Uint8Array, onBytes: (bytes: number) => void): Promise<boolean> {
  if (response.destroyed || response.socket === null || response.socket.destroyed) return Promise.resolve(false)
  return new Promise(resolve => {
    const gone = (): void => resolve(false)
    response.once('close', gone)
    // The callback comes when the kernel has the bytes, which is the backpressure that we want.
    response.write(chunk, error => {
      response.off('close', gone)
      if (!error) onBytes(chunk.length)
      resolve(!error)
    })
  })
}

function finish(response: ServerResponse, plan: Plan): void {
  const socket: Socket | null = response.socket
  if (plan.ending === 'stall') return
  if (plan.ending === 'end') response.end()
  else if (plan.ending === 'rst') socket?.resetAndDestroy()
  else socket?.end()
}
