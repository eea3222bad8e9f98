import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { Observer } from '../log/observer.ts'
import { noTracer, type Tracer } from '../tracing/tracer.ts'
import { basicAuthorization, type Credential } from './credentials.ts'
import { transportError } from './failure.ts'
import { Limiter } from './limiter.ts'
import { parseRetryAfter } from './retry-after.ts'
import { readSmallBody } from './small-body.ts'
import { parseToken, type Token } from './token-response.ts'
import { discard, headerOf, type Transport, type TransportAnswer } from './transport.ts'
import type { Trust } from './trust.ts'
import { UpstreamError } from './upstream.ts'

/** What a token is asked for, and from whom. The realm was accepted before (T-1). */
export type TokenRequest = {
  /** Origin of the registry that wants the token: it is used nowhere else. */
  readonly registry: string
  readonly realm: URL
  readonly trust: Trust
  readonly service: string | undefined
  /** Sorted. */
  readonly scopes: readonly string[]
  readonly credential: Credential | undefined
}

type TokensOptions = {
  readonly upstream: string
  /** Credentials may be sent over plain http. */
  readonly insecure: boolean
  readonly transport: Transport
  readonly clock: Clock
  readonly observer: Observer
  /** Default: nothing is traced. */
  readonly tracer?: Tracer
}

type Kept = {
  readonly value: string
  readonly refreshAt: number
  readonly expiresAt: number
  readonly expiresAtWall: number
}

// T-45: a token is a few kilobytes.
const maxTokenAnswerBytes = 256 * 1024
const exchangeTimeoutMs = 20_000
// Accounts are locked by repeated wrong passwords (F-73).
const badCredentialMs = 60_000
const longestBadCredentialMs = 15 * 60_000
// A token server that does not answer is not asked by every request that waits for it (F-72).
const failedRealmMs = 2000
/** Each repository needs a token of its own, and anybody can name repositories. */
const maxExchanges = 32

/** Tokens of one upstream: cached, asked for once however many wait, renewed before they end (P-87…P-93). */
export class Tokens {
  readonly #options: TokensOptions
  readonly #kept = new LRUCache<string, Kept>({ max: 5000 })
  readonly #running = new Map<string, Promise<string>>()
  readonly #slots = new Limiter(maxExchanges)
  readonly #badCredentials = new Map<string, { readonly until: number; readonly pauseMs: number }>()
  /** Upstream names its token servers, any number of them. */
  readonly #failed = new LRUCache<string, { readonly until: number; readonly error: UpstreamError }>({ max: 1000 })

  constructor(options: TokensOptions) {
    this.#options = options
  }

  /** A token for this request, from the cache when it is good for a while. The signal ends the wait, not the exchange that others share. */
  async get(request: TokenRequest, signal?: AbortSignal): Promise<string> {
    const key = keyOf(request)
    const kept = this.#usable(key)
    if (kept !== undefined && this.#options.clock.monotonic() < kept.refreshAt) return kept.value
    try {
      return await until(this.#fetchOnce(key, request), signal)
    } catch (error) {
      signal?.throwIfAborted()
      // A token that is about to end is better than none while its server is down (F-72).
      if (kept !== undefined && error instanceof UpstreamError && error.failure !== 'denied') return kept.value
      throw error
    }
  }

  /** Forgets a token that the registry did not accept. */
  forget(request: TokenRequest, token: string): void {
    const key = keyOf(request)
    if (this.#kept.get(key)?.value === token) this.#kept.delete(key)
  }

  #usable(key: string): Kept | undefined {
    const kept = this.#kept.get(key)
    const { clock } = this.#options
    // Both clocks, because a machine that slept knows only one of them (F-42).
    return kept !== undefined && clock.monotonic() < kept.expiresAt && clock.now() < kept.expiresAtWall
      ? kept
      : undefined
  }

  #fetchOnce(key: string, request: TokenRequest): Promise<string> {
    const running = this.#running.get(key)
    if (running !== undefined) return running
    const started = this.#fetch(key, request).finally(() => this.#running.delete(key))
    this.#running.set(key, started)
    return started
  }

  async #fetch(key: string, request: TokenRequest): Promise<string> {
    this.#refuseUnsafe(request)
    const { clock } = this.#options
    this.#refuseFailed(request)
    const release = await this.#slots.acquire()
    try {
      this.#refuseFailed(request)
      const { value, lifetimeMs } = await this.#traced(request)
      const now = clock.monotonic()
      this.#failed.delete(request.realm.origin)
      this.#kept.set(key, {
        value,
        refreshAt: now + lifetimeMs * 0.85,
        expiresAt: now + lifetimeMs,
        expiresAtWall: clock.now() + lifetimeMs,
      })
      return value
    } catch (error) {
      const isKnown = this.#failed.get(request.realm.origin)?.error === error
      if (error instanceof UpstreamError && error.failure !== 'denied' && !isKnown) {
        const pause = Math.max(failedRealmMs, error.retryAfterMs ?? 0)
        this.#failed.set(request.realm.origin, { until: clock.monotonic() + pause, error })
      }
      throw error
    } finally {
      release()
    }
  }

  #traced(request: TokenRequest): Promise<Token> {
    const { upstream, tracer = noTracer } = this.#options
    // Neither the scopes' query nor who asks.
    const attributes = { 'layover.upstream': upstream, 'server.address': request.realm.host }
    return tracer.child('token', attributes, () => this.#exchange(request))
  }

  #refuseFailed({ realm }: TokenRequest): void {
    const failed = this.#failed.get(realm.origin)
    if (failed !== undefined && this.#options.clock.monotonic() < failed.until) throw failed.error
  }

  #refuseUnsafe({ realm, credential }: TokenRequest): void {
    const { upstream, insecure, clock } = this.#options
    if (credential === undefined) return
    if (realm.protocol !== 'https:' && !insecure)
      throw new UpstreamError('refused', upstream, 'plain_http', 'credentials are not sent over plain http')
    const bad = this.#badCredentials.get(credential.id)
    if (bad !== undefined && clock.monotonic() < bad.until)
      throw new UpstreamError('denied', upstream, 'bad_credentials', 'upstream refused the configured credentials', {
        status: 401,
      })
  }

  async #exchange(request: TokenRequest): Promise<Token> {
    const signal = AbortSignal.timeout(exchangeTimeoutMs)
    const first = request.credential?.kind === 'identityToken' ? 'POST' : 'GET'
    let answer = await this.#ask(first, request, signal)
    // Token servers know one form or both; which one they do not know they say in many ways (P-87, P-96).
    const tryOther =
      first === 'POST' ? [400, 401, 404, 405].includes(answer.status) : [404, 405].includes(answer.status)
    if (tryOther && request.credential !== undefined) {
      discard(answer, bytes => this.#options.observer.upstreamBytes(this.#options.upstream, 'token', bytes))
      answer = await this.#ask(first === 'POST' ? 'GET' : 'POST', request, signal)
    }
    return this.#read(answer, request, signal)
  }

  async #ask(method: 'GET' | 'POST', request: TokenRequest, signal: AbortSignal): Promise<TransportAnswer> {
    const { upstream, transport, observer, clock } = this.#options
    const started = clock.monotonic()
    let outcome = 'network'
    try {
      const answer = await transport.send({ ...tokenForm(method, request), trust: request.trust, signal })
      outcome = String(answer.status)
      return answer
    } catch (error) {
      const failure = transportError(upstream, error, { phase: 'headers', redirected: false })
      outcome = signal.aborted ? 'timeout' : failure.reason
      throw new UpstreamError(failure.failure, upstream, `token_${outcome}`, `no token: ${failure.message}`, {
        cause: failure.cause,
      })
    } finally {
      observer.upstreamRequest({ upstream, kind: 'token', outcome, seconds: (clock.monotonic() - started) / 1000 })
    }
  }

  async #read(answer: TransportAnswer, request: TokenRequest, signal: AbortSignal): Promise<Token> {
    const { upstream, observer } = this.#options
    if (answer.status !== 200) {
      discard(answer, bytes => this.#options.observer.upstreamBytes(this.#options.upstream, 'token', bytes))
      throw this.#statusError(answer, request)
    }
    const bytes = await readSmallBody(answer, {
      upstream,
      maxBytes: maxTokenAnswerBytes,
      onBytes: count => observer.upstreamBytes(upstream, 'token', count),
    }).catch((error: unknown) => {
      const reason = signal.aborted ? 'timeout' : error instanceof UpstreamError ? error.reason : 'network'
      const failure = error instanceof UpstreamError && error.failure === 'invalid' ? 'invalid' : 'unavailable'
      throw new UpstreamError(failure, upstream, `token_${reason}`, 'no token: the answer could not be read')
    })
    const token = parseToken(bytes.toString('utf8'))
    if (token === undefined)
      throw new UpstreamError('invalid', upstream, 'token_invalid', 'the token server answered without a token')
    if (request.credential !== undefined) this.#badCredentials.delete(request.credential.id)
    return token
  }

  #statusError(answer: TransportAnswer, { credential }: TokenRequest): UpstreamError {
    const { upstream, clock } = this.#options
    const { status } = answer
    if (status === 401 && credential !== undefined) {
      const previous = this.#badCredentials.get(credential.id)?.pauseMs ?? badCredentialMs / 2
      const pauseMs = Math.min(previous * 2, longestBadCredentialMs)
      this.#badCredentials.set(credential.id, { until: clock.monotonic() + pauseMs, pauseMs })
      const why = 'upstream refused the configured credentials'
      return new UpstreamError('denied', upstream, 'bad_credentials', why, { status })
    }
    const message = `the token server answered ${status}`
    const retryAfterMs = parseRetryAfter(headerOf(answer, 'retry-after'), clock.now())
    const options = { status, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) }
    if (status === 401 || status === 403)
      return new UpstreamError('denied', upstream, `token_http_${status}`, message, options)
    if (status === 429) return new UpstreamError('rateLimited', upstream, 'token_http_429', message, options)
    const failure = status >= 500 || status === 408 ? 'unavailable' : 'invalid'
    return new UpstreamError(failure, upstream, `token_http_${status}`, message, options)
  }
}

/** The two forms of asking: https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/ */
function tokenForm(
  method: 'GET' | 'POST',
  { realm, service, scopes, credential }: TokenRequest,
): Pick<Parameters<Transport['send']>[0], 'url' | 'method' | 'headers' | 'body'> {
  if (method === 'POST' && credential !== undefined) {
    const secret =
      credential.kind === 'identityToken'
        ? { grant_type: 'refresh_token', refresh_token: credential.secret }
        : { grant_type: 'password', username: credential.username, password: credential.secret }
    const named = service === undefined ? {} : { service }
    const form = new URLSearchParams({ ...secret, ...named, client_id: 'layover', scope: scopes.join(' ') })
    return {
      url: realm,
      method,
      headers: { accept: 'application/json', 'content-type': 'application/x-www-form-urlencoded' },
      body: form.toString(),
    }
  }
  const url = new URL(realm)
  if (service !== undefined) url.searchParams.set('service', service)
  for (const scope of scopes) url.searchParams.append('scope', scope)
  if (credential !== undefined) url.searchParams.set('account', credential.username)
  return {
    url,
    method: 'GET',
    headers: {
      accept: 'application/json',
      ...(credential === undefined ? {} : { authorization: basicAuthorization(credential) }),
    },
  }
}

function keyOf({ registry, realm, service, scopes, credential }: TokenRequest): string {
  return JSON.stringify([registry, realm.href, service, scopes, credential?.id])
}

/** The promise, or the signal's reason when that comes first. */
function until<Result>(promise: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  if (signal === undefined) return promise
  return new Promise((resolve, reject) => {
    const leave = (): void => reject(signal.reason)
    if (signal.aborted) leave()
    signal.addEventListener('abort', leave, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave))
  })
}
