import type { Authorization } from './authorization.ts'
import { parseChallenges } from './challenge.ts'
import { transportError } from './failure.ts'
import { isRedirect, maxHops, nextHop } from './redirects.ts'
import { discard, headerOf, type OutgoingHeaders, type Transport, type TransportAnswer } from './transport.ts'
import type { Trust } from './trust.ts'
import { UpstreamError } from './upstream.ts'

export type ExchangeRequest = {
  readonly method: 'GET' | 'HEAD'
  readonly url: URL
  readonly repository: string
  readonly headers: OutgoingHeaders
  readonly signal: AbortSignal | undefined
  /** Told of the bytes of bodies that nobody reads: of challenges and redirects. */
  readonly onDiscarded?: (bytes: number) => void
}

/** The end of a chain of redirects. `redirected`: it is not the registry that answered. */
export type ExchangeAnswer = TransportAnswer & {
  readonly redirected: boolean
  /** Redirects that were followed, other origins or not. */
  readonly hops: number
}

type ExchangeOptions = {
  readonly upstream: string
  readonly registry: URL
  readonly redirectHosts: readonly string[]
  readonly transport: Transport
  readonly authorization: Authorization
  readonly foreign: () => Trust
  /** The `traceparent` that the registry is told; undefined: none. */
  readonly traceparent?: (() => string | undefined) | undefined
}

/** Asks one registry URL: answers its challenge once, follows its redirects, and goes back to it once when what it pointed at fails. */
export class Exchange {
  readonly #options: ExchangeOptions

  constructor(options: ExchangeOptions) {
    this.#options = options
  }

  /** Any status comes back as an answer; what could not be asked or may not be followed throws {@link UpstreamError}. */
  async send(request: ExchangeRequest): Promise<ExchangeAnswer> {
    if (request.method === 'HEAD') return this.#authorised(request)
    try {
      const answer = await this.#authorised(request)
      // A presigned URL that ended: the registry gives a new one (P-65, F-14).
      if (!answer.redirected || answer.status !== 403) return answer
      discard(answer, request.onDiscarded)
    } catch (error) {
      // The registry may point at another host the next time (F-24).
      if (!isRedirectFailure(error) || request.signal?.aborted === true) throw error
    }
    return this.#authorised(request)
  }

  /** Gets the token that {@link send} will need, as far as that is known beforehand; undefined when there is nothing to wait for. */
  prepare({ repository, signal }: Pick<ExchangeRequest, 'repository' | 'signal'>): Promise<unknown> | undefined {
    const { authorization } = this.#options
    return authorization.isWanted ? authorization.current(repository, signal) : undefined
  }

  async #authorised(request: ExchangeRequest): Promise<ExchangeAnswer> {
    const { authorization } = this.#options
    const used = await authorization.current(request.repository, request.signal)
    const first = await this.#followed(request, used?.header)
    if (!isChallenge(first)) return first
    discard(first, request.onDiscarded)
    const challenge = first.headers['www-authenticate']
    const grant = await authorization.answer({
      challenge,
      repository: request.repository,
      used,
      signal: request.signal,
    })
    if (grant === undefined) return first
    const second = await this.#followed(request, grant.header)
    // One re-challenge only (F-75); a token that opened nothing is not kept.
    if (isChallenge(second)) grant.forget()
    return second
  }

  async #followed(request: ExchangeRequest, authorization: string | undefined): Promise<ExchangeAnswer> {
    const { upstream, registry, redirectHosts, transport, foreign } = this.#options
    let url = request.url
    let trust: Trust = { kind: 'configured' }
    let isAway = false
    for (let hops = 0; hops <= maxHops; hops++) {
      // Whatever has once left the registry's origin gets no credentials any more, even when it comes back (P-88, T-8).
      const headers = isAway ? request.headers : this.#own(request.headers, authorization)
      const answer = await this.#sent(transport, { ...request, url, trust, headers }, isAway)
      if (!isRedirect(answer.status)) return { ...answer, redirected: isAway, hops }
      discard(answer, request.onDiscarded)
      const location = headerOf(answer, 'location')
      const next = nextHop({ upstream, from: url, location, registry, redirectHosts, foreign: foreign() })
      url = next.url
      trust = next.trust
      isAway ||= url.origin !== registry.origin
    }
    throw new UpstreamError('invalid', upstream, 'too_many_redirects', `upstream redirects more than ${maxHops} times`)
  }

  /** What the registry itself is told beside. */
  #own(headers: OutgoingHeaders, authorization: string | undefined): OutgoingHeaders {
    const traceparent = this.#options.traceparent?.()
    if (authorization === undefined && traceparent === undefined) return headers
    return {
      ...headers,
      ...(authorization !== undefined && { authorization }),
      ...(traceparent !== undefined && { traceparent }),
    }
  }

  async #sent(
    transport: Transport,
    request: Parameters<Transport['send']>[0],
    redirected: boolean,
  ): Promise<TransportAnswer> {
    try {
      return await transport.send(request)
    } catch (error) {
      request.signal?.throwIfAborted()
      throw transportError(this.#options.upstream, error, { phase: 'headers', redirected })
    }
  }
}

/** 401, and 403 where it says that the token's scope was the trouble. */
function isChallenge(answer: ExchangeAnswer): boolean {
  if (answer.redirected) return false
  if (answer.status === 401) return true
  if (answer.status !== 403) return false
  return parseChallenges(answer.headers['www-authenticate']).some(
    ({ parameters }) => parameters.get('error') === 'insufficient_scope',
  )
}

function isRedirectFailure(error: unknown): boolean {
  return error instanceof UpstreamError && error.failure === 'unavailable' && error.reason.startsWith('redirect_')
}
