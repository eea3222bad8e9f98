import type { ManifestEntry, Page, TagEntry } from '../../store/catalog.ts'
import { type CachePlace, cachePath } from './cache-path.ts'
import { ago, bytes, count, shortDigest } from './format.ts'
import { type Html, html, nothing } from './html.ts'
import { mediaTypeName } from './media-type.ts'
import type { PageParts } from './parts.ts'

/** Entries of one page of a list. */
export const pageSize = 100

/** `/cache`: the upstreams, and a way to one image. */
export async function cachePage(parts: PageParts, asked: { readonly image: string; readonly problem?: string }) {
  const { storage, upstreams } = await parts.status()
  return html`<h1>Cache</h1>
<p class="lead">${count(storage.manifests)} manifests and ${count(storage.blobs)} blobs, ${bytes(storage.blobBytes + storage.manifestBytes)}, on this disk.</p>
${finder(asked)}
<div class="scroll" role="group" aria-label="Upstreams" tabindex="0"><table>
<thead><tr><th scope="col">Upstream</th><th scope="col" class="number">To clients</th><th scope="col" class="number">Fetched</th></tr></thead>
<tbody>${upstreams.map(
    ({ name, servedBytes, upstreamBytes }) =>
      html`<tr><th scope="row"><a href="${cachePath({ upstream: name })}">${name}</a></th><td class="number">${bytes(servedBytes)}</td><td class="number">${bytes(upstreamBytes)}</td></tr>`,
  )}</tbody></table></div>`
}

const finder = ({ image, problem }: { readonly image: string; readonly problem?: string }): Html =>
  html`<form class="find" action="/cache" method="get" role="search"><label for="image">Image</label>
<input id="image" name="image" type="text" value="${image}" placeholder="docker.io/library/alpine:3" autocomplete="off" spellcheck="false" maxlength="512"${problem === undefined ? '' : html` aria-invalid="true" aria-describedby="image-problem"`}>
<button>Look</button>${problem === undefined ? '' : html`<p class="problem" id="image-problem" role="alert">${problem}</p>`}</form>`

/** `/cache/<upstream>`: its repositories. */
export async function upstreamPage({ catalog }: PageParts, place: CachePlace, after: string | undefined) {
  const { upstream } = place
  const page = await catalog.repositories(upstream, { after, limit: pageSize })
  return html`${crumbs(place)}<h1>${upstream}</h1>
${page.entries.length === 0 ? html`<p class="quiet">${after === undefined ? 'Nothing of this upstream is known here yet.' : 'Nothing after this.'}</p>` : html`<ul class="names">${page.entries.map(repository => html`<li><a href="${cachePath({ upstream, repository })}">${repository}</a></li>`)}</ul>`}
${cutNote(page)}${pager(cachePath(place), 'after', page, after)}`
}

/** `/cache/<upstream>/<repository>`: its tags and manifests. */
export async function repositoryPage(
  { catalog, clock }: PageParts,
  place: CachePlace & { readonly repository: string },
  after: { readonly tag: string | undefined; readonly digest: string | undefined },
) {
  const { upstream, repository } = place
  const tags = await catalog.tags(upstream, repository, { after: after.tag, limit: pageSize })
  const manifests = await catalog.manifests(upstream, repository, { after: after.digest, limit: pageSize })
  const path = cachePath(place)
  return html`${crumbs(place)}<h1>${repository}</h1>
<section aria-labelledby="tags"><h2 id="tags">Tags</h2>${tagTable(place, tags, clock.now())}${pager(path, 'tag', tags, after.tag)}</section>
<section aria-labelledby="manifests"><h2 id="manifests">Manifests</h2>${manifestTable(place, manifests, clock.now())}${cutNote(manifests)}${pager(path, 'digest', manifests, after.digest)}</section>`
}

function tagTable({ upstream, repository = '' }: CachePlace, { entries }: Page<TagEntry>, now: number): Html {
  if (entries.length === 0) return html`<p class="quiet">None. What was pulled by digest alone has no tag here.</p>`
  return html`<div class="scroll" role="group" aria-labelledby="tags" tabindex="0"><table>
<thead><tr><th scope="col">Tag</th><th scope="col">Manifest</th><th scope="col">Kind</th><th scope="col" class="number">Confirmed by upstream</th></tr></thead>
<tbody>${entries.map(
    ({ tag, digest, mediaType, checkedAt }) =>
      html`<tr><th scope="row"><a href="${cachePath({ upstream, repository, tag })}">${tag}</a></th><td><code title="${digest}">${shortDigest(digest)}</code></td><td>${mediaTypeName(mediaType)}</td><td class="number">${ago(checkedAt, now)}</td></tr>`,
  )}</tbody></table></div>`
}

function manifestTable({ upstream, repository = '' }: CachePlace, { entries }: Page<ManifestEntry>, now: number): Html {
  if (entries.length === 0) return html`<p class="quiet">None is here.</p>`
  return html`<div class="scroll" role="group" aria-labelledby="manifests" tabindex="0"><table>
<thead><tr><th scope="col">Digest</th><th scope="col">Kind</th><th scope="col" class="number">Size</th><th scope="col" class="number">Last used</th></tr></thead>
<tbody>${entries.map(
    ({ digest, mediaType, size, lastUsed }) =>
      html`<tr><th scope="row"><a href="${cachePath({ upstream, repository, digest })}"><code title="${digest}">${shortDigest(digest)}</code></a></th><td>${mediaTypeName(mediaType)}</td><td class="number">${bytes(size)}</td><td class="number">${lastUsed === undefined ? '–' : ago(lastUsed, now)}</td></tr>`,
  )}</tbody></table></div>`
}

/** The way up. */
export function crumbs({ upstream, repository }: CachePlace): Html {
  return html`<nav class="crumbs" aria-label="Way up"><a href="/cache">Cache</a>${repository === undefined ? '' : html` / <a href="${cachePath({ upstream })}">${upstream}</a>`}</nav>`
}

const cutNote = ({ cut }: Page<unknown>): Html =>
  cut === true
    ? html`<p class="quiet">There is more in Redis than was looked through: something may be missing here.</p>`
    : nothing

function pager(path: string, name: string, { next }: Page<unknown>, after: string | undefined): Html {
  if (next === undefined && after === undefined) return nothing
  return html`<nav class="pager" aria-label="More">${after === undefined ? '' : html`<a href="${path}">From the start</a> `}${next === undefined ? '' : html`<a href="${path}?${name}=${encodeURIComponent(next)}" rel="next">Next</a>`}</nav>`
}
