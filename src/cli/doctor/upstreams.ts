import type { Clock } from '../../clock.ts'
import type { Config, UpstreamConfig } from '../../config/config.ts'
import { describeError } from '../../log/redact.ts'
import { silentObserver } from '../../log/observer.ts'
import { parseChallenges } from '../../upstream/challenge.ts'
import { basicAuthorization, type Credential, createCredentialSource } from '../../upstream/credentials.ts'
import { causeOf, transportError } from '../../upstream/failure.ts'
import { parseRateLimit } from '../../upstream/rate-limit.ts'
import { acceptRealm } from '../../upstream/realm.ts'
import { pullScope } from '../../upstream/scope.ts'
import { Tokens } from '../../upstream/tokens.ts'
import { discard, headerOf, Transport, type TransportAnswer } from '../../upstream/transport.ts'
import { UpstreamError } from '../../upstream/upstream.ts'
import type { Check, CheckContext } from './check.ts'
import { judgeClock } from './clock-skew.ts'

/** One check per configured URL and mirror; with `offline` nobody is dialled. */
export function upstreamChecks(config: Config, clock: Clock): readonly Check[] {
  if (config.offline)
    return [
      {
        name: 'upstreams',
        run: context => Promise.resolve(context.ok('offline: none is dialled, what is not cached is 404')),
      },
    ]
  return config.upstreams.flatMap(upstream =>
    [upstream.url, ...upstream.mirrors].map((url, index) => ({
      name: index === 0 ? upstream.name : `${upstream.name} mirror`,
      run: async (context: CheckContext) => {
        const transport = new Transport({ config: upstream })
        try {
          await new UpstreamExamination({ upstream, registry: new URL(url), transport, clock, context }).run()
        } finally {
          await transport.close()
        }
      },
    })),
  )
}

type Parts = {
  readonly upstream: UpstreamConfig
  readonly registry: URL
  readonly transport: Transport
  readonly clock: Clock
  readonly context: CheckContext
}

type Ask = { readonly method?: 'GET' | 'HEAD'; readonly path?: string; readonly authorization?: string | undefined }

type Entry = { readonly authorization: string; readonly how: string; readonly isAnonymous?: boolean }

/** Docker says how many pulls are left for a HEAD of this, which does not count. https://docs.docker.com/docker-hub/usage/pulls/ */
const hubProbe = 'ratelimitpreview/test'

/** One registry URL, asked as a pull would: `/v2/`, its challenge, a token, `/v2/` again. */
class UpstreamExamination {
  readonly #parts: Parts
  readonly #host: string
  #answeredMs = 0

  constructor(parts: Parts) {
    this.#parts = parts
    this.#host = parts.registry.host
  }

  async run(): Promise<void> {
    const { context, clock } = this.#parts
    const started = clock.monotonic()
    let answer: TransportAnswer
    try {
      answer = await this.#ask({})
    } catch (error) {
      return this.#unreachable(error)
    }
    this.#answeredMs = clock.monotonic() - started
    judgeClock(context, { who: this.#host, date: headerOf(answer, 'date'), now: clock.now() })
    if (answer.status === 200) return this.#done('asks for no credentials', answer)
    if (answer.status === 401) return this.#authenticate(answer.headers['www-authenticate'])
    const { found, advice, isLimit } = strangeAnswer(answer.status)
    if (isLimit) context.warn(`${this.#host}: ${found}`, advice)
    else context.fail(`${this.#host}: ${found}`, advice)
  }

  async #ask({ method = 'GET', path = '', authorization }: Ask): Promise<TransportAnswer> {
    const { registry, transport, context } = this.#parts
    context.step(`${method} /v2/${path} of ${this.#host}`)
    const answer = await transport.send({
      url: new URL(`${registry.origin}${registry.pathname.replace(/\/+$/, '')}/v2/${path}`),
      method,
      headers: authorization === undefined ? {} : { authorization },
      trust: { kind: 'configured' },
      signal: context.signal,
    })
    discard(answer)
    return answer
  }

  #unreachable(error: unknown): void {
    const { upstream, context } = this.#parts
    const { message, cause } = transportError(upstream.name, error, { phase: 'headers', redirected: false })
    const code = cause instanceof Error && 'code' in cause ? ` (${String(cause.code)})` : ''
    const why = message.replace(/^.* cannot be read: /, '')
    const advice = reachAdvice[causeOf(error).reason] ?? 'see whether this machine has a way to it'
    context.fail(`${this.#host}: ${why}${code}`, advice)
  }

  async #authenticate(header: string | string[] | undefined): Promise<void> {
    const { context } = this.#parts
    let credential: Credential | undefined
    try {
      credential = await this.#credential()
    } catch (error) {
      return context.fail(
        `the credentials for ${this.#host} cannot be read: ${describeError(error)}`,
        'see that the file is there, readable for this user, and in its form',
      )
    }
    const challenges = parseChallenges(header)
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer')
    if (bearer !== undefined) return this.#token(bearer.parameters, credential)
    if (challenges.some(({ scheme }) => scheme === 'basic')) return this.#basic(credential)
    context.fail(`${this.#host}: answers 401 and says no way in that Layover knows`, 'it needs Bearer or Basic')
  }

  /** Credentials belong to the upstream's own origin; a mirror elsewhere is asked anonymously. */
  #credential(): Promise<Credential | undefined> {
    const { upstream, registry } = this.#parts
    const isOwn = registry.origin === new URL(upstream.url).origin
    const config = isOwn ? upstream.credentials : undefined
    return createCredentialSource({ config, upstream: upstream.name, registry })()
  }

  async #basic(credential: Credential | undefined): Promise<void> {
    const { upstream, registry, context } = this.#parts
    if (credential === undefined)
      return context.fail(`${this.#host}: asks for a user, and none is configured`, 'configure username and password')
    if (registry.protocol !== 'https:' && !upstream.insecure)
      return context.fail(`${this.#host}: credentials are not sent over plain http`, plainAdvice)
    await this.#enter({ authorization: basicAuthorization(credential), how: 'takes the configured credentials' })
  }

  async #token(parameters: ReadonlyMap<string, string>, credential: Credential | undefined): Promise<void> {
    const { upstream, registry, transport, clock, context } = this.#parts
    const realm = parameters.get('realm') ?? ''
    const accepted = acceptRealm({ realm, registry, realmHosts: upstream.realmHosts })
    const realmHost = URL.parse(realm)?.host ?? 'no URL'
    if ('refused' in accepted)
      return context.fail(
        `${this.#host}: names a token server that is not allowed: ${realmHost} (${accepted.refused})`,
        'if it is theirs, list it in realmHosts of this upstream',
      )
    context.step(`a token from ${realmHost}`)
    const tokens = new Tokens({
      upstream: upstream.name,
      insecure: upstream.insecure,
      transport,
      clock,
      observer: silentObserver,
    })
    const trust =
      accepted.trust === 'foreign'
        ? ({ kind: 'foreign', from: transport.addressClass(registry) } as const)
        : { kind: accepted.trust }
    try {
      const token = await tokens.get(
        {
          registry: registry.origin,
          realm: accepted.url,
          trust,
          service: parameters.get('service'),
          scopes: this.#scopes(parameters.get('scope')),
          credential,
        },
        context.signal,
      )
      const how = credential === undefined ? 'anonymously' : 'with the configured credentials'
      await this.#enter({
        authorization: `Bearer ${token}`,
        how: `token from ${realmHost} ${how}`,
        isAnonymous: credential === undefined,
      })
    } catch (error) {
      this.#noToken(error, realmHost, credential)
    }
  }

  /** As `docker login` asks: for no repository, unless the challenge of `/v2/` names a scope. */
  #scopes(challenged: string | undefined): readonly string[] {
    if (this.#isHub()) return [pullScope(hubProbe)]
    return challenged === undefined ? [] : [challenged]
  }

  #isHub(): boolean {
    const { upstream, registry } = this.#parts
    return upstream.name === 'docker.io' && registry.origin === new URL(upstream.url).origin
  }

  #noToken(error: unknown, realmHost: string, credential: Credential | undefined): void {
    const { context } = this.#parts
    if (!(error instanceof UpstreamError)) throw error
    const found = `${this.#host}: no token from ${realmHost}: ${describeError(error)}`
    if (error.reason === 'bad_credentials')
      return context.fail(found, 'see whether user and password are right and not expired')
    if (error.reason === 'plain_http') return context.fail(found, plainAdvice)
    if (error.failure === 'rateLimited') return context.warn(found, limitAdvice)
    if (error.failure === 'denied' && credential === undefined)
      return context.warn(found, 'it may still give one for a public image; for anything else configure credentials')
    context.fail(found, reachAdvice[error.reason.replace(/^token_/, '')] ?? 'see whether its token server works')
  }

  async #enter({ authorization, how, isAnonymous = false }: Entry): Promise<void> {
    const { context } = this.#parts
    const ask = this.#isHub() ? { method: 'HEAD' as const, path: `${hubProbe}/manifests/latest` } : {}
    let answer: TransportAnswer
    try {
      answer = await this.#ask({ ...ask, authorization })
    } catch (error) {
      return this.#unreachable(error)
    }
    const { status } = answer
    if (status >= 500) {
      const { found, advice } = strangeAnswer(status)
      return context.fail(`${this.#host}: ${found}`, advice)
    }
    // Without credentials, and for a repository that is perhaps no more, a refusal says nothing about pulls.
    const isRefused = (status === 401 || status === 403) && !isAnonymous && !this.#isHub()
    if (isRefused && authorization.startsWith('Basic'))
      return context.fail(
        `${this.#host}: refuses the configured credentials`,
        'see whether user and password are right and not expired',
      )
    if (isRefused)
      return context.warn(
        `${this.#host}: ${how}, but it answers ${status} to it`,
        'see what this account may read, and whether the clock of this machine is right',
      )
    this.#done(how, answer)
  }

  #done(how: string, answer: TransportAnswer): void {
    const { context } = this.#parts
    const found = `${this.#host}: answers in ${Math.round(this.#answeredMs)} ms, ${how}`
    const limit = parseRateLimit(headerOf(answer, 'ratelimit-limit'), headerOf(answer, 'ratelimit-remaining'))
    if (answer.status === 429 || limit?.remaining === 0)
      return context.warn(`${found}, and no pulls are left in this window`, limitAdvice)
    if (limit?.remaining === undefined) return context.ok(found)
    context.ok(`${found}, ${limit.remaining}${limit.limit === undefined ? '' : ` of ${limit.limit}`} pulls left`)
  }
}

const plainAdvice =
  'use https, or set insecure: true for this upstream and accept that the password can be read on the way'
const limitAdvice = 'wait, or configure credentials of an account with a higher limit'

const reachAdvice: Readonly<Record<string, string>> = {
  dns: "see that the name in its url is right and that this machine's resolver works",
  connect: 'see that address and port are right and that no firewall is between; an outgoing proxy is set with proxy',
  timeout: 'see that no firewall drops packets on the way; an outgoing proxy is set with proxy',
  proxy: 'see that the outgoing proxy (proxy, HTTPS_PROXY) works and lets this host through',
  reset: 'something on the way ends connections: a firewall, a proxy, or http where https is spoken',
  tls: 'if its certificate is signed by an authority of your own, name its PEM file with ca',
  bad_http: 'see that its url leads to a registry, and that http and https are not mixed up',
}

function strangeAnswer(status: number): { found: string; advice: string; isLimit: boolean } {
  const found = `answers ${status} to /v2/`
  if (status === 429) return { found, advice: limitAdvice, isLimit: true }
  const advice =
    status >= 500
      ? 'it is ill, or its load balancer has nobody behind it: ask whoever runs it'
      : 'see that its url leads to a registry: the origin (and perhaps a path) without /v2/'
  return { found, advice, isLimit: false }
}
