import type { BlobDescription, ChildDescription, ImageDescription } from '../../admin/image.ts'
import type { Descriptor, ParsedManifest } from '../../oci/manifest.ts'
import { crumbs } from './cache-page.ts'
import { cachePath } from './cache-path.ts'
import { ago, bytes, count, shortDigest } from './format.ts'
import { type Html, html, nothing } from './html.ts'
import { mediaTypeName } from './media-type.ts'

const maxAnnotations = 20
const maxTextLength = 300

/** `/cache/<upstream>/<repository>@<digest>` and `:<tag>`: one manifest, what it is made of, and what of that is here. */
export function imagePage(
  image: ImageDescription,
  tag: { readonly tag: string; readonly checkedAt: number } | undefined,
  now: number,
): Html {
  const { repository, digest, mediaType, size, parsed } = image
  return html`${crumbs(image)}<h1>${repository}${tag === undefined ? html`<span class="reference">@${shortDigest(digest)}</span>` : html`<span class="reference">:${tag.tag}</span>`}</h1>
<dl class="facts">
<div><dt>Digest</dt><dd><code class="whole">${digest}</code></dd></div>
<div><dt>Kind</dt><dd>${mediaTypeName(mediaType)}, ${bytes(size)}${parsed?.artifactType === undefined ? '' : html`, artifact of type <code>${cut(parsed.artifactType)}</code>`}</dd></div>
${tag === undefined ? nothing : html`<div><dt>Tag</dt><dd><code>${tag.tag}</code>, confirmed by upstream ${ago(tag.checkedAt, now)}</dd></div>`}
${parsed?.subject === undefined ? nothing : html`<div><dt>About</dt><dd><a href="${cachePath({ ...image, digest: parsed.subject.digest })}"><code>${shortDigest(parsed.subject.digest)}</code></a></dd></div>`}
<div><dt>Repository</dt><dd><a href="${cachePath({ upstream: image.upstream, repository })}">${image.upstream}/${repository}</a></dd></div>
</dl>
${parsed === undefined ? html`<p class="quiet">This manifest is too large to be looked into, or is none that Layover reads.</p>` : nothing}
${image.children.length > 0 ? children(image) : nothing}
${image.blobs.length > 0 ? layers(image, now) : nothing}
${annotations(parsed)}`
}

function children(image: ImageDescription): Html {
  return html`<section aria-labelledby="platforms"><h2 id="platforms">Platforms</h2>
<div class="scroll" role="group" aria-labelledby="platforms" tabindex="0"><table>
<thead><tr><th scope="col">Platform</th><th scope="col">Manifest</th><th scope="col" class="number">Layers</th><th scope="col" class="number">Size</th><th scope="col" class="number">On this disk</th></tr></thead>
<tbody>${image.children.map(child => childRow(image, child))}</tbody></table></div>
${image.childrenLeftOut > 0 ? html`<p class="quiet">and ${count(image.childrenLeftOut)} more</p>` : ''}</section>`
}

function childRow({ upstream, repository }: ImageDescription, { descriptor, image }: ChildDescription): Html {
  const { digest } = descriptor
  const short = html`<code title="${digest}">${shortDigest(digest)}</code>`
  if (image === undefined)
    return html`<tr><th scope="row">${platform(descriptor)}</th><td>${short}</td><td class="number quiet" colspan="3">not here: nobody has pulled it</td></tr>`
  return html`<tr><th scope="row">${platform(descriptor)}</th><td><a href="${cachePath({ upstream, repository, digest })}">${short}</a></td><td class="number">${count(image.layers)}</td><td class="number">${bytes(image.bytes)}</td><td class="number">${share(image.bytesHere, image.bytes)}</td></tr>`
}

function platform({ platform: of, artifactType, annotations: said }: Descriptor): string {
  // What BuildKit attaches to an image calls its platform unknown.
  const kind = said?.get('vnd.docker.reference.type')
  if (kind !== undefined) return cut(kind)
  if (of === undefined) return cut(artifactType ?? 'any')
  return cut([of.os, of.architecture, ...(of.variant === undefined ? [] : [of.variant])].join('/'))
}

function layers(image: ImageDescription, now: number): Html {
  const total = image.blobs.reduce((sum, { descriptor }) => sum + descriptor.size, 0)
  const here = image.blobs.reduce((sum, blob) => sum + (blob.here?.size ?? 0), 0)
  return html`<section aria-labelledby="blobs"><h2 id="blobs">Configuration and layers</h2>
<p class="lead">${bytes(total)}, ${share(here, total)} of it on this disk.</p>
<div class="scroll" role="group" aria-labelledby="blobs" tabindex="0"><table>
<thead><tr><th scope="col">Blob</th><th scope="col">What</th><th scope="col" class="number">Size</th><th scope="col" class="number">On this disk</th><th scope="col">Also in</th></tr></thead>
<tbody>${image.blobs.map(blob => blobRow(image.upstream, blob, now))}</tbody></table></div>
${image.blobsLeftOut > 0 ? html`<p class="quiet">and ${count(image.blobsLeftOut)} more</p>` : ''}
${image.sharingComplete ? '' : html`<p class="quiet">Not every repository was looked at: more of them may share these.</p>`}</section>`
}

function blobRow(upstream: string, { descriptor, role, here, alsoIn }: BlobDescription, now: number): Html {
  const { digest, mediaType, size } = descriptor
  return html`<tr><th scope="row"><code title="${digest}">${shortDigest(digest)}</code></th><td>${role === 'config' ? 'config' : cut(mediaTypeName(mediaType))}</td><td class="number">${bytes(size)}</td>
<td class="number">${here === undefined ? html`<span class="quiet">no</span>` : html`used ${ago(here.lastUsed, now)}`}</td><td>${others(upstream, alsoIn)}</td></tr>`
}

function others(upstream: string, repositories: readonly string[]): Html {
  if (repositories.length === 0) return html`<span class="quiet">–</span>`
  return html`${repositories.map((repository, index) => html`${index === 0 ? '' : ', '}<a href="${cachePath({ upstream, repository })}">${repository}</a>`)}`
}

function annotations(parsed: ParsedManifest | undefined): Html {
  const all = [...(parsed?.annotations ?? [])]
  if (all.length === 0) return nothing
  return html`<section aria-labelledby="annotations"><h2 id="annotations">Annotations</h2><p class="quiet">The publisher's own words.</p><dl class="facts">
${all.slice(0, maxAnnotations).map(([key, value]) => html`<div><dt><code>${cut(key)}</code></dt><dd>${cut(value)}</dd></div>`)}</dl>
${all.length > maxAnnotations ? html`<p class="quiet">and ${count(all.length - maxAnnotations)} more</p>` : ''}</section>`
}

const share = (here: number, total: number): string => (here >= total ? 'all' : here === 0 ? 'nothing' : bytes(here))

const cut = (text: string): string => (text.length > maxTextLength ? `${text.slice(0, maxTextLength)}…` : text)
