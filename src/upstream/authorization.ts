import { type Challenge, parseChallenges } from './challenge.ts'
import { basicAuthorization, type Credential, type CredentialSource } from './credentials.ts'
import { acceptRealm } from './realm.ts'
import { grantedScopes } from './scope.ts'
import type { TokenRequest, Tokens } from './tokens.ts'
import type { Trust } from './trust.ts'
import { UpstreamError } from './upstream.ts'

/** What goes into `Authorization`, and how to take it back. */
export type Grant = {
  readonly header: string
  /** Call when the registry did not accept it. */
  readonly forget: () => void
}

type AuthorizationOptions = {
  readonly upstream: string
  readonly registry: URL
  readonly realmHosts: readonly string[]
  readonly insecure: boolean
  readonly credentials: CredentialSource
  readonly tokens: Tokens
  /** Trust of a realm on another host of the same owner. */
  readonly foreign: () => Trust
  /** Asks `/v2/` for its challenge. */
  readonly ping: (signal: AbortSignal | undefined) => Promise<string | readonly string[] | undefined>
}

/** How this registry wants to be asked, learnt from its challenges. */
type Scheme =
  | { readonly kind: 'basic' }
  | {
      readonly kind: 'bearer'
      readonly realm: URL
      readonly trust: Trust
      readonly service: string | undefined
      /** Scope of the last challenge when it was not about a repository (ECR Public). */
      readonly opaqueScope: string | undefined
    }

/** Authorises requests to one registry URL. Nothing it gives may be sent to another origin (P-88). */
export class Authorization {
  readonly #options: AuthorizationOptions
  #scheme: Scheme | undefined

  constructor(options: AuthorizationOptions) {
    this.#options = options
  }

  /** True once the registry has asked for it. */
  get isWanted(): boolean {
    return this.#scheme !== undefined
  }

  /** What to send with the first attempt: nothing before the registry has once asked for it. */
  async current(repository: string, signal?: AbortSignal): Promise<Grant | undefined> {
    if (this.#scheme === undefined) return undefined
    const opaque = this.#scheme.kind === 'bearer' ? this.#scheme.opaqueScope : undefined
    return this.#grant(this.#scheme, repository, opaque, signal)
  }

  /**
   * What to send after a 401, or undefined when there is nothing more to offer. `challenge` is its WWW-Authenticate; without one `/v2/`
   * is asked (P-94). Throws `refused` when the only way leads to a realm that is not allowed.
   */
  async answer(question: {
    readonly challenge: string | readonly string[] | undefined
    readonly repository: string
    readonly used: Grant | undefined
    readonly signal: AbortSignal | undefined
  }): Promise<Grant | undefined> {
    const { repository, used, signal } = question
    used?.forget()
    let challenges = parseChallenges(question.challenge)
    if (challenges.length === 0 && this.#scheme === undefined)
      challenges = parseChallenges(await this.#options.ping(signal))
    const { scheme, scope } = this.#choose(challenges)
    const before = this.#scheme
    if (scheme !== undefined) this.#scheme = scheme
    if (this.#scheme === undefined) return undefined
    // Basic that was refused once is refused again.
    if (this.#scheme.kind === 'basic' && before?.kind === 'basic' && used !== undefined) return undefined
    return this.#grant(this.#scheme, repository, scope, signal)
  }

  #choose(challenges: readonly Challenge[]): { scheme: Scheme | undefined; scope: string | undefined } {
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer')
    if (bearer !== undefined) {
      const scope = bearer.parameters.get('scope')
      return { scheme: this.#bearer(bearer), scope }
    }
    const isBasic = challenges.some(({ scheme }) => scheme === 'basic')
    return { scheme: isBasic ? { kind: 'basic' } : undefined, scope: undefined }
  }

  #bearer({ parameters }: Challenge): Scheme {
    const { upstream, registry, realmHosts, foreign } = this.#options
    const accepted = acceptRealm({ realm: parameters.get('realm') ?? '', registry, realmHosts })
    if ('refused' in accepted)
      throw new UpstreamError(
        'refused',
        upstream,
        'realm',
        `upstream names a token server that is not allowed (${accepted.refused})`,
      )
    const scope = parameters.get('scope')
    return {
      kind: 'bearer',
      realm: accepted.url,
      trust: accepted.trust === 'foreign' ? foreign() : { kind: accepted.trust },
      service: parameters.get('service'),
      opaqueScope: scope === undefined || scope.includes(':') ? undefined : scope,
    }
  }

  async #grant(
    scheme: Scheme,
    repository: string,
    scope: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Grant | undefined> {
    const credential = await this.#credential()
    if (scheme.kind === 'basic') return credential === undefined ? undefined : this.#basic(credential)
    const request: TokenRequest = {
      registry: this.#options.registry.origin,
      realm: scheme.realm,
      trust: scheme.trust,
      service: scheme.service,
      scopes: grantedScopes(repository, scope),
      credential,
    }
    const token = await this.#options.tokens.get(request, signal)
    return { header: `Bearer ${token}`, forget: () => this.#options.tokens.forget(request, token) }
  }

  #basic(credential: Credential): Grant {
    const { upstream, registry, insecure } = this.#options
    if (registry.protocol !== 'https:' && !insecure)
      throw new UpstreamError('refused', upstream, 'plain_http', 'credentials are not sent over plain http')
    return { header: basicAuthorization(credential), forget: () => {} }
  }

  async #credential(): Promise<Credential | undefined> {
    try {
      return await this.#options.credentials()
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? ` (${String(error.code)})` : ''
      const message = `the configured credentials cannot be read${code}`
      throw new UpstreamError('denied', this.#options.upstream, 'credentials', message, { cause: error })
    }
  }
}
