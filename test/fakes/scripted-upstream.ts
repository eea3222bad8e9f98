import { type Digest, digestOf, isDigest } from '../../src/oci/digest.ts'
import {
  type Upstream,
  UpstreamError,
  type UpstreamFailure,
  type UpstreamHealth,
  type UpstreamManifest,
  type UpstreamPage,
} from '../../src/upstream/upstream.ts'

export type ScriptedManifest = { readonly bytes: Buffer; readonly mediaType: string | undefined }
type Content = { readonly tags: Map<string, Digest>; readonly manifests: Map<Digest, ScriptedManifest> }
/** What was asked: `head`, `get`, `blob`, `tags` or `referrers`, and of which source. */
export type ScriptedCall = {
  readonly kind: string
  readonly repository: string
  readonly reference: string
  readonly source: number
}

/**
 * An upstream in memory, for what depends on the order of events: each call waits for `gate`, is written down, and fails as told.
 * What depends on the wire is tested with the real client and the fake registry instead.
 */
export class ScriptedUpstream implements Upstream {
  readonly name: string
  readonly sources: number
  readonly calls: ScriptedCall[] = []
  /** Content per source; mirrors start with nothing. */
  readonly content: ReadonlyMap<string, Content>[]
  readonly blobs = new Set<string>()
  state: UpstreamHealth['state'] = 'closed'
  /** Every call waits for it, unless `pause` is replaced. */
  gate: Promise<void> = Promise.resolve()
  /** What every call waits for; a scheduler may take its place. */
  pause: () => Promise<void> = () => this.gate
  /** Gives the error for a call, or nothing. */
  failing: (call: ScriptedCall) => UpstreamError | undefined = () => undefined
  /** false: HEAD says neither digest nor size (P-40). */
  headDigest = true
  claimedDigest: string | undefined
  warnings: readonly string[] = []
  /** What list endpoints answer. */
  page: (call: ScriptedCall, query: URLSearchParams) => UpstreamPage = () => {
    throw this.error('notFound', 'http_404')
  }

  constructor(name = 'docker.io', sources = 1) {
    this.name = name
    this.sources = sources
    this.content = Array.from({ length: sources }, () => new Map<string, Content>())
  }

  error(failure: UpstreamFailure, reason: string, retryAfterMs?: number, message = reason): UpstreamError {
    return new UpstreamError(failure, this.name, reason, message, retryAfterMs === undefined ? {} : { retryAfterMs })
  }

  /** All calls fail like this from now on; nothing: they work again. */
  fail(failure?: UpstreamFailure, reason: string = failure ?? '', retryAfterMs?: number): void {
    this.failing = failure ? () => this.error(failure, reason, retryAfterMs) : () => undefined
  }

  repository(name: string, source = 0): Content {
    // Only this class writes here.
    const repositories = this.content[source] as Map<string, Content>
    const known = repositories.get(name) ?? { tags: new Map(), manifests: new Map() }
    repositories.set(name, known)
    return known
  }

  push(
    repository: string,
    tag: string | undefined,
    manifest: ScriptedManifest,
    { source = 0, algorithm = 'sha256' }: { source?: number; algorithm?: 'sha256' | 'sha512' } = {},
  ): Digest {
    const digest = digestOf(manifest.bytes, algorithm)
    const { tags, manifests } = this.repository(repository, source)
    manifests.set(digest, manifest)
    if (tag !== undefined) tags.set(tag, digest)
    return digest
  }

  count(kind?: string): number {
    return kind === undefined ? this.calls.length : this.calls.filter(call => call.kind === kind).length
  }

  health(): UpstreamHealth {
    return { state: this.state, unreachableSince: undefined, blockedUntil: undefined, lastError: undefined }
  }

  async headManifest(repository: string, reference: string) {
    await this.#call({ kind: 'head', repository, reference, source: 0 })
    const { digest, manifest } = this.#find(repository, reference, 0)
    return this.headDigest
      ? { digest, mediaType: manifest.mediaType, size: manifest.bytes.length }
      : { digest: undefined, mediaType: undefined, size: undefined }
  }

  async getManifest(repository: string, reference: string, { source = 0 } = {}): Promise<UpstreamManifest> {
    await this.#call({ kind: 'get', repository, reference, source })
    const { digest, manifest } = this.#find(repository, reference, source)
    return { ...manifest, digest: this.claimedDigest ?? digest, warnings: this.warnings }
  }

  async headBlob(repository: string, digest: Digest) {
    await this.#call({ kind: 'blob', repository, reference: digest, source: 0 })
    if (!this.blobs.has(`${repository} ${digest}`)) throw this.error('notFound', 'http_404')
    return { size: 1 }
  }

  async listTags(repository: string, query: URLSearchParams): Promise<UpstreamPage> {
    return this.page(await this.#call({ kind: 'tags', repository, reference: '', source: 0 }), query)
  }

  async listReferrers(repository: string, digest: Digest, query: URLSearchParams): Promise<UpstreamPage> {
    return this.page(await this.#call({ kind: 'referrers', repository, reference: digest, source: 0 }), query)
  }

  getBlob(): never {
    throw new Error('no blobs are fetched here')
  }
  async close() {}

  async #call(call: ScriptedCall): Promise<ScriptedCall> {
    this.calls.push(call)
    await this.pause()
    const error = this.failing(call)
    if (error) throw error
    return call
  }

  #find(repository: string, reference: string, source: number): { digest: Digest; manifest: ScriptedManifest } {
    const { tags, manifests } = this.repository(repository, source)
    const digest = isDigest(reference) ? reference : tags.get(reference)
    const manifest = digest && manifests.get(digest)
    if (!manifest) throw this.error('notFound', 'http_404')
    return { digest, manifest }
  }
}

/** A page of a list endpoint. */
export function page(document: unknown, next?: string): UpstreamPage {
  return {
    bytes: Buffer.from(typeof document === 'string' ? document : JSON.stringify(document)),
    mediaType: 'application/json',
    next: next === undefined ? undefined : new URLSearchParams(next),
    filtersApplied: undefined,
  }
}
