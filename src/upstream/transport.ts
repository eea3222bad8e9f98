import { getCACertificates } from 'node:tls'
import { Agent, type buildConnector, type Dispatcher, EnvHttpProxyAgent, ProxyAgent } from 'undici'
import type { UpstreamConfig } from '../config/config.ts'
import { type AddressClass, classOfHost } from './addresses.ts'
import { guardedLookup, type Lookup, type Trust } from './trust.ts'
import { userAgent } from './user-agent.ts'

export type TransportRequest = {
  readonly url: URL
  readonly method: 'GET' | 'HEAD' | 'POST'
  /** Added to the ones that every request carries; nothing of a client's request gets here but by name (P-104). */
  readonly headers: OutgoingHeaders
  readonly body?: string
  readonly trust: Trust
  readonly signal?: AbortSignal | undefined
}

/** Every header that Layover ever sends to an upstream, beside Host, User-Agent, Via and Accept-Encoding. */
export type OutgoingHeaders = {
  readonly accept?: string
  readonly authorization?: string
  readonly range?: string
  readonly 'content-type'?: string
  readonly traceparent?: string
}

export type TransportAnswer = {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Dispatcher.ResponseData['body']
}

type TransportOptions = {
  readonly config: UpstreamConfig
  /** Resolves names; default: the system's. */
  readonly lookup?: Lookup | undefined
  /** Our own name in `Via`, by which a request that comes back to us is recognised (RFC 9110 §7.6.3, P-105). */
  readonly via?: string | undefined
}

const alwaysSent = {
  'accept-encoding': 'identity',
  'user-agent': userAgent,
} as const
const maxAnswered = 1000
/** NO_PROXY, and this machine itself: no proxy can mean the same by `localhost` (as Go's clients have it). */
function withoutProxy(): string {
  const wished = process.env.no_proxy ?? process.env.NO_PROXY ?? ''
  return wished.trim() === '*' ? '*' : [wished, 'localhost', '127.0.0.1', '[::1]'].filter(host => host !== '').join(',')
}

const environmentProxies = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY'] as const

/**
 * HTTP/1.1 over pooled keep-alive connections, to the upstream and to where it sends us. Follows nothing, decodes nothing, retries
 * only what a stale keep-alive connection broke (P-111, P-112).
 */
export class Transport {
  readonly #config: UpstreamConfig
  readonly #lookup: Lookup | undefined
  readonly #alwaysSent: Readonly<Record<string, string>>
  readonly #dispatchers = new Map<string, Dispatcher>()
  readonly #classes = new Map<string, AddressClass>()
  readonly #answered = new Set<string>()

  constructor({ config, lookup, via = 'layover' }: TransportOptions) {
    this.#alwaysSent = { ...alwaysSent, via: `1.1 ${via}` }
    this.#config = config
    this.#lookup = lookup
  }

  /** The class of the address that a configured host was last connected at; undefined before, and behind an outgoing proxy. */
  addressClass(url: URL): AddressClass | undefined {
    return classOfHost(url.hostname) ?? this.#classes.get(url.hostname)
  }

  /** Resolves when the headers are in. The caller reads or destroys the body. Rejects with the client's own error, or the signal's reason. */
  async send(request: TransportRequest): Promise<TransportAnswer> {
    const wasUsed = this.#answered.has(request.url.origin)
    try {
      return await this.#sendOnce(request)
    } catch (error) {
      // The server closed an idle connection in the moment in which it was used again: nothing was processed.
      if (!wasUsed || request.method === 'POST' || !isReset(error) || request.signal?.aborted === true) throw error
      return this.#sendOnce(request)
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#dispatchers.values()].map(dispatcher => dispatcher.destroy()))
  }

  async #sendOnce({ url, method, headers, body, trust, signal }: TransportRequest): Promise<TransportAnswer> {
    const answer = await this.#dispatcher(trust).request({
      origin: url.origin,
      path: url.pathname + url.search,
      method,
      headers: { ...this.#alwaysSent, ...headers },
      body: body ?? null,
      signal: signal ?? null,
      highWaterMark: 256 * 1024,
    })
    // Redirects can name any number of hosts.
    if (this.#answered.size >= maxAnswered) this.#answered.clear()
    this.#answered.add(url.origin)
    return { status: answer.statusCode, headers: answer.headers, body: answer.body }
  }

  #dispatcher(trust: Trust): Dispatcher {
    // Pools are not shared between trusts: a connection that one may use is perhaps none that another may.
    const key = trust.kind === 'foreign' ? `foreign ${trust.from ?? 'unknown'}` : trust.kind
    const known = this.#dispatchers.get(key) ?? this.#createDispatcher(trust)
    this.#dispatchers.set(key, known)
    return known
  }

  #createDispatcher(trust: Trust): Dispatcher {
    const { proxy, connectTimeoutMs, headersTimeoutMs, idleTimeoutMs } = this.#config
    const tls = this.#tls(trust)
    const connect: buildConnector.BuildOptions = {
      ...tls,
      lookup: guardedLookup(trust, this.#lookup, (hostname, addressClass) => {
        if (trust.kind === 'configured') this.#classes.set(hostname, addressClass)
      }),
      timeout: connectTimeoutMs,
      allowH2: false,
    }
    const options = {
      // HTTP/2's small windows make one stream slow over distance.
      allowH2: false,
      connect,
      connectTimeout: connectTimeoutMs,
      headersTimeout: headersTimeoutMs,
      bodyTimeout: idleTimeoutMs,
      keepAliveTimeout: 30_000,
      keepAliveMaxTimeout: 60_000,
      maxHeaderSize: 32 * 1024,
      // A connector of its own is not used for what goes through a proxy, so TLS has to be said again.
      requestTls: { ...tls, timeout: connectTimeoutMs },
    }
    if (proxy !== undefined) return new ProxyAgent({ ...options, uri: proxy })
    if (environmentProxies.some(name => (process.env[name] ?? '') !== ''))
      return new EnvHttpProxyAgent({ ...options, noProxy: withoutProxy() })
    return new Agent(options)
  }

  #tls(trust: Trust): { ca?: string[]; rejectUnauthorized: boolean; minVersion: 'TLSv1.2' } {
    const { ca, insecure } = this.#config
    return {
      ...(ca === undefined ? {} : { ca: [...getCACertificates('default'), ca] }),
      // `insecure` is a statement about hosts that the operator named, not about where they point.
      rejectUnauthorized: !(insecure && trust.kind !== 'foreign'),
      minVersion: 'TLSv1.2',
    }
  }
}

/** One header as text; several lines of one that must be single give the first. */
export function headerOf(answer: Pick<TransportAnswer, 'headers'>, name: string): string | undefined {
  const value = answer.headers[name]
  return typeof value === 'string' ? value : value?.[0]
}

/** Lets a body that nobody wants go by when it is short, so that its connection can be used again. */
export function discard({ body }: Pick<TransportAnswer, 'body'>, onBytes?: (bytes: number) => void): void {
  // It came over the link all the same, and is counted.
  if (onBytes) body.on('data', (chunk: Buffer) => onBytes(chunk.length))
  // Whether the rest arrives is of no interest.
  body.dump({ limit: 64 * 1024 }).catch(() => {})
}

function isReset(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === 'ECONNRESET' || code === 'EPIPE' || code === 'UND_ERR_SOCKET'
}
