import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import type { CredentialsConfig } from '../config/config.ts'

/** Who Layover is at an upstream. `secret` is a password, or a refresh token when `kind` is `identityToken`. */
export type Credential = {
  readonly kind: 'password' | 'identityToken'
  readonly username: string
  readonly secret: string
  /** Tells credentials apart without revealing them; changes when the secret does. */
  readonly id: string
}

/** Gives the credential to use now, or undefined for anonymous. Rejects with a message without secrets when it cannot be read. */
export type CredentialSource = () => Promise<Credential | undefined>

type SourceOptions = {
  readonly config: CredentialsConfig | undefined
  /** The upstream's configured name. */
  readonly upstream: string
  readonly registry: URL
}

/** Credentials are resolved at every use: a file is read again when it changed, so that rotation needs no restart. */
export function createCredentialSource({ config, upstream, registry }: SourceOptions): CredentialSource {
  switch (config?.kind) {
    case undefined:
      return () => Promise.resolve(undefined)
    case 'password': {
      const fixed = credential(config.username, config.password)
      return () => Promise.resolve(fixed)
    }
    case 'passwordFile':
      return reread(config.path, text => credential(config.username, text.replace(/\r?\n$/, '')))
    case 'dockerConfig':
      return reread(config.path, text => fromDockerConfig(text, upstream, registry))
  }
}

/** The value of `Authorization: Basic`. */
export function basicAuthorization({ username, secret }: Credential): string {
  return `Basic ${Buffer.from(`${username}:${secret}`).toString('base64')}`
}

function credential(username: string, secret: string): Credential {
  // ACR's user of this name says that the password is a refresh token (P-96).
  const kind = username === '<token>' ? 'identityToken' : 'password'
  const id = createHash('sha256').update(`${kind}\0${username}\0${secret}`).digest('hex').slice(0, 32)
  return { kind, username, secret, id }
}

function reread(path: string, parse: (text: string) => Credential | undefined): CredentialSource {
  let known: { readonly version: string; readonly value: Credential | undefined } | undefined
  return async () => {
    // Kubernetes replaces a mounted secret by renaming: another inode, perhaps the same time.
    const { mtimeMs, size, ino } = await stat(path)
    const version = `${mtimeMs}/${size}/${ino}`
    if (known?.version !== version) known = { version, value: parse(await readFile(path, 'utf8')) }
    return known.value
  }
}

/** https://docs.docker.com/reference/cli/docker/login/#configure-the-credential-store: the `auths` of config.json. */
function fromDockerConfig(text: string, upstream: string, registry: URL): Credential | undefined {
  const auths = recordAt(parseJson(text), 'auths')
  const entry = keysOf(upstream, registry)
    .map(key => recordAt(auths, key))
    .find(found => found !== undefined)
  if (entry === undefined) return undefined
  const [user, ...rest] = decoded(stringAt(entry, 'auth')).split(':')
  const username = stringAt(entry, 'username') ?? user ?? ''
  const identity = stringAt(entry, 'identitytoken')
  if (identity !== undefined && identity !== '') return credential('<token>', identity)
  return username === '' ? undefined : credential(username, stringAt(entry, 'password') ?? rest.join(':'))
}

function keysOf(upstream: string, registry: URL): readonly string[] {
  const hosts = upstream === 'docker.io' ? ['index.docker.io', 'docker.io', registry.host] : [upstream, registry.host]
  return hosts.flatMap(host => [
    `https://${host}/v1/`,
    `https://${host}/v2/`,
    `https://${host}`,
    `http://${host}`,
    host,
  ])
}

function decoded(auth: string | undefined): string {
  return Buffer.from(auth ?? '', 'base64')
    .toString('utf8')
    .replace(/\0+$/, '')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // The parser's message quotes the text, which is full of secrets.
    throw new Error('the docker configuration is not JSON')
  }
}

function recordAt(value: unknown, key: string): object | undefined {
  const found = valueAt(value, key)
  return typeof found === 'object' && found !== null ? found : undefined
}

function stringAt(value: unknown, key: string): string | undefined {
  const found = valueAt(value, key)
  return typeof found === 'string' ? found : undefined
}

function valueAt(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined
  return Reflect.get(value, key)
}
