import { randomUUID } from 'node:crypto'
import type { Answer } from './body-writer.ts'

/** One request to the token endpoint, as it came. */
export type TokenExchange = {
  readonly method: string
  readonly authorization: string | undefined
  readonly query: URLSearchParams
  readonly form: URLSearchParams
  readonly scopes: readonly string[]
  readonly status: number
}

export type TokenBehaviour = {
  /** As written into the JSON; absent: no such field. */
  expiresIn: unknown
  field: 'token' | 'access_token' | 'both'
  /** Status of the POST form; 200 means supported. */
  postStatus: number
  /** Answers every exchange, instead of a token. */
  answer: Answer | undefined
}

type Account = { readonly username: string; readonly password: string }

/** A token endpoint: hands out opaque tokens and knows what each one opens. */
export class TokenIssuer {
  readonly behaviour: TokenBehaviour = { expiresIn: 300, field: 'token', postStatus: 200, answer: undefined }
  readonly exchanges: TokenExchange[] = []
  #account: Account | undefined
  #tokens = new Map<string, { scopes: readonly string[]; authenticated: boolean }>()

  constructor(account: Account | undefined) {
    this.#account = account
  }

  revokeAll(): void {
    this.#tokens.clear()
  }

  /** True when the token grants pull on the repository. A private one needs a token that was got with credentials. */
  opens(token: string, repository: string, isPrivate: boolean): boolean {
    const grant = this.#tokens.get(token)
    if (grant === undefined || (isPrivate && !grant.authenticated)) return false
    return grant.scopes.some(scope => scope.startsWith(`repository:${repository}:`) && scope.includes('pull'))
  }

  exchange(method: string, query: URLSearchParams, authorization: string | undefined, body: string): Answer {
    const form = new URLSearchParams(method === 'POST' ? body : '')
    const scopes = method === 'POST' ? (form.get('scope') ?? '').split(' ').filter(Boolean) : query.getAll('scope')
    const answer = this.#answer(method, authorization, form, scopes)
    this.exchanges.push({ method, authorization, query, form, scopes, status: answer.status })
    return answer
  }

  #answer(method: string, authorization: string | undefined, form: URLSearchParams, scopes: readonly string[]): Answer {
    if (this.behaviour.answer !== undefined) return this.behaviour.answer
    if (method === 'POST' && this.behaviour.postStatus !== 200) return json(this.behaviour.postStatus, { errors: [] })
    const authenticated =
      method === 'POST'
        ? form.get('username') === this.#account?.username && form.get('password') === this.#account?.password
        : isAuthorised(authorization, this.#account)
    const tried = method === 'POST' || authorization !== undefined
    if (tried && !authenticated) return json(401, { errors: [{ code: 'UNAUTHORIZED', message: 'bad credentials' }] })
    const token = `token-${randomUUID()}`
    this.#tokens.set(token, { scopes, authenticated: authenticated && this.#account !== undefined })
    const { field, expiresIn } = this.behaviour
    return json(200, {
      ...(field === 'access_token' ? {} : { token }),
      ...(field === 'token' ? {} : { access_token: token }),
      ...(expiresIn === undefined ? {} : { expires_in: expiresIn }),
    })
  }
}

/** True when a Basic header carries exactly this account. */
export function isAuthorised(authorization: string | undefined, account: Account | undefined): boolean {
  if (account === undefined || authorization === undefined) return false
  return authorization === `Basic ${Buffer.from(`${account.username}:${account.password}`).toString('base64')}`
}

export function json(status: number, value: unknown, headers: Record<string, string | string[]> = {}): Answer {
  return {
    status,
    headers: { 'content-type': 'application/json', ...headers },
    body: Buffer.from(JSON.stringify(value)),
  }
}
