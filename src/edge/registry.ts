import type { IncomingMessage, ServerResponse } from 'node:http'
import { LRUCache } from 'lru-cache'
import type { Blobs } from '../cache/blobs.ts'
import type { Manifests } from '../cache/manifests.ts'
import type { Referrers } from '../cache/referrers.ts'
import type { TagLists } from '../cache/tag-lists.ts'
import { nameUnknown, unsupported } from '../oci/errors.ts'
import { referenceText } from '../oci/reference.ts'
import type { Locator } from '../routing/locate.ts'
import { type NamedRoute, parsePath, type Route } from '../routing/path.ts'
import type { Target } from '../routing/target.ts'
import { noTracer, type Tracer } from '../tracing/tracer.ts'
import { getBlob, headBlob } from './blob-route.ts'
import { Exchange } from './exchange.ts'
import { commonHeaders } from './headers.ts'
import { serveReferrers, serveTags } from './list-route.ts'
import { serveManifest } from './manifest-route.ts'
import type { RedirectRule } from './redirect-rule.ts'
import { replyBytes, replyError } from './reply.ts'
import { pathOf } from './report.ts'
import { checkRequest, isBodyLeftUnread } from './request-checks.ts'
import { startRequestSpan } from './request-span.ts'
import type { WriteWatch } from './send-bytes.ts'

export type RegistryDeps = {
  readonly locator: Locator
  readonly manifests: Manifests
  readonly blobs: Blobs
  readonly tagLists: TagLists
  readonly referrers: Referrers
  readonly watch: WriteWatch
  /** Undefined: nobody is sent to the bucket. */
  readonly redirect?: RedirectRule | undefined
  /** Our own name in `Via`: a request that carries it has come in a circle. */
  readonly via: string
  /** Answers carry `Connection: close` while this is true (P-121). */
  readonly draining: () => boolean
  readonly report: (exchange: Exchange) => void
  /** Default: nothing is traced. */
  readonly tracer?: Tracer
}

/**
 * The registry listener: parse, locate, decide, open, reply.
 *
 * On the bare Node request and response: the raw path is needed undecoded (P-13), HEAD must not run a GET handler (P-46), a body that ends
 * short must end the connection (P-58), and bytes written to the response cost half of what a web stream costs. See docs/adr/0002.
 */
export function createRegistryHandler(deps: RegistryDeps): (req: IncomingMessage, res: ServerResponse) => void {
  const parse = rememberedParse(deps.locator)
  const { tracer = noTracer } = deps
  return (req, res) => {
    const exchange = new Exchange(req, res)
    if (!tracer.on) return answer(exchange)
    exchange.span = startRequestSpan(tracer, exchange)
    tracer.within(exchange.span, () => answer(exchange))
  }

  function answer(exchange: Exchange): void {
    const { req, res } = exchange
    if (deps.draining() || isBodyLeftUnread(req)) res.shouldKeepAlive = false
    try {
      const pending = handle(deps, parse, exchange)
      if (pending === undefined) {
        watchRest(deps.watch, res)
        return deps.report(exchange)
      }
      pending
        .catch((error: unknown) => replyError(exchange, error))
        .then(
          () => ended(deps, exchange),
          () => res.destroy(),
        )
    } catch (error) {
      replyError(exchange, error)
      deps.report(exchange)
    }
  }
}

/** Reports when the last byte has left, or the client. */
function ended(deps: RegistryDeps, exchange: Exchange): void {
  const { res } = exchange
  const report = (): void => {
    exchange.complete = res.writableFinished
    deps.report(exchange)
  }
  watchRest(deps.watch, res)
  if (res.writableFinished || res.closed) report()
  else res.once('close', report)
}

/** What was answered in one piece, a manifest or a list, may be more than the client takes (T-34). */
function watchRest(watch: WriteWatch, res: ServerResponse): void {
  const left = res.socket?.writableLength ?? 0
  if (left === 0 || res.closed) return
  const waiting = watch.start(res, left)
  res.once('close', () => watch.stop(waiting))
}

type Located = { readonly route: Route; readonly target: Target | undefined }

function handle(deps: RegistryDeps, parse: (url: string) => Located, exchange: Exchange): Promise<void> | undefined {
  const { req } = exchange
  checkRequest(req, deps.via)
  const { route, target } = parse(req.url ?? '/')
  if (target) note(exchange, route, target)
  switch (route.kind) {
    case 'base':
      exchange.kind = 'base'
      exchange.outcome = 'hit'
      replyBytes(exchange, 200, [...commonHeaders(exchange), 'content-type', 'application/json'], emptyObject)
      return undefined
    case 'upload':
      throw unsupported('uploads are not supported: this is a read-only cache, push to the registry itself')
    case 'catalog':
      throw nameUnknown('_catalog', 'this cache has no catalog: ask the registry itself')
    case 'none':
      throw nameUnknown(pathOf(req.url), 'there is no such endpoint; the registry API lives under /v2/')
    default:
      if (!target) throw nameUnknown(route.name)
      return serve(deps, exchange, route, target)
  }
}

function serve(deps: RegistryDeps, exchange: Exchange, route: NamedRoute, target: Target): Promise<void> | undefined {
  const { query } = route
  switch (route.kind) {
    case 'manifest':
      return serveManifest(deps.manifests, { exchange, target, reference: route.reference })
    case 'blob': {
      const request = { exchange, target, digest: route.digest }
      return exchange.isHead ? headBlob(deps, request) : getBlob(deps, request)
    }
    case 'tags':
      return serveTags(deps.tagLists, { exchange, target, query })
    case 'referrers':
      return serveReferrers(deps.referrers, {
        exchange,
        target,
        query,
        digest: route.digest,
      })
  }
}

function note(exchange: Exchange, route: Route, target: Target): void {
  exchange.upstream = target.upstream
  exchange.repository = target.repository
  exchange.ns = target.ns
  if (route.kind === 'manifest' || route.kind === 'blob' || route.kind === 'tags' || route.kind === 'referrers')
    exchange.kind = route.kind
  if (route.kind === 'manifest') {
    exchange.reference = referenceText(route.reference)
    exchange.byTag = route.reference.kind === 'tag'
  }
  if (route.kind === 'blob' || route.kind === 'referrers') exchange.reference = route.digest
}

/** Parsing and locating are pure, so what a URL means is remembered: pods start from few images. */
function rememberedParse(locator: Locator): (url: string) => Located {
  const remembered = new LRUCache<string, Located>({ max: 4096 })
  return url => {
    const known = remembered.get(url)
    if (known) return known
    const route = parsePath(url)
    const located = { route, target: 'name' in route ? locator.locate(route) : undefined }
    if (url.length <= 512) remembered.set(url, located)
    return located
  }
}

const emptyObject = Buffer.from('{}')
