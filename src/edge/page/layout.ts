import type { Assets } from './assets.ts'
import { type Html, html } from './html.ts'

export type Document = {
  readonly title: string
  /** The entry of the navigation that this page belongs to. */
  readonly section: 'overview' | 'cache' | 'clients'
  readonly assets: Assets
  /** Version and time since the start. */
  readonly running: Html
  /** true: the script keeps this page current. */
  readonly live?: boolean
  readonly content: Html
}

const sections = [
  { section: 'overview', path: '/', name: 'Overview' },
  { section: 'cache', path: '/cache', name: 'Cache' },
  { section: 'clients', path: '/clients', name: 'Clients' },
] as const

/** A whole page. */
export function layout({ title, section, assets, running, live = false, content }: Document): Html {
  return html`<!doctype html>
<html lang="en"${live ? html` data-live="/live"` : ''}>
<head>
<meta charset="utf-8">
<title>${title === '' ? 'Layover' : `${title} · Layover`}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="${assets.icon.path}">
<link rel="stylesheet" href="${assets.style.path}">
<script src="${assets.script.path}" defer></script>
</head>
<body>
<a class="skip" href="#main">To the content</a>
<header>
<a class="name" href="/">Layover</a>
<nav aria-label="Pages">${sections.map(
    entry =>
      html`<a href="${entry.path}"${entry.section === section ? html` aria-current="page"` : ''}>${entry.name}</a>`,
  )}</nav>
<p class="about"><span id="running">${running}</span> <span id="live" role="status"></span></p>
</header>
<main id="main" tabindex="-1">
${content}
</main>
<footer><p>Read-only. The same figures for machines: <a href="/status">/status</a>, <a href="/metrics">/metrics</a>.${live ? html`<noscript> Without JavaScript this page stands still: <a href="/">load it again</a>.</noscript>` : ''}</p></footer>
</body>
</html>
`
}
