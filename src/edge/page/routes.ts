import type { Context, Hono } from 'hono'
import { describeImage } from '../../admin/image.ts'
import { RegistryError } from '../../oci/errors.ts'
import { type Asset, readAssets } from './assets.ts'
import { cachePage, repositoryPage, upstreamPage } from './cache-page.ts'
import { type CachePlace, cachePath, parseCachePath } from './cache-path.ts'
import { clientsPage } from './clients-page.ts'
import { duration } from './format.ts'
import { guardPages } from './guard.ts'
import { type Html, html, nothing } from './html.ts'
import { imagePage } from './image-page.ts'
import { type Document, layout } from './layout.ts'
import { LivePage } from './live.ts'
import { overview, renderRegions } from './overview.ts'
import type { PageParts } from './parts.ts'
import { FillRates } from './rates.ts'

export type PagesOptions = {
  readonly parts: PageParts
  /** `/` for who asks for no HTML. */
  readonly index: (c: Context) => Response
  readonly onError: (error: Error) => void
}

/** Adds the status page to the admin app: `/`, `/live`, `/cache`, `/clients` and the files that they use. */
export function addPages(app: Hono, { parts, index, onError }: PagesOptions): void {
  const assets = readAssets()
  const rates = new FillRates()
  const live = new LivePage({
    render: () => renderRegions(parts, rates),
    onError: error => onError(asError(error)),
  })
  parts.ending.addEventListener('abort', () => live.close(), { once: true })

  type Shown = Omit<Document, 'assets' | 'running'>
  const send = async (c: Context, page: Shown & { readonly running?: Html }, status: 200 | 400 | 404 | 503 = 200) => {
    const running = page.running ?? (await runningOf(parts))
    return c.html(layout({ ...page, assets, running }), status, { 'cache-control': 'no-store' })
  }
  const notHere = (c: Context, what: string) =>
    send(
      c,
      {
        title: 'Not here',
        section: 'cache',
        content: html`<h1>Not here</h1><p>${what}</p><p><a href="/cache">What is cached</a></p>`,
      },
      404,
    )

  const guard = guardPages(parts.admin)
  for (const path of ['/live', '/cache', '/cache/*', '/clients']) app.use(path, guard)

  app.use('/', (c, next) => (wantsHtml(c) ? guard(c, next) : next()))

  app.get('/', async c => {
    c.header('vary', 'accept')
    if (!wantsHtml(c)) return index(c)
    const regions = await renderRegions(parts, rates)
    const running = regions['running'] ?? nothing
    return send(c, { title: '', section: 'overview', live: true, running, content: overview(regions) })
  })

  app.get('/live', c => {
    const type = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store' }
    // Hono answers HEAD by this same function, and would never cancel the stream.
    if (c.req.method === 'HEAD') return c.body(null, 200, type)
    const stream = live.open()
    if (stream === undefined) return c.text('no room for another viewer\n', 503, { 'retry-after': '10' })
    return c.body(stream, 200, type)
  })

  app.get('/cache', async c => {
    const image = (c.req.query('image') ?? '').trim().slice(0, 512)
    if (image === '') return send(c, { title: 'Cache', section: 'cache', content: await cachePage(parts, { image }) })
    const place = find(parts, image)
    if (typeof place !== 'string') return c.redirect(cachePath(place), 303)
    return send(
      c,
      { title: 'Cache', section: 'cache', content: await cachePage(parts, { image, problem: place }) },
      400,
    )
  })

  app.get('/cache/*', async c => {
    const names = parts.upstreams.map(({ name }) => name)
    const place = parseCachePath(c.req.path.slice('/cache/'.length), names)
    if (place === undefined) return notHere(c, 'No upstream, repository, tag or digest has this name.')
    try {
      const shown = await showPlace(parts, place, c.req.query())
      return shown === undefined ? notHere(c, gone) : await send(c, { ...shown, section: 'cache' })
    } catch (error) {
      // Redis is away, or does not allow to be looked through: the rest of the page works without it.
      onError(asError(error))
      return send(
        c,
        {
          title: 'Not now',
          section: 'cache',
          content: html`<h1>Not now</h1><p>${isForbidden(error) ? forbidden : away}</p>`,
        },
        503,
      )
    }
  })

  app.get('/clients', c => {
    const content = clientsPage(parts, {
      client: c.req.query('client'),
      url: c.req.query('url')?.slice(0, 300).toWellFormed(),
    })
    return send(c, { title: 'Clients', section: 'clients', content })
  })

  app.get('/assets/:name', (c, next) => {
    const asset = assets.all.get(c.req.path)
    return asset === undefined ? next() : sendAsset(c, asset)
  })
}

const gone = 'This image is not here: nobody has pulled it, or it was evicted.'
const away = 'The store that holds the records cannot be read now. The log says why.'
const forbidden =
  'Redis does not let Layover look through its keys: this page needs the permissions scan, strlen and getrange besides those for pulls.'
const isForbidden = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'NOPERM'
const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)))

/** A page below `/cache/`; undefined: it is about an image that is not here. */
async function showPlace(parts: PageParts, place: CachePlace, query: Readonly<Record<string, string>>) {
  const { upstream, repository } = place
  if (repository === undefined) return { title: upstream, content: await upstreamPage(parts, place, query['after']) }
  if (place.tag === undefined && place.digest === undefined) {
    const after = { tag: query['tag'], digest: query['digest'] }
    return { title: `${upstream}/${repository}`, content: await repositoryPage(parts, { ...place, repository }, after) }
  }
  const found = await findImage(parts, { ...place, repository })
  if (found === undefined) return undefined
  const { image, tag } = found
  return { title: `${repository}${tag ? `:${tag.tag}` : ''}`, content: imagePage(image, tag, parts.clock.now()) }
}

/** `curl` gets the index in plain text; a browser asks for HTML by name. */
const wantsHtml = (c: Context): boolean => /\btext\/html\b/i.test(c.req.header('accept') ?? '')

function sendAsset(c: Context, { type, etag, text }: Asset): Response {
  const headers = {
    'content-type': type,
    etag,
    'cache-control': 'public, max-age=31536000, immutable',
    'x-content-type-options': 'nosniff',
    'cross-origin-resource-policy': 'same-origin',
  }
  if (c.req.header('if-none-match') === etag) return c.body(null, 304, headers)
  return c.body(text, 200, headers)
}

async function runningOf(parts: PageParts): Promise<Html> {
  const { version, uptimeSeconds } = await parts.status()
  return html`${version}, up ${duration(uptimeSeconds * 1000)}`
}

/** The page of an image as people write it; a sentence when it cannot be one. */
function find({ locate }: PageParts, image: string): CachePlace | string {
  const [, name = '', tag, digest] = /^(.*?)(?::([^/:@]+))?(?:@([^@]+))?$/.exec(image) ?? []
  try {
    const { upstream, repository } = locate(name)
    const path =
      cachePath({ upstream, repository }) + (digest !== undefined ? `@${digest}` : tag !== undefined ? `:${tag}` : '')
    return parseCachePath(path.slice('/cache/'.length), [upstream]) ?? 'This is no tag or no digest.'
  } catch (error) {
    if (error instanceof RegistryError) return error.message
    throw error
  }
}

async function findImage(
  parts: PageParts,
  { upstream, repository, tag: name, digest: named }: CachePlace & { readonly repository: string },
) {
  const tag = name === undefined ? undefined : await parts.catalog.tag(upstream, repository, name)
  const digest = named ?? tag?.digest
  const image = digest && (await describeImage(parts, { upstream, repository, digest }))
  return image && { image, tag }
}
