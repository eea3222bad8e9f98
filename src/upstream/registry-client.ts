import type { Clock } from '../clock.ts'
import type { UpstreamConfig } from '../config/config.ts'
import type { Log } from '../log/log.ts'
import type { Observer, UpstreamKind } from '../log/observer.ts'
import { type Digest, isDigest } from '../oci/digest.ts'
import { parseNextLink } from '../oci/link.ts'
import { bareMediaType, manifestAccept, ociIndex } from '../oci/media-types.ts'
import { parseWarnings } from '../oci/warning.ts'
import { matchingRange, parseContentRange } from './content-range.ts'
import type { ExchangeAnswer } from './exchange.ts'
import { noTracer, type Tracer } from '../tracing/tracer.ts'
import { Limiter } from './limiter.ts'
import { parseRateLimit, type RateLimit } from './rate-limit.ts'
import { withRetries } from './retry.ts'
import { readSmallBody } from './small-body.ts'
import { Source } from './source.ts'
import { refusalOf } from './status.ts'
import { Tokens } from './tokens.ts'
import { discard, headerOf, type OutgoingHeaders, Transport } from './transport.ts'
import type { Lookup } from './trust.ts'
import {
  type BlobHead,
  type BlobOptions,
  type CallOptions,
  type ManifestHead,
  type SourceOption,
  type Upstream,
  type UpstreamBlob,
  UpstreamError,
  type UpstreamHealth,
  type UpstreamManifest,
  type UpstreamPage,
} from './upstream.ts'
import { UpstreamBody } from './upstream-body.ts'

export type UpstreamDependencies = {
  readonly config: UpstreamConfig
  /** true: every call fails without touching a socket. */
  readonly offline: boolean
  readonly clock: Clock
  readonly observer: Observer
  readonly log?: Log
  /** Resolves names; default: the system's. */
  readonly lookup?: Lookup
  /** Our own name in `Via`. */
  readonly via?: string
  /** Default: nothing is traced. `propagate`: the registry is told the trace. */
  readonly trace?: { readonly tracer: Tracer; readonly propagate: boolean }
}

type Call = {
  readonly kind: UpstreamKind
  readonly method: 'GET' | 'HEAD'
  readonly repository: string
  readonly path: string
  readonly headers: OutgoingHeaders
  readonly signal: AbortSignal | undefined
}

// 4 MiB: the size of manifest that registries must accept (P-42).
const maxManifestBytes = 4 * 1024 * 1024
// T-46: a list of a million tags has to end somewhere.
const maxPageBytes = 16 * 1024 * 1024
// How long it is remembered that HEAD is not answered (F-32, P-50).
const headMemoryMs = 30 * 60_000
const maxRemembered = 10_000

/** A registry as a client sees it. Nothing is dialled before the first call. The caller closes it. */
export function createUpstream(dependencies: UpstreamDependencies): Upstream {
  return new RegistryClient(dependencies)
}

class RegistryClient implements Upstream {
  readonly name: string
  readonly #offline: boolean
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #log: Log | undefined
  readonly #tracer: Tracer
  readonly #transport: Transport
  readonly #sources: readonly [Source, ...Source[]]
  readonly #bodySlots: Limiter
  readonly #smallSlots: Limiter
  /** Where HEAD is not answered, until when (monotonic). */
  readonly #withoutHead = new Map<string, number>()
  #rateLimit: RateLimit | undefined

  constructor({ config, offline, clock, observer, log, lookup, via, trace }: UpstreamDependencies) {
    const tracer = trace?.tracer ?? noTracer
    this.#tracer = tracer
    this.name = config.name
    this.#offline = offline
    this.#clock = clock
    this.#observer = observer
    this.#log = log
    this.#transport = new Transport({ config, lookup, via })
    // Blob bodies last long; small requests have slots of their own, so that a pull never waits for its manifest behind layers.
    this.#bodySlots = new Limiter(config.maxConnections)
    this.#smallSlots = new Limiter(config.maxConnections)
    const tokens = new Tokens({
      upstream: config.name,
      insecure: config.insecure,
      transport: this.#transport,
      clock,
      observer,
      tracer,
    })
    const traceparent = trace?.propagate === true ? () => tracer.traceparent() : undefined
    const onDiscarded = (kind: UpstreamKind, bytes: number): void => observer.upstreamBytes(config.name, kind, bytes)
    const shared = { config, transport: this.#transport, tokens, clock, traceparent, onDiscarded }
    this.#sources = [
      new Source({ ...shared, url: config.url, onState: state => observer.upstreamState(config.name, state) }),
      ...config.mirrors.map(url => new Source({ ...shared, url })),
    ]
  }

  get sources(): number {
    return this.#sources.length
  }

  health(): UpstreamHealth {
    const { breaker } = this.#sources[0]
    return { state: breaker.state(), ...breaker.health(), rateLimit: this.#rateLimit }
  }

  async headManifest(repository: string, reference: string, options: CallOptions = {}): Promise<ManifestHead> {
    const source = this.#source(0)
    if (this.#isWithoutHead(manifestsOf(repository)) || this.#isWithoutHead('manifests')) return unknownHead
    const call = this.#manifestCall('HEAD', repository, reference, options)
    try {
      return await this.#request(source, call, answer => Promise.resolve(readHead(answer)))
    } catch (error) {
      if (!isHeadRefused(error)) throw error
      // A missing method concerns all repositories (F-32); any other refusal perhaps this one alone (T-23).
      this.#rememberWithoutHead(isMethodMissing(error) ? 'manifests' : manifestsOf(repository))
      return unknownHead
    }
  }

  async getManifest(
    repository: string,
    reference: string,
    options: CallOptions & SourceOption = {},
  ): Promise<UpstreamManifest> {
    const call = this.#manifestCall('GET', repository, reference, options)
    const read = async (answer: ExchangeAnswer): Promise<UpstreamManifest> => {
      const bytes = await this.#read(answer, call, maxManifestBytes)
      if (bytes.length === 0) throw this.#invalid('empty', 'upstream answers with an empty manifest', answer.status)
      return {
        bytes,
        mediaType: bareMediaType(headerOf(answer, 'content-type')),
        digest: headerOf(answer, 'docker-content-digest'),
        warnings: parseWarnings(answer.headers['warning']),
      }
    }
    // A tag belongs to the upstream itself; content by digest is the same wherever it comes from (T-21).
    const anySource = options.source === undefined && reference.includes(':')
    if (anySource) return this.#anySource(source => this.#request(source, call, read))
    return this.#request(this.#source(options.source ?? 0), call, read)
  }

  headBlob(repository: string, digest: Digest, options: CallOptions = {}): Promise<BlobHead> {
    return this.#anySource(async source => {
      const memory = `blobs ${source.url.href}`
      if (!this.#isWithoutHead(memory)) {
        const size = await this.#blobSizeByHead(source, repository, digest, options)
        if (size !== undefined) return { size }
      }
      const head = await this.#blobSizeByRange(source, repository, digest, options)
      // Only now it is known that it was HEAD that failed, not the right to read (P-50).
      this.#rememberWithoutHead(memory)
      return head
    })
  }

  async getBlob(repository: string, digest: Digest, options: BlobOptions): Promise<UpstreamBlob> {
    const source = this.#source(options.source)
    const { offset, end, signal } = options
    const isRanged = offset > 0 || end !== undefined
    const call: Call = {
      kind: 'blob',
      method: 'GET',
      repository,
      path: `${repository}/blobs/${digest}`,
      headers: isRanged ? { range: `bytes=${offset}-${end ?? ''}` } : {},
      signal,
    }
    const preparing = source.prepare(call)
    if (preparing) await preparing
    const release = await this.#bodySlots.acquire({ background: options.background ?? false, signal })
    try {
      const answer = await source.guarded(() => this.#ask(source, call))
      const { start, size } = this.#position(answer, offset, end)
      const body = new UpstreamBody(answer.body, {
        upstream: this.name,
        redirected: answer.redirected,
        signal,
        onBytes: bytes => this.#observer.upstreamBytes(this.name, 'blob', bytes),
        onClose: release,
      })
      return { offset: start, size, etag: headerOf(answer, 'etag'), body }
    } catch (error) {
      release()
      throw error
    }
  }

  async listTags(repository: string, query: URLSearchParams, options: CallOptions = {}): Promise<UpstreamPage> {
    return this.#page('tags', repository, `${repository}/tags/list`, query, 'application/json', options)
  }

  async listReferrers(
    repository: string,
    digest: Digest,
    query: URLSearchParams,
    options: CallOptions = {},
  ): Promise<UpstreamPage> {
    try {
      return await this.#page('referrers', repository, `${repository}/referrers/${digest}`, query, ociIndex, options)
    } catch (error) {
      if (!(error instanceof UpstreamError) || !withoutApi.has(error.status ?? 0)) throw error
      const message = 'upstream does not have the referrers API'
      throw new UpstreamError('notFound', this.name, error.reason, message, {
        cause: error,
        status: error.status ?? 404,
      })
    }
  }

  close(): Promise<void> {
    return this.#transport.close()
  }

  async #page(
    kind: 'tags' | 'referrers',
    repository: string,
    path: string,
    query: URLSearchParams,
    accept: string,
    { signal }: CallOptions,
  ): Promise<UpstreamPage> {
    const source = this.#source(0)
    const asked = query.size === 0 ? path : `${path}?${query.toString()}`
    const call: Call = { kind, method: 'GET', repository, path: asked, headers: { accept }, signal }
    return this.#request(source, call, async answer => ({
      bytes: await this.#read(answer, call, maxPageBytes),
      mediaType: bareMediaType(headerOf(answer, 'content-type')),
      next: nextQuery(answer.headers['link'], source.locate(asked)),
      filtersApplied: headerOf(answer, 'oci-filters-applied'),
    }))
  }

  /** A small request from begin to end: slot, breaker, retries, reading. */
  async #request<Result>(
    source: Source,
    call: Call,
    read: (answer: ExchangeAnswer) => Promise<Result>,
  ): Promise<Result> {
    // Before a slot is taken: a slow token server holds up those who need a new token, and nobody else (F-72).
    const preparing = source.prepare(call)
    if (preparing) await preparing
    const release = await this.#smallSlots.acquire({ signal: call.signal })
    try {
      return await source.guarded(() =>
        withRetries(async retries => read(await this.#ask(source, call, retries)), call.signal),
      )
    } finally {
      release()
    }
  }

  /** One exchange, observed. Gives an answer that can be used; throws for all others. */
  #ask(source: Source, call: Call, retries = 0): Promise<ExchangeAnswer> {
    if (!this.#tracer.on) return this.#askNow(source, call)
    // The path is told by what it means, a query not at all.
    const attributes = {
      'http.request.method': call.method,
      'http.request.resend_count': retries === 0 ? undefined : retries,
      'server.address': source.url.host,
      'layover.upstream': this.name,
      'layover.kind': call.kind,
      'layover.repository': call.repository,
    }
    return this.#tracer.child(`${call.method} ${call.kind}`, attributes, async span => {
      try {
        const answer = await this.#askNow(source, call)
        span?.set({ 'http.response.status_code': answer.status, 'layover.redirects': answer.hops })
        return answer
      } catch (error) {
        if (error instanceof UpstreamError) span?.set({ 'http.response.status_code': error.status })
        throw error
      }
    })
  }

  async #askNow(source: Source, call: Call): Promise<ExchangeAnswer> {
    const started = this.#clock.monotonic()
    let outcome = 'cancelled'
    try {
      const answer = await source.send(call)
      outcome = String(answer.status)
      this.#observeLimits(answer)
      const ranged = call.headers.range !== undefined
      const refusal = refusalOf(this.name, answer, { ranged, now: this.#clock.now() })
      if (refusal === undefined) return answer
      discard(answer, bytes => this.#observer.upstreamBytes(this.name, call.kind, bytes))
      throw refusal
    } catch (error) {
      if (error instanceof UpstreamError && error.status === undefined) outcome = error.reason
      if (error instanceof UpstreamError) this.#logFailure(call, error)
      throw error
    } finally {
      const seconds = (this.#clock.monotonic() - started) / 1000
      this.#observer.upstreamRequest({ upstream: this.name, kind: call.kind, method: call.method, outcome, seconds })
    }
  }

  /** Tries the upstream's own URL, then its mirrors, as long as they are out of reach. Gives the first failure when all are. */
  async #anySource<Result>(attempt: (source: Source) => Promise<Result>): Promise<Result> {
    let first: unknown
    for (const [index] of this.#sources.entries()) {
      try {
        return await attempt(this.#source(index))
      } catch (error) {
        first ??= error
        if (!(error instanceof UpstreamError) || !isElsewhereWorthTrying(error)) throw index === 0 ? error : first
      }
    }
    throw first
  }

  async #blobSizeByHead(
    source: Source,
    repository: string,
    digest: Digest,
    { signal }: CallOptions,
  ): Promise<number | undefined> {
    const call: Call = {
      kind: 'blob',
      method: 'HEAD',
      repository,
      path: `${repository}/blobs/${digest}`,
      headers: {},
      signal,
    }
    try {
      return await this.#request(source, call, answer => Promise.resolve(lengthOf(answer)))
    } catch (error) {
      // A presigned URL for GET answers HEAD with 403 (P-50).
      if (isHeadRefused(error)) return undefined
      throw error
    }
  }

  async #blobSizeByRange(
    source: Source,
    repository: string,
    digest: Digest,
    { signal }: CallOptions,
  ): Promise<BlobHead> {
    const path = `${repository}/blobs/${digest}`
    const call: Call = { kind: 'blob', method: 'GET', repository, path, headers: { range: 'bytes=0-0' }, signal }
    try {
      return await this.#request(source, call, answer => {
        // Destroyed, not read: an upstream that ignores ranges would send all of it.
        if (answer.status === 206) discard(answer, bytes => this.#observer.upstreamBytes(this.name, 'blob', bytes))
        else answer.body.on('error', () => {}).destroy()
        const range = parseContentRange(headerOf(answer, 'content-range'))
        return Promise.resolve({ size: answer.status === 206 ? range?.size : lengthOf(answer) })
      })
    } catch (error) {
      // Not one byte to give: the blob is there, and empty.
      if (error instanceof UpstreamError && error.status === 416) return { size: undefined }
      throw error
    }
  }

  /** Where a blob's bytes start, checked strictly (P-114). Destroys the body when they are not what was asked. */
  #position(
    answer: ExchangeAnswer,
    offset: number,
    end: number | undefined,
  ): { readonly start: number; readonly size: number | undefined } {
    const contentLength = lengthOf(answer)
    if (answer.status === 200) return { start: 0, size: contentLength }
    const range = matchingRange(headerOf(answer, 'content-range'), { offset, end, contentLength })
    if (range !== undefined) return { start: range.start, size: range.size }
    answer.body.on('error', () => {}).destroy()
    throw this.#invalid('wrong_range', 'upstream answers with another range than was asked', answer.status)
  }

  #read(answer: ExchangeAnswer, call: Call, maxBytes: number): Promise<Buffer> {
    return readSmallBody(answer, {
      upstream: this.name,
      maxBytes,
      signal: call.signal,
      onBytes: bytes => this.#observer.upstreamBytes(this.name, call.kind, bytes),
    })
  }

  #manifestCall(method: 'GET' | 'HEAD', repository: string, reference: string, { signal }: CallOptions): Call {
    const path = `${repository}/manifests/${reference}`
    return { kind: 'manifest', method, repository, path, headers: { accept: manifestAccept }, signal }
  }

  #source(index: number): Source {
    if (this.#offline)
      throw new UpstreamError('unavailable', this.name, 'offline', 'Layover is offline by configuration')
    const source = this.#sources[index]
    if (source === undefined) throw new RangeError(`upstream ${this.name} has no source ${index}`)
    return source
  }

  #isWithoutHead(what: string): boolean {
    return this.#clock.monotonic() < (this.#withoutHead.get(what) ?? Number.NEGATIVE_INFINITY)
  }

  #rememberWithoutHead(what: string): void {
    if (this.#withoutHead.size >= maxRemembered) this.#withoutHead.clear()
    this.#withoutHead.set(what, this.#clock.monotonic() + headMemoryMs)
  }

  #observeLimits(answer: ExchangeAnswer): void {
    const limit = parseRateLimit(headerOf(answer, 'ratelimit-limit'), headerOf(answer, 'ratelimit-remaining'))
    if (limit === undefined) return
    this.#rateLimit = { ...this.#rateLimit, ...limit }
    this.#observer.upstreamRateLimit(this.name, limit)
  }

  #logFailure({ kind, method, repository }: Call, error: UpstreamError): void {
    if (error.failure === 'notFound') return
    const level =
      error.failure === 'refused' || error.reason === 'bad_credentials' || error.reason === 'tls' ? 'warn' : 'debug'
    this.#log?.[level](
      { upstream: this.name, kind, method, repository, reason: error.reason, err: error },
      'upstream request failed',
    )
  }

  #invalid(reason: string, message: string, status: number): UpstreamError {
    return new UpstreamError('invalid', this.name, reason, message, { status })
  }
}

const unknownHead: ManifestHead = { digest: undefined, mediaType: undefined, size: undefined }
// Registries without the referrers API say so in all of these.
const withoutApi: ReadonlySet<number> = new Set([400, 404, 405, 406, 501])

const manifestsOf = (repository: string): string => `manifests ${repository}`

/** An answer to HEAD itself, of the registry or of a presigned URL that is for GET only; not the refusal of a token server. */
function isHeadRefused(error: unknown): error is UpstreamError {
  return error instanceof UpstreamError && /^(?:redirect_)?http_(?:400|401|403|405|501)$/.test(error.reason)
}

function isMethodMissing({ status }: UpstreamError): boolean {
  return status === 405 || status === 501
}

function isElsewhereWorthTrying(error: UpstreamError): boolean {
  return error.failure === 'unavailable' || error.failure === 'rateLimited'
}

function readHead(answer: ExchangeAnswer): ManifestHead {
  const digest = headerOf(answer, 'docker-content-digest')
  return {
    digest: digest !== undefined && isDigest(digest) ? digest : undefined,
    mediaType: bareMediaType(headerOf(answer, 'content-type')),
    size: lengthOf(answer),
  }
}

function lengthOf(answer: ExchangeAnswer): number | undefined {
  const text = headerOf(answer, 'content-length')
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

/** Only a link to the same path of the same registry is followed, and only its query is kept (T-6). */
function nextQuery(link: string | string[] | undefined, asked: URL): URLSearchParams | undefined {
  const target = parseNextLink(link)
  const url = target === undefined ? null : URL.parse(target, asked)
  return url !== null && url.origin === asked.origin && url.pathname === asked.pathname ? url.searchParams : undefined
}
