import type { Clock } from '../clock.ts'
import type { UpstreamConfig } from '../config/config.ts'
import type { UpstreamKind } from '../log/observer.ts'
import { Authorization } from './authorization.ts'
import { Breaker, type BreakerState } from './breaker.ts'
import { createCredentialSource } from './credentials.ts'
import { Exchange, type ExchangeAnswer, type ExchangeRequest } from './exchange.ts'
import { transportError } from './failure.ts'
import type { Tokens } from './tokens.ts'
import { discard, type Transport } from './transport.ts'
import type { Trust } from './trust.ts'
import { UpstreamError } from './upstream.ts'

type SourceOptions = {
  readonly config: UpstreamConfig
  /** The upstream's own URL or one of its mirrors. */
  readonly url: string
  readonly transport: Transport
  readonly tokens: Tokens
  readonly clock: Clock
  readonly onState?: (state: BreakerState) => void
  readonly traceparent?: (() => string | undefined) | undefined
  /** Told of the bytes of bodies that nobody reads. */
  readonly onDiscarded?: (kind: UpstreamKind, bytes: number) => void
}

export type SourceRequest = Omit<ExchangeRequest, 'url'> & { readonly kind: UpstreamKind; readonly path: string }

/** One URL that serves an upstream's content. */
export class Source {
  readonly breaker: Breaker
  readonly url: URL
  readonly #upstream: string
  readonly #base: string
  readonly #exchange: Exchange
  readonly #onDiscarded: SourceOptions['onDiscarded']

  constructor({ config, url, transport, tokens, clock, onState, traceparent, onDiscarded }: SourceOptions) {
    this.#onDiscarded = onDiscarded
    const registry = new URL(url)
    const foreign = (): Trust => ({ kind: 'foreign', from: transport.addressClass(registry) })
    // Credentials belong to the upstream's own origin; a mirror elsewhere is asked anonymously.
    const isOwn = registry.origin === new URL(config.url).origin
    const authorization = new Authorization({
      upstream: config.name,
      registry,
      realmHosts: config.realmHosts,
      insecure: config.insecure,
      credentials: createCredentialSource({
        config: isOwn ? config.credentials : undefined,
        upstream: config.name,
        registry,
      }),
      tokens,
      foreign,
      ping: signal => this.#ping(transport, signal),
    })
    this.url = registry
    this.#upstream = config.name
    this.#base = `${registry.origin}${registry.pathname.replace(/\/+$/, '')}`
    this.breaker = new Breaker({ clock, ...(onState === undefined ? {} : { onState }) })
    this.#exchange = new Exchange({
      upstream: config.name,
      registry,
      redirectHosts: config.redirectHosts,
      transport,
      authorization,
      foreign,
      traceparent,
    })
  }

  /** The URL of something below `/v2/`, e.g. `library/alpine/tags/list?n=1`. */
  locate(path: string): URL {
    return new URL(`${this.#base}/v2/${path}`)
  }

  send({ path, ...request }: SourceRequest): Promise<ExchangeAnswer> {
    const onDiscarded = (bytes: number): void => this.#onDiscarded?.(request.kind, bytes)
    return this.#exchange.send({ ...request, url: this.locate(path), onDiscarded })
  }

  /** Gets the token for requests about this repository, unless nothing is asked now anyway. Throws as {@link send} would. */
  prepare(request: Pick<SourceRequest, 'repository' | 'signal'>): Promise<unknown> | undefined {
    return this.breaker.state() === 'closed' ? this.#exchange.prepare(request) : undefined
  }

  /**
   * Runs a call when the breaker lets it, and tells the breaker how it went. What a redirect target or a token server did is not held
   * against the registry itself.
   */
  async guarded<Result>(call: () => Promise<Result>): Promise<Result> {
    const ticket = this.breaker.enter()
    if ('blockedForMs' in ticket) {
      const { blockedForMs, reason } = ticket
      const isLimit = reason === 'rateLimited'
      const message = isLimit
        ? 'upstream limits requests; nothing is asked for a while'
        : 'upstream does not answer; nothing is asked for a while'
      throw new UpstreamError(reason, this.#upstream, isLimit ? 'rate_limited' : 'breaker_open', message, {
        retryAfterMs: Math.ceil(blockedForMs),
      })
    }
    try {
      const result = await call()
      ticket.success()
      return result
    } catch (error) {
      this.#judge(error, ticket)
      throw error
    }
  }

  /** The challenge of `/v2/` itself, for registries that send none with the request that they refuse (P-94). */
  async #ping(transport: Transport, signal: AbortSignal | undefined): Promise<string | string[] | undefined> {
    try {
      const trust: Trust = { kind: 'configured' }
      const answer = await transport.send({ url: this.locate(''), method: 'GET', headers: {}, trust, signal })
      discard(answer, bytes => this.#onDiscarded?.('ping', bytes))
      return answer.status === 401 ? answer.headers['www-authenticate'] : undefined
    } catch (error) {
      signal?.throwIfAborted()
      throw transportError(this.#upstream, error, { phase: 'headers', redirected: false })
    }
  }

  #judge(error: unknown, ticket: { success(): void; failure(word: string): void; abandon(): void }): void {
    if (!(error instanceof UpstreamError)) return ticket.abandon()
    const isElsewhere = error.reason.startsWith('redirect_') || error.reason.startsWith('token_')
    if (error.failure === 'unavailable' && !isElsewhere) {
      ticket.failure(error.reason)
      if (error.retryAfterMs !== undefined) this.breaker.block('unavailable', error.retryAfterMs)
      return
    }
    if (error.status === undefined && error.failure !== 'invalid') return ticket.abandon()
    ticket.success()
    if (error.failure === 'rateLimited' && !isElsewhere) this.breaker.block('rateLimited', error.retryAfterMs)
  }
}
