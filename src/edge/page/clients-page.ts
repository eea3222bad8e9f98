import { isUnspecified } from '../../config/address.ts'
import { type ClientName, clientNames, type MirrorOptions } from '../../mirror/client.ts'
import { clients } from '../../mirror/clients.ts'
import { isUndialable, problemOfUrl, urlOfListener } from '../../mirror/url.ts'
import { type Html, html, nothing } from './html.ts'
import type { PageParts } from './parts.ts'

export type ClientsQuery = { readonly client: string | undefined; readonly url: string | undefined }

const titles: Readonly<Record<ClientName, string>> = {
  containerd: 'containerd',
  docker: 'Docker',
  podman: 'Podman',
  crio: 'CRI-O',
  k3s: 'k3s',
  rke2: 'RKE2',
  talos: 'Talos',
  buildkit: 'BuildKit',
  kind: 'kind',
}

/** `/clients`: what to write on a node, for each runtime; the same text as `layover mirror` prints. */
export function clientsPage(parts: PageParts, query: ClientsQuery): Html {
  const chosen = clientNames.find(name => name === query.client) ?? 'containerd'
  const { url, problem, given } = readUrl(parts, query.url)
  const suffix = given === '' ? '' : `&url=${encodeURIComponent(given)}`
  return html`<h1>Point a client here</h1>
<p class="lead">What to write on a node so that it pulls through Layover. Nothing changes for who pulls: image names stay as they are.</p>
<form class="find" action="/clients" method="get"><input type="hidden" name="client" value="${chosen}"><label for="url">Nodes reach this registry at</label>
<input id="url" name="url" type="text" inputmode="url" value="${given === '' ? (url?.origin ?? '') : given}" placeholder="http://cache.example.com:5000" autocomplete="off" spellcheck="false" maxlength="300"${problem === undefined ? '' : html` aria-invalid="true" aria-describedby="url-problem"`}>
<button>Fill in</button>${problem === undefined ? '' : html`<p class="problem" id="url-problem" role="alert">${problem}</p>`}</form>
<nav class="choices" aria-label="Runtimes">${clientNames.map(name => html`<a href="/clients?client=${name}${suffix}"${name === chosen ? html` aria-current="true"` : ''}>${titles[name]}</a>`)}</nav>
${url === undefined ? nothing : setup(chosen, optionsOf(parts, url), addressNotes(parts, query))}
<section aria-labelledby="all-ways"><h2 id="all-ways">From the command line</h2>
<p>The same, with more to choose from (an authority for TLS, one registry only, no way past the cache):</p>
${snippet(`layover mirror ${chosen} --url ${url?.origin ?? 'http://cache.example.com:5000'}`)}</section>`
}

function setup(client: ClientName, options: MirrorOptions, more: readonly string[]): Html {
  const { files, notes } = clients[client](options)
  return html`<section aria-labelledby="files"><h2 id="files">${titles[client]}</h2>
${files.map(({ path, text }) => html`<figure class="file"><figcaption>${path}</figcaption>${snippet(text.trimEnd())}</figure>`)}
<h3>To know</h3><ul class="notes">${[...notes, ...more].map(note => html`<li>${note}</li>`)}</ul></section>`
}

/** Long lines scroll, for which keys need a place to stand. */
const snippet = (text: string): Html => html`<pre tabindex="0"><code>${text}</code></pre>`

const optionsOf = ({ upstreams }: PageParts, url: URL): MirrorOptions => ({
  url,
  upstreams,
  everyUpstream: true,
  containerdVersion: undefined,
  airGapped: false,
  ca: undefined,
})

type Read = { readonly url: URL | undefined; readonly problem: string | undefined; readonly given: string }

function readUrl({ listen, machine }: PageParts, asked: string | undefined): Read {
  const given = asked?.trim() ?? ''
  if (given === '') return { url: urlOfListener(listen(), machine), problem: undefined, given }
  const problem = problemOfUrl(given)
  if (problem !== undefined) {
    const isSecret = given.includes('@')
    return {
      url: undefined,
      problem: `${problem}: expected something like http://cache.example.com:5000.`,
      // A password does not come back.
      given: isSecret ? '' : given,
    }
  }
  const url = new URL(given)
  if (isUndialable(url))
    return { url: undefined, problem: `nobody can dial ${url.hostname}: write the address that the nodes know.`, given }
  return { url, problem: undefined, given }
}

function addressNotes({ listen, machine }: PageParts, { url }: ClientsQuery): string[] {
  if ((url ?? '').trim() !== '' || !isUnspecified(listen().host)) return []
  return [
    `${machine.toLowerCase()} is the name of this machine: where the nodes cannot resolve it, write an address above that they reach.`,
  ]
}
