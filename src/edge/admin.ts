import { type Context, Hono } from 'hono'
import type { Metrics } from '../metrics/metrics.ts'
import type { PageParts } from './page/parts.ts'
import { addPages } from './page/routes.ts'

export type Readiness = {
  readonly ready: boolean
  /** Why not, in words for an operator: `draining`, `blob store: read-only file system`. */
  readonly reasons: readonly string[]
}

export type AdminOptions = {
  readonly metrics: Pick<Metrics, 'render'>
  /** There are exemplars: who asks for OpenMetrics, the format that has room for them, gets it. Default false. */
  readonly exemplars?: boolean
  /** What `/status` shows as JSON. */
  readonly status: () => unknown
  /** What `/savings` shows: what was saved since a moment (epoch milliseconds), or in all. */
  readonly savings?: (since: number | undefined) => Promise<unknown>
  /**
   * Whether this instance should be sent requests: not while it drains or its stores are unusable. An upstream that is down is no
   * reason: what is cached is still served (F-27).
   */
  readonly readiness: () => Readiness
  /** What the status page shows; undefined: there is none. */
  readonly page?: PageParts
  /** Told what went wrong when a page could not be made; the client learns only that it could not. */
  readonly onError?: (error: Error) => void
}

/** Pages of the admin listener. */
const pages = {
  '/': 'the status page, in a browser',
  '/metrics': 'Prometheus metrics',
  '/livez': 'the process answers (also /healthz)',
  '/readyz': 'this instance should get requests; 503 with the reasons when not',
  '/status': 'upstreams, storage, traffic and savings as JSON',
  '/savings': 'what was saved, as JSON; ?since=2026-11-01 for a period',
}

const index = `Layover\n\n${Object.entries(pages)
  .map(([path, what]) => `${path.padEnd(10)}${what}`)
  .join('\n')}\n`

/**
 * The app of the admin listener: read-only, without secrets, without upstream URLs. It has no authentication, so it listens on
 * loopback unless an operator decides otherwise (T-56). Nothing on it changes anything or makes Layover dial (T-5).
 */
export function createAdmin({
  metrics,
  exemplars = false,
  status,
  savings,
  readiness,
  page,
  onError,
}: AdminOptions): Hono {
  const app = new Hono()

  app.use(async (c, next) => {
    if (c.req.method === 'GET' || c.req.method === 'HEAD') return next()
    return c.json({ error: 'this listener is read-only' }, 405, { allow: 'GET, HEAD' })
  })

  const plainIndex = (c: Context): Response => c.text(index)
  if (page) addPages(app, { parts: page, index: plainIndex, onError: error => onError?.(error) })
  else app.get('/', plainIndex)
  for (const path of ['/livez', '/healthz']) app.get(path, c => c.text('ok\n'))
  app.get('/readyz', c => {
    const { ready, reasons } = readiness()
    return ready ? c.text('ok\n') : c.json({ ready, reasons }, 503)
  })
  app.get('/metrics', async c => {
    const open = exemplars && /\bapplication\/openmetrics-text\b/.test(c.req.header('accept') ?? '')
    const { contentType, body } = await metrics.render(open ? 'openmetrics' : 'prometheus')
    return c.body(body, 200, { 'content-type': contentType })
  })
  app.get('/status', async c => c.body(`${JSON.stringify(await status(), null, 2)}\n`, 200, json))

  app.get('/savings', async c => {
    const asked = c.req.query('since')
    const since = asked === undefined ? undefined : Date.parse(asked)
    if (since !== undefined && !Number.isFinite(since))
      return c.json({ error: 'since is a time such as 2026-11-01 or 2026-11-01T16:00:00Z' }, 400)
    try {
      return c.body(`${JSON.stringify(await savings?.(since), null, 2)}\n`, 200, json)
    } catch (error) {
      // What is away is Redis, most likely, and only for a while.
      if (error instanceof Error) onError?.(error)
      return c.json({ error: 'the figures of this period cannot be read now' }, 503)
    }
  })

  app.notFound(c => c.json({ error: 'no such page', pages: Object.keys(pages) }, 404))
  app.onError((error, c) => {
    onError?.(error)
    // A readiness that cannot be told is not ready.
    return c.json({ error: 'this page could not be made' }, c.req.path === '/readyz' ? 503 : 500)
  })
  return app
}

const json = { 'content-type': 'application/json' }
