import http from 'node:http'
import https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { type Digest, digestOf, isDigest } from '../../src/oci/digest.ts'
import { type Answer, writeAnswer } from './body-writer.ts'
import { type Fault, type FaultMatch, FaultQueue, type Gate, GateKeeper, matches, type RequestMatch } from './faults.ts'
import { type FakeImage, fakeImage, type ImageOptions } from './image.ts'
import { isAuthorised, json, type TokenBehaviour, type TokenExchange, TokenIssuer } from './token-issuer.ts'

export type FakeRegistryOptions = {
  readonly auth?: 'none' | 'bearer' | 'basic'
  readonly username?: string
  readonly password?: string
  readonly tls?: { readonly key: string; readonly cert: string }
  /** How the server is called in its own URLs; it always listens on 127.0.0.1. */
  readonly hostname?: string
  /** Blob GETs answer 307 to a presigned-like URL: on a second origin, or relative on the same. */
  readonly blobRedirect?: 'none' | 'absolute' | 'relative'
  /** false: the referrers API answers 404. */
  readonly referrers?: boolean
  /** Repositories that need a token got with credentials. */
  readonly private?: readonly string[]
  /** Keep-alive of idle connections, milliseconds. */
  readonly keepAliveMs?: number
}

export type RecordedRequest = {
  readonly origin: 'registry' | 'cdn'
  readonly method: string
  /** Request target as sent. */
  readonly url: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: http.IncomingHttpHeaders
  readonly startedAt: number
  /** The connection it came over. */
  readonly remotePort: number | undefined
  /** 0 until answered. */
  status: number
  /** Body bytes really given to the network. */
  bodyBytes: number
}

export type FakeRegistry = {
  readonly url: string
  readonly host: string
  readonly cdnUrl: string
  readonly requests: readonly RecordedRequest[]
  readonly tokens: TokenBehaviour
  readonly tokenExchanges: readonly TokenExchange[]
  /** Connections accepted so far, both origins. */
  readonly connections: number
  /** Overrides of the challenge and of headers on every answer under /v2/. */
  readonly settings: FakeRegistrySettings
  /** Content that exists but is linked to no repository. */
  addBlob(bytes: Uint8Array): Digest
  addBlobTo(repository: string, bytes: Uint8Array): Digest
  /** Stores a manifest under its digest and, when given, a tag; links the blobs that it names to the repository. */
  addManifest(
    repository: string,
    tag: string | undefined,
    content: Uint8Array | object,
    mediaType: string,
    algorithm?: 'sha256' | 'sha512',
  ): Digest
  image(repository: string, tag: string | undefined, options?: ImageOptions): FakeImage
  /** The bytes behind a digest are replaced by others, under the same name. */
  corrupt(digest: Digest, bytes: Uint8Array): void
  removeTag(repository: string, tag: string): void
  removeBlob(repository: string, digest: Digest): void
  count(match?: RequestMatch): number
  /** Body bytes given to the network, of all matching requests. */
  bytes(match?: RequestMatch): number
  fault(match: FaultMatch, behaviour: Fault): void
  gate(match: RequestMatch & { readonly afterBytes?: number }): Gate
  clearFaults(): void
  revokeTokens(): void
  /** Presigned URLs handed out so far stop working (403). */
  expirePresigned(): void
  stop(): Promise<void>
  restart(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export type FakeRegistrySettings = {
  /** Replaces the WWW-Authenticate of every 401; an empty list: none at all. */
  challenge: string | readonly string[] | undefined
  /** Added to every answer under /v2/. */
  headers: Record<string, string>
  /** HEAD of manifests and blobs answers this instead. */
  headStatus: number | undefined
  /** false: no Docker-Content-Digest. */
  digestHeader: boolean
  referrers: boolean
  blobRedirect: 'none' | 'absolute' | 'relative'
}

type Manifest = { readonly bytes: Buffer; readonly mediaType: string }
type Repository = {
  readonly tags: Map<string, Digest>
  readonly manifests: Map<Digest, Manifest>
  readonly blobs: Set<Digest>
}

const route = /^\/v2\/(.+)\/(manifests|blobs|referrers|tags)\/([^/]+)$/

/**
 * Starts a real upstream registry on 127.0.0.1 that can be told to misbehave. Everything it was asked is in `requests`.
 * The test that starts it stops it.
 */
export async function startFakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const auth = options.auth ?? 'none'
  const account =
    options.username === undefined ? undefined : { username: options.username, password: options.password ?? '' }
  const issuer = new TokenIssuer(account)
  const faults = new FaultQueue()
  const gates = new GateKeeper()
  const blobs = new Map<Digest, Uint8Array>()
  const repositories = new Map<string, Repository>()
  const requests: RecordedRequest[] = []
  const settings: FakeRegistrySettings = {
    challenge: undefined,
    headers: {},
    headStatus: undefined,
    digestHeader: true,
    referrers: options.referrers ?? true,
    blobRedirect: options.blobRedirect ?? 'none',
  }
  let presignedGeneration = 1

  const registryServer = createOrigin(options, (request, response) => void serve('registry', request, response))
  const cdnServer = createOrigin(options, (request, response) => void serve('cdn', request, response))
  await Promise.all([registryServer.listen(), cdnServer.listen()])

  const repositoryOf = (name: string): Repository => {
    const known = repositories.get(name) ?? { tags: new Map(), manifests: new Map(), blobs: new Set() }
    repositories.set(name, known)
    return known
  }

  async function serve(
    origin: 'registry' | 'cdn',
    request: http.IncomingMessage,
    response: http.ServerResponse,
  ): Promise<void> {
    const target = request.url ?? '/'
    const url = new URL(target, 'http://fake')
    const record: RecordedRequest = {
      origin,
      method: request.method ?? 'GET',
      url: target,
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      startedAt: Date.now(),
      remotePort: request.socket.remotePort,
      status: 0,
      bodyBytes: 0,
    }
    requests.push(record)
    const body = await readText(request)
    const incoming = { ...record, ranged: request.headers.range !== undefined }
    const arrival = faults.takeAtArrival(incoming)
    await gates.before(record)
    if (response.destroyed || arrival?.kind === 'hang') return
    if (arrival?.kind === 'reset') {
      request.socket.resetAndDestroy()
      return
    }
    if (arrival?.kind === 'raw') {
      request.socket.end(arrival.bytes)
      return
    }
    let answer = arrival === undefined ? answerTo(record, body, request.headers.range) : replaced(arrival)
    let fault: Fault | undefined
    if (arrival === undefined && (answer.status === 200 || answer.status === 206)) {
      fault = faults.takeForBody(incoming)
      if (fault?.kind === 'ignoreRange') answer = answerTo(record, body, undefined)
      if (fault?.kind === 'wrongRange') answer = answerTo(record, body, shifted(request.headers.range ?? ''))
    }
    record.status = answer.status
    await writeAnswer({
      response,
      answer,
      fault,
      gate: gates.inside(record),
      head: record.method === 'HEAD',
      onBytes: bytes => {
        record.bodyBytes += bytes
      },
    })
  }

  function answerTo(request: RecordedRequest, body: string, range: string | undefined): Answer {
    if (request.path.startsWith('/storage/')) return stored(request, range)
    if (request.path === '/token' && request.origin === 'registry')
      return issuer.exchange(request.method, request.query, request.headers.authorization, body)
    if (request.origin === 'cdn' || !request.path.startsWith('/v2/')) return errorAnswer(404, 'NAME_UNKNOWN')
    const answer = api(request, range)
    return { ...answer, headers: { ...answer.headers, ...settings.headers } }
  }

  function api(request: RecordedRequest, range: string | undefined): Answer {
    const parts = route.exec(request.path)
    const name = parts?.[1]
    if (!isAllowed(request, name)) return unauthorised(name)
    if (request.path === '/v2/') return json(200, {})
    if (request.method !== 'GET' && request.method !== 'HEAD') return errorAnswer(405, 'UNSUPPORTED')
    const repository = name === undefined ? undefined : repositories.get(name)
    if (name === undefined || repository === undefined) return errorAnswer(404, 'NAME_UNKNOWN')
    const reference = decodeURIComponent(parts?.[3] ?? '')
    switch (parts?.[2]) {
      case 'manifests':
        return manifest(request, repository, reference)
      case 'blobs':
        return blob(request, repository, reference, range)
      case 'tags':
        return tags(request, name, repository)
      default:
        return referrers(repository, reference, request.query.get('artifactType'))
    }
  }

  function isAllowed(request: RecordedRequest, repository: string | undefined): boolean {
    if (auth === 'none') return true
    const authorization = request.headers.authorization
    if (auth === 'basic') return isAuthorised(authorization, account)
    if (repository === undefined) return request.path === '/v2/' && authorization?.startsWith('Bearer ') === true
    const token = authorization?.startsWith('Bearer ') === true ? authorization.slice('Bearer '.length) : ''
    return issuer.opens(token, repository, options.private?.includes(repository) ?? false)
  }

  function unauthorised(repository: string | undefined): Answer {
    const scope = repository === undefined ? '' : `,scope="repository:${repository}:pull"`
    const own =
      auth === 'basic'
        ? 'Basic realm="fake"'
        : `Bearer realm="${registryServer.url()}/token",service="${registryServer.host()}"${scope}`
    const challenge = settings.challenge ?? own
    const lines = typeof challenge === 'string' ? [challenge] : [...challenge]
    return errorAnswer(401, 'UNAUTHORIZED', lines.length === 0 ? {} : { 'www-authenticate': lines })
  }

  function manifest(request: RecordedRequest, repository: Repository, reference: string): Answer {
    if (request.method === 'HEAD' && settings.headStatus !== undefined)
      return errorAnswer(settings.headStatus, 'UNSUPPORTED')
    const digest = isDigest(reference) ? reference : repository.tags.get(reference)
    const found = digest === undefined ? undefined : repository.manifests.get(digest)
    if (digest === undefined || found === undefined) return errorAnswer(404, 'MANIFEST_UNKNOWN')
    const headers: Record<string, string> = { 'content-type': found.mediaType }
    if (settings.digestHeader) headers['docker-content-digest'] = digest
    return { status: 200, headers, body: found.bytes }
  }

  function blob(
    request: RecordedRequest,
    repository: Repository,
    reference: string,
    range: string | undefined,
  ): Answer {
    if (request.method === 'HEAD' && settings.headStatus !== undefined)
      return errorAnswer(settings.headStatus, 'UNSUPPORTED')
    if (!isDigest(reference)) return errorAnswer(400, 'DIGEST_INVALID')
    const bytes = repository.blobs.has(reference) ? blobs.get(reference) : undefined
    if (bytes === undefined) return errorAnswer(404, 'BLOB_UNKNOWN')
    if (settings.blobRedirect === 'none') return content(reference, bytes, range)
    const query = `X-Amz-Signature=${presignedSecret}&expires=${presignedGeneration}`
    const path = `/storage/${reference.replace(':', '/')}?${query}`
    const location = settings.blobRedirect === 'absolute' ? cdnServer.url() + path : path
    return { status: 307, headers: { location }, body: Buffer.from('Temporary Redirect') }
  }

  function stored(request: RecordedRequest, range: string | undefined): Answer {
    // S3 refuses a second kind of authentication beside the signature.
    if (request.origin === 'cdn' && request.headers.authorization !== undefined)
      return errorAnswer(400, 'INVALID_ARGUMENT')
    if (request.method !== 'GET' || request.query.get('X-Amz-Signature') !== presignedSecret)
      return errorAnswer(403, 'DENIED')
    if (Number(request.query.get('expires')) < presignedGeneration) return errorAnswer(403, 'DENIED')
    const digest = request.path.slice('/storage/'.length).replace('/', ':')
    const bytes = isDigest(digest) ? blobs.get(digest) : undefined
    return bytes === undefined || !isDigest(digest) ? errorAnswer(404, 'BLOB_UNKNOWN') : content(digest, bytes, range)
  }

  function referrers(repository: Repository, reference: string, artifactType: string | null): Answer {
    if (!settings.referrers) return errorAnswer(404, 'NOT_FOUND')
    const described = [...repository.manifests].flatMap(([digest, { bytes, mediaType }]) => {
      const document = parsed(bytes)
      if (document?.subject?.digest !== reference) return []
      const kind = document.artifactType ?? document.config?.mediaType
      return [{ mediaType, digest, size: bytes.length, artifactType: kind, annotations: document.annotations }]
    })
    const index = {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: described.filter(one => artifactType === null || one.artifactType === artifactType),
    }
    const headers: Record<string, string> = { 'content-type': index.mediaType }
    if (artifactType !== null) headers['oci-filters-applied'] = 'artifactType'
    return json(200, index, headers)
  }

  const registry: FakeRegistry = {
    get url() {
      return registryServer.url()
    },
    get host() {
      return registryServer.host()
    },
    get cdnUrl() {
      return cdnServer.url()
    },
    get connections() {
      return registryServer.connections() + cdnServer.connections()
    },
    requests,
    tokens: issuer.behaviour,
    tokenExchanges: issuer.exchanges,
    settings,
    addBlob(bytes) {
      const digest = digestOf(bytes)
      blobs.set(digest, bytes)
      return digest
    },
    addBlobTo(repository, bytes) {
      const digest = registry.addBlob(bytes)
      repositoryOf(repository).blobs.add(digest)
      return digest
    },
    addManifest(name, tag, value, mediaType, algorithm = 'sha256') {
      const bytes = value instanceof Uint8Array ? Buffer.from(value) : Buffer.from(JSON.stringify(value))
      const digest = digestOf(bytes, algorithm)
      const repository = repositoryOf(name)
      repository.manifests.set(digest, { bytes, mediaType })
      if (tag !== undefined) repository.tags.set(tag, digest)
      const document = parsed(bytes)
      for (const named of [document?.config, ...(document?.layers ?? [])])
        if (named?.digest !== undefined && isDigest(named.digest)) repository.blobs.add(named.digest)
      return digest
    },
    image(repository, tag, imageOptions) {
      const image = fakeImage(imageOptions)
      for (const { bytes } of [image.config, ...image.layers]) registry.addBlobTo(repository, bytes)
      registry.addManifest(repository, tag, image.manifestBytes, image.mediaType)
      return image
    },
    corrupt(digest, bytes) {
      if (blobs.has(digest)) blobs.set(digest, bytes)
      for (const { manifests } of repositories.values()) {
        const found = manifests.get(digest)
        if (found !== undefined) manifests.set(digest, { ...found, bytes: Buffer.from(bytes) })
      }
    },
    removeTag(repository, tag) {
      repositoryOf(repository).tags.delete(tag)
    },
    removeBlob(repository, digest) {
      repositoryOf(repository).blobs.delete(digest)
    },
    count: (match = {}) => requests.filter(request => matches(match, request)).length,
    bytes: (match = {}) =>
      requests.filter(request => matches(match, request)).reduce((sum, request) => sum + request.bodyBytes, 0),
    fault: (match, behaviour) => faults.add(match, behaviour),
    gate: match => gates.add(match),
    clearFaults: () => faults.clear(),
    revokeTokens: () => issuer.revokeAll(),
    expirePresigned: () => {
      presignedGeneration += 1
    },
    async stop() {
      gates.openAll()
      await Promise.all([registryServer.close(), cdnServer.close()])
    },
    async restart() {
      await Promise.all([registryServer.listen(), cdnServer.listen()])
    },
    [Symbol.asyncDispose]: () => registry.stop(),
  }
  return registry
}

/** In every presigned-like URL: must appear in no log line and no error (T-10). */
export const presignedSecret = 'presigned-canary-4f9d'

function tags(request: RecordedRequest, name: string, repository: Repository): Answer {
  const last = request.query.get('last') ?? ''
  const limit = request.query.get('n')
  const all = [...repository.tags.keys()].sort().filter(tag => tag > last)
  const page = limit === null ? all : all.slice(0, Number(limit))
  const more = page.length > 0 && page.length < all.length
  const query = new URLSearchParams({ n: limit ?? '', last: page.at(-1) ?? '' })
  return json(
    200,
    { name, tags: page },
    more ? { link: `</v2/${name}/tags/list?${query.toString()}>; rel="next"` } : {},
  )
}

function content(digest: Digest, bytes: Uint8Array, range: string | undefined): Answer {
  const headers = {
    'content-type': 'application/octet-stream',
    'docker-content-digest': digest,
    'accept-ranges': 'bytes',
    etag: `"${digest}"`,
  }
  const asked = /^bytes=(\d+)-(\d*)$/.exec(range ?? '')
  if (asked === null) return { status: 200, headers, body: bytes }
  const start = Number(asked[1])
  const end = Math.min(asked[2] === '' ? bytes.length - 1 : Number(asked[2]), bytes.length - 1)
  if (start >= bytes.length || end < start)
    return errorAnswer(416, 'RANGE_INVALID', { 'content-range': `bytes */${bytes.length}` })
  return {
    status: 206,
    headers: { ...headers, 'content-range': `bytes ${start}-${end}/${bytes.length}` },
    body: bytes.subarray(start, end + 1),
  }
}

function shifted(range: string): string {
  return range.replace(/\d+/, start => String(Number(start) + 1))
}

function replaced(fault: Fault): Answer {
  switch (fault.kind) {
    case 'status':
      return { status: fault.status, headers: fault.headers ?? {}, body: Buffer.from(fault.body ?? '') }
    case 'redirect':
      return { status: fault.status ?? 307, headers: { location: fault.location }, body: Buffer.from('') }
    case 'html':
      return {
        status: 200,
        headers: { 'content-type': 'text/html; charset=utf-8' },
        body: Buffer.from('<!doctype html><title>Sign in</title><p>Please sign in to the network.'),
      }
    default:
      return { status: 200, headers: { 'content-type': 'application/json' }, body: Buffer.from('') }
  }
}

function errorAnswer(status: number, code: string, headers: Record<string, string | string[]> = {}): Answer {
  return json(status, { errors: [{ code, message: `${code} by the fake registry` }] }, headers)
}

type Document = {
  readonly subject?: { readonly digest?: string }
  readonly artifactType?: string
  readonly annotations?: object
  readonly config?: { readonly digest?: string; readonly mediaType?: string }
  readonly layers?: readonly { readonly digest?: string }[]
}

function parsed(bytes: Buffer): Document | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString())
    // What a test stores here is a manifest or deliberately broken; both are read by optional access only.
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}

async function readText(request: http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  try {
    for await (const chunk of request) chunks.push(chunk as Buffer)
  } catch {
    // The client left while it was sending.
  }
  return Buffer.concat(chunks).toString()
}

type Origin = {
  url(): string
  host(): string
  connections(): number
  listen(): Promise<void>
  close(): Promise<void>
}

function createOrigin(options: FakeRegistryOptions, listener: http.RequestListener): Origin {
  const settings = {
    keepAliveTimeout: options.keepAliveMs ?? 60_000,
    requestTimeout: 0,
    connectionsCheckingInterval: 1e6,
  }
  const server =
    options.tls === undefined
      ? http.createServer(settings, listener)
      : https.createServer({ ...settings, ...options.tls }, listener)
  const sockets = new Set<Socket>()
  let port = 0
  let connections = 0
  server.on('connection', (socket: Socket) => {
    connections += 1
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    // A client that resets its connection is part of many tests.
    socket.on('error', () => {})
  })
  const host = (): string => `${options.hostname ?? '127.0.0.1'}:${port}`
  return {
    url: () => `${options.tls === undefined ? 'http' : 'https'}://${host()}`,
    host,
    connections: () => connections,
    listen: () =>
      new Promise((resolve, reject) => {
        server.once('error', reject)
        server.listen(port, '127.0.0.1', () => {
          server.off('error', reject)
          // A server that listens on a port has an address of this form.
          port = (server.address() as AddressInfo).port
          resolve()
        })
      }),
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}
