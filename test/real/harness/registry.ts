import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Agent, request } from 'undici'
import type { Content, Image } from '../../../src/cli/image.ts'
import type { Authority } from './authority.ts'
import { freePort } from '../../fakes/ports.ts'
import { scratch, start, until } from './process.ts'
import type { TokenServer } from './token-server.ts'

/** One line of the registry's own access log. */
export type LoggedRequest = { readonly method: string; readonly path: string; readonly status: number }

/** Debian's docker-registry in a directory of its own: the upstream that was not written by us. */
export type Registry = {
  /** `127.0.0.1:<port>` */
  readonly host: string
  readonly url: string
  readonly pid: number
  push(repository: string, tag: string, image: Image): Promise<void>
  /** Every request that it answered so far, as its own access log tells. Complete once it was stopped. */
  requests(): readonly LoggedRequest[]
  /** Forgets what was logged so far: pushes, for instance. */
  forgetRequests(): void
  /** Kills the process: connections break, the port refuses. What was pushed stays. */
  stop(): Promise<void>
  close(): Promise<void>
}

export type RegistryOptions = {
  /** TLS with this certificate. */
  readonly authority?: Authority
  readonly tokens?: TokenServer
  /** Pull-through mode: what it caches for. */
  readonly proxyOf?: string
  /** false: it writes no access log, and {@link Registry.requests} is empty. */
  readonly accessLog?: boolean
}

export async function startRegistry(options: RegistryOptions = {}): Promise<Registry> {
  const directory = await scratch('registry')
  const port = await freePort()
  const host = `127.0.0.1:${port}`
  const url = `${options.authority === undefined ? 'http' : 'https'}://${host}`
  const configPath = join(directory.path, 'config.json')
  await mkdir(join(directory.path, 'storage'))
  await writeFile(configPath, JSON.stringify(registryConfig(directory.path, host, options)))
  const agent = new Agent({ connect: { ca: options.authority?.ca }, pipelining: 1 })
  const running = await start({
    command: 'docker-registry',
    args: ['serve', configPath],
    ready: async () => {
      const answer = await request(`${url}/v2/`, { dispatcher: agent }).catch(() => undefined)
      await answer?.body.dump()
      return answer !== undefined
    },
  })
  let forgotten = 0
  return {
    host,
    url,
    pid: running.pid,
    push: (repository, tag, image) => push({ url, agent, tokens: options.tokens, repository, tag, image }),
    requests: () => parseAccessLog(running.output().slice(forgotten)),
    forgetRequests() {
      forgotten = running.output().length
    },
    stop: () => running.end('SIGKILL'),
    async close() {
      await running.end('SIGKILL')
      await agent.close()
      await directory.remove()
    },
  }
}

// JSON is YAML.
function registryConfig(directory: string, host: string, options: RegistryOptions): unknown {
  const { authority, tokens, proxyOf, accessLog = true } = options
  return {
    version: '0.1',
    log: { level: 'warn', accesslog: { disabled: !accessLog } },
    storage: { filesystem: { rootdirectory: join(directory, 'storage') }, cache: { blobdescriptor: 'inmemory' } },
    http: {
      addr: host,
      ...(authority !== undefined && { tls: { certificate: authority.certificatePath, key: authority.keyPath } }),
    },
    ...(authority !== undefined &&
      tokens !== undefined && {
        auth: {
          token: {
            realm: tokens.realm,
            service: tokens.service,
            issuer: tokens.issuer,
            rootcertbundle: authority.certificatePath,
          },
        },
      }),
    ...(proxyOf !== undefined && { proxy: { remoteurl: proxyOf } }),
  }
}

const logLine = /"([A-Z]+) (\S+) HTTP\/[\d.]+" (\d{3}) /

function parseAccessLog(text: string): readonly LoggedRequest[] {
  return text.split('\n').flatMap(line => {
    const [, method, path, status] = logLine.exec(line) ?? []
    return method === undefined || path === undefined ? [] : [{ method, path, status: Number(status) }]
  })
}

type Push = {
  readonly url: string
  readonly agent: Agent
  readonly tokens: TokenServer | undefined
  readonly repository: string
  readonly tag: string
  readonly image: Image
}

/** https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push */
async function push({ url, agent, tokens, repository, tag, image }: Push): Promise<void> {
  const token = tokens === undefined ? undefined : await pushToken(tokens, repository, agent)
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const base = `${url}/v2/${repository}`
  for (const blob of image.blobs) {
    const opened = await request(`${base}/blobs/uploads/`, { method: 'POST', headers, dispatcher: agent })
    await opened.body.dump()
    const location = new URL(String(opened.headers.location), url)
    location.searchParams.set('digest', blob.digest)
    await put(location.href, blob, { ...headers, 'content-type': 'application/octet-stream' }, agent)
  }
  for (const manifest of image.manifests) {
    const types = { ...headers, 'content-type': manifest.mediaType }
    await put(`${base}/manifests/${manifest.digest}`, manifest, types, agent)
    if (manifest === image.top) await put(`${base}/manifests/${tag}`, manifest, types, agent)
  }
}

async function put(url: string, content: Content, headers: Record<string, string>, agent: Agent): Promise<void> {
  const { statusCode, body } = await request(url, { method: 'PUT', headers, body: content.bytes, dispatcher: agent })
  const text = await body.text()
  if (statusCode !== 201) throw new Error(`PUT ${content.mediaType} ${content.digest}: ${statusCode} ${text}`)
}

async function pushToken({ realm, account }: TokenServer, repository: string, agent: Agent): Promise<string> {
  const authorization = `Basic ${Buffer.from(`${account.username}:${account.password}`).toString('base64')}`
  const scope = encodeURIComponent(`repository:${repository}:pull,push`)
  const { body } = await request(`${realm}?scope=${scope}`, { headers: { authorization }, dispatcher: agent })
  const { token } = (await body.json()) as { token: string }
  return token
}

/** Waits until the registry has logged `count` requests that `wanted` is true for: it logs a request after its last byte was sent. */
export async function untilLogged(
  registry: Registry,
  wanted: (request: LoggedRequest) => boolean,
  count: number,
): Promise<void> {
  await until(() => registry.requests().filter(wanted).length >= count, 5000)
}
