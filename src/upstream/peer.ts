import { LRUCache } from 'lru-cache'
import { Pool } from 'undici'
import type { Clock } from '../clock.ts'
import type { Digest } from '../oci/digest.ts'
import { noTracer, type Tracer } from '../tracing/tracer.ts'
import { classOfHost } from './addresses.ts'
import { matchingRange } from './content-range.ts'
import { transportError } from './failure.ts'
import { type ReplicaSecret, signRequest, toldClock } from './replica-signature.ts'
import { discard, headerOf, type TransportAnswer } from './transport.ts'
import { UpstreamBody } from './upstream-body.ts'
import { type UpstreamBlob, UpstreamError } from './upstream.ts'
import { userAgent } from './user-agent.ts'

/** Another replica, as a place to read the blobs that it downloads or holds. */
export interface Peer {
  /**
   * Opens the bytes from `offset` on, as they arrive there. Resolves when the other replica knows the blob's size or that upstream does not say
   * it; while its upstream has not answered, the question is asked again and again. The caller reads `body` to its end or destroys it; it errors
   * when the connection breaks or stays idle. Bytes are not verified here.
   *
   * Throws {@link UpstreamError}: `notFound`, it neither downloads nor holds the blob; `denied`, its secret is not ours; `unavailable`, it cannot
   * be reached, does not answer or its upstream does not; `invalid`, it answers something else. Rejects with the signal's reason.
   */
  open(digest: Digest, offset: number, signal: AbortSignal): Promise<UpstreamBlob>
  close(): Promise<void>
}

export type PeerTimeouts = {
  readonly connectMs: number
  /** The other replica answers within a second, if only that its upstream has not answered yet. */
  readonly headersMs: number
  /** No byte for this long: its upstream stalls, or it does. */
  readonly idleMs: number
  /** In all, for its upstream to begin to answer: as long as a lease lives without progress. */
  readonly openMs: number
}

export const peerTimeouts: PeerTimeouts = { connectMs: 1_000, headersMs: 2_000, idleMs: 5_000, openMs: 10_000 }

export type PeerOptions = {
  /** `http://host:port` of its internal listener. */
  readonly url: string
  readonly secret: ReplicaSecret
  readonly clock: Clock
  readonly timeouts?: PeerTimeouts
  /** The other replica is told the trace too. Default: nothing is traced. */
  readonly tracer?: Tracer
  /** Told of the bytes of bodies as they arrive. */
  readonly onBytes?: (bytes: number) => void
}

/** The word for other replicas in errors, logs and metrics: their addresses come and go. */
export const peerName = 'peer'

/** Where a replica answers the others: `/internal/fills/<digest>`. */
export const fillsPath = '/internal/fills/'

/** A client of one other replica. Throws for a URL that no replica can have. */
export function createPeer(options: PeerOptions): Peer {
  const { url, secret, clock, timeouts = peerTimeouts, onBytes = ignore, tracer = noTracer } = options
  const origin = originOf(url)
  const { host } = new URL(origin)
  const pool = new Pool(origin, {
    // HTTP/2's small windows make one stream slow.
    allowH2: false,
    connect: { timeout: timeouts.connectMs },
    headersTimeout: timeouts.headersMs,
    bodyTimeout: timeouts.idleMs,
    keepAliveTimeout: 30_000,
    maxHeaderSize: 16 * 1024,
  })

  /** How far the other replica's clock is ahead of ours, once it has said so. */
  let aheadMs = 0

  const ask = async (path: string, range: string, signal: AbortSignal): Promise<TransportAnswer> => {
    const request = { method: 'GET', path, range }
    const answer = await send(path, range, signal)
    if (answer.status !== 401) return answer
    const told = toldClock({ secret, request, challenge: headerOf(answer, 'www-authenticate') })
    if (told === undefined) return answer
    discard(answer)
    aheadMs = told - clock.now()
    return send(path, range, signal)
  }

  const send = async (path: string, range: string, signal: AbortSignal): Promise<TransportAnswer> => {
    const traceparent = tracer.traceparent()
    const request = { method: 'GET', path, range }
    const authorization = signRequest({ secret, request, now: Math.round(clock.now() + aheadMs) })
    try {
      const answer = await pool.request({
        method: 'GET',
        path,
        headers: {
          range,
          authorization,
          'accept-encoding': 'identity',
          'user-agent': userAgent,
          ...(traceparent !== undefined && { traceparent }),
        },
        signal,
        highWaterMark: 256 * 1024,
      })
      return { status: answer.statusCode, headers: answer.headers, body: answer.body }
    } catch (error) {
      signal.throwIfAborted()
      throw transportError(peerName, error, { phase: 'headers', redirected: false })
    }
  }

  return {
    async open(digest, offset, signal) {
      const deadline = clock.monotonic() + timeouts.openMs
      const path = `${fillsPath}${digest}`
      for (;;) {
        const attributes = { 'server.address': host, 'layover.reference': digest }
        const answer = await tracer.child('peer read', attributes, async span => {
          const got = await ask(path, `bytes=${offset}-`, signal)
          span?.set({ 'http.response.status_code': got.status })
          return got
        })
        if (answer.status !== stillOpening) return blobOf(answer, offset, { signal, onBytes })
        discard(answer)
        if (clock.monotonic() >= deadline)
          throw failure('unavailable', 'timeout', 'the upstream of the other replica does not answer')
      }
    },
    close: () => pool.destroy(),
  }
}

/** 202: the other replica downloads it, and its upstream has not begun to answer. https://www.rfc-editor.org/rfc/rfc9110#section-15.3.3 */
export const stillOpening = 202

export type Peers = {
  /** The client of the replica at this URL; undefined for a URL that no replica can have. */
  at(url: string): Peer | undefined
  close(): Promise<void>
}

/** Pods come and go: the addresses of the latest are enough. */
const maxPeers = 64

/** Clients of other replicas by their URL, made when they are first needed. */
export function createPeers(options: Omit<PeerOptions, 'url'>): Peers {
  // One that is forgotten while a body is being read would cut it: bodies are resumed, and there are not that many replicas.
  const peers = new LRUCache<string, Peer>({ max: maxPeers, dispose: peer => void peer.close().catch(() => undefined) })
  return {
    at(url) {
      const known = peers.get(url)
      if (known !== undefined) return known
      try {
        const peer = createPeer({ ...options, url })
        peers.set(url, peer)
        return peer
      } catch {
        return undefined
      }
    },
    async close() {
      const open = [...peers.values()]
      peers.clear()
      await Promise.all(open.map(peer => peer.close()))
    },
  }
}

/** What stands in the shared store is not trusted: a plain origin, and none where metadata services live (T-2). */
function originOf(url: string): string {
  const { protocol, hostname, pathname, search, hash, username, password, origin } = new URL(url)
  const isPlain = pathname === '/' && search === '' && hash === '' && username === '' && password === ''
  if ((protocol === 'http:' || protocol === 'https:') && isPlain && classOfHost(hostname) !== 'never') return origin
  throw new Error('the URL of a replica is http://host:port, without path, query or user')
}

type Reading = { readonly signal: AbortSignal; readonly onBytes: (bytes: number) => void }

function blobOf(answer: TransportAnswer, offset: number, reading: Reading): UpstreamBlob {
  const { status } = answer
  if (status === 200)
    return { offset: 0, size: contentLengthOf(answer), etag: undefined, body: bodyOf(answer, reading) }
  if (status === 206) {
    const contentLength = contentLengthOf(answer)
    const range = matchingRange(headerOf(answer, 'content-range'), { offset, end: undefined, contentLength })
    if (range) return { offset, size: range.size, etag: undefined, body: bodyOf(answer, reading) }
  }
  discard(answer)
  if (status === 404) throw failure('notFound', 'http_404', 'the other replica neither downloads nor holds it', status)
  if (status === 401) throw failure('denied', 'http_401', 'the other replica has another secret', status)
  if (status >= 500)
    throw failure('unavailable', `http_${status}`, 'the other replica cannot give this blob now', status)
  throw failure('invalid', `http_${status}`, 'the other replica gave an answer that cannot be used', status)
}

function bodyOf({ body }: TransportAnswer, { signal, onBytes }: Reading): UpstreamBody {
  return new UpstreamBody(body, { upstream: peerName, redirected: false, signal, onBytes, onClose: ignore })
}

const ignore = (): void => undefined

function contentLengthOf(answer: TransportAnswer): number | undefined {
  const length = headerOf(answer, 'content-length')
  return length !== undefined && /^\d{1,15}$/.test(length) ? Number(length) : undefined
}

function failure(
  kind: 'notFound' | 'denied' | 'unavailable' | 'invalid',
  reason: string,
  message: string,
  status?: number,
): UpstreamError {
  return new UpstreamError(kind, peerName, reason, message, status === undefined ? {} : { status })
}
