import { randomUUID, sign, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { Authority } from './authority.ts'

export type Account = { readonly username: string; readonly password: string }

/** Issues the bearer tokens that Debian's registry asks for, to one account. https://distribution.github.io/distribution/spec/auth/jwt/ */
export type TokenServer = {
  readonly realm: string
  readonly service: string
  readonly issuer: string
  readonly account: Account
  /** How many tokens were issued. */
  issued(): number
  close(): Promise<void>
}

const issuer = 'layover-test-issuer'
const service = 'layover-test-registry'

export async function startTokenServer(authority: Authority, account: Account): Promise<TokenServer> {
  let issued = 0
  const expected = `Basic ${Buffer.from(`${account.username}:${account.password}`).toString('base64')}`
  const server = createServer({ cert: authority.certificate, key: authority.key }, (request, response) => {
    const url = new URL(request.url ?? '/', 'https://token.invalid')
    if (request.headers.authorization !== expected) {
      response.writeHead(401, { 'content-type': 'application/json' }).end('{}')
      return
    }
    issued += 1
    const token = jwt(
      authority,
      account.username,
      url.searchParams.getAll('scope').flatMap(scope => scope.split(' ')),
    )
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ token, expires_in: 300 }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the token server has no port')
  return {
    realm: `https://127.0.0.1:${address.port}/token`,
    service,
    issuer,
    account,
    issued: () => issued,
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

function jwt(authority: Authority, subject: string, scopes: readonly string[]): string {
  const now = Math.floor(Date.now() / 1000)
  const x5c = [new X509Certificate(authority.certificate).raw.toString('base64')]
  const claims = {
    iss: issuer,
    sub: subject,
    aud: service,
    exp: now + 300,
    nbf: now - 10,
    iat: now,
    jti: randomUUID(),
    access: scopes.filter(scope => scope !== '').map(access),
  }
  const signed = `${part({ typ: 'JWT', alg: 'ES256', x5c })}.${part(claims)}`
  const signature = sign('sha256', Buffer.from(signed), { key: authority.key, dsaEncoding: 'ieee-p1363' })
  return `${signed}.${signature.toString('base64url')}`
}

const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

function access(scope: string): { type: string; name: string; actions: string[] } {
  const [type = '', ...rest] = scope.split(':')
  const actions = rest.pop() ?? ''
  return { type, name: rest.join(':'), actions: actions.split(',') }
}
