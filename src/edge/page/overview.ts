import type { RunningFill } from '../../cache/running-fill.ts'
import { isContent, isHit } from '../../log/outcome.ts'
import type { UpstreamStatus } from '../../metrics/status.ts'
import { cachePath } from './cache-path.ts'
import { trafficChart } from './chart.ts'
import { bytes, count, duration, moment, money, percent, rate, shortDigest } from './format.ts'
import { type Html, html, nothing } from './html.ts'
import type { PageParts, PageStatus } from './parts.ts'
import type { FillRates } from './rates.ts'

/** Parts of the first page that change, by the id of their element. */
export type Regions = Readonly<Record<string, Html>>

/** A thousand downloads at once are a picture of nothing. */
const shownFills = 20

/** Renders what changes on the first page. One rendering is for everybody who looks at it. */
export async function renderRegions(parts: PageParts, rates: FillRates): Promise<Regions> {
  parts.history.sample()
  const status = await parts.status()
  const now = parts.clock.now()
  const fills = parts.fills()
  return {
    figures: figures(status),
    traffic: html`${trafficChart({ id: 'hour', title: 'Last hour', period: parts.history.hour(), begin: '1 h ago' })}
${trafficChart({ id: 'day', title: 'Last day', period: parts.history.day(), begin: '24 h ago' })}`,
    downloads: downloads(fills, rates.update(fills, now), now),
    upstreams: upstreams(status, now),
    stores: stores(status),
    answers: answers(status),
    running: html`${status.version}, up ${duration(status.uptimeSeconds * 1000)}`,
  }
}

/** The first page. */
export const overview = (regions: Regions): Html => html`<h1 class="hidden">Overview</h1>
<section aria-label="At a glance"><dl class="figures" id="figures">${regions.figures}</dl></section>
<section aria-labelledby="traffic-title"><h2 id="traffic-title">Traffic</h2><div class="pair" id="traffic">${regions.traffic}</div></section>
<section aria-labelledby="downloads-title"><h2 id="downloads-title">Running downloads</h2><div id="downloads">${regions.downloads}</div></section>
<section aria-labelledby="upstreams-title"><h2 id="upstreams-title">Upstreams</h2><div id="upstreams">${regions.upstreams}</div></section>
<div class="pair">
<section aria-labelledby="stores-title"><h2 id="stores-title">Stores</h2><div id="stores">${regions.stores}</div></section>
<section aria-labelledby="answers-title"><h2 id="answers-title">Answers to clients</h2><div id="answers">${regions.answers}</div></section>
</div>`

function figures({ savings, traffic, requests, storage, fills, clients }: PageStatus): Html {
  const saved = savings ?? traffic
  const content = sumOf(requests.byOutcome, isContent)
  const hits = sumOf(requests.byOutcome, isHit)
  const since = savings ? html`since ${moment(savings.since)}` : 'since the start'
  return html`${figure('Hit rate', percent(hits, content), html`${count(hits)} of ${count(content)} answers${savings?.money ? html`, ${count(savings.pullsAvoided)} pulls avoided` : ''}`)}
${figure('Saved', bytes(saved.savedBytes), html`${bytes(saved.servedBytes)} served − ${bytes(saved.upstreamBytes)} fetched, ${since}`)}
${moneyFigure(savings)}
${figure('Cache', percent(used(storage), storage.maxBytes), html`${bytes(used(storage))} of ${bytes(storage.maxBytes)}`)}
${figure('Right now', count(fills.running), html`${fills.running === 1 ? 'download' : 'downloads'}, ${count(clients.connections)} client ${clients.connections === 1 ? 'connection' : 'connections'}`)}`
}

function moneyFigure(savings: PageStatus['savings']): Html {
  if (savings?.money) {
    const { net, gross, cost } = savings.money
    const of = `${money(gross, savings.currency)} of traffic − ${money(cost, savings.currency)} of its own`
    return figure('Money saved', money(net, savings.currency), html`${of}`)
  }
  if (savings) return figure('Pulls avoided', count(savings.pullsAvoided), html`no link has a price configured`)
  return nothing
}

const figure = (name: string, value: string, note: Html): Html =>
  html`<div><dt>${name}</dt><dd class="value">${value}</dd><dd>${note}</dd></div>`

function downloads(fills: readonly RunningFill[], rates: ReadonlyMap<string, number>, now: number): Html {
  if (fills.length === 0) return html`<p class="quiet">None: what clients ask for is here already, or nobody asks.</p>`
  const left = fills.length - shownFills
  return html`<div class="scroll" role="group" aria-labelledby="downloads-title" tabindex="0"><table>
<thead><tr><th scope="col">Blob</th><th scope="col">For</th><th scope="col" class="wide">Progress</th><th scope="col" class="number">Rate</th><th scope="col" class="number">Readers</th><th scope="col" class="number">Running for</th></tr></thead>
<tbody>${fills.slice(0, shownFills).map(fill => download(fill, rates.get(fill.digest), now))}</tbody></table></div>
${left > 0 ? html`<p class="quiet">and ${count(left)} more</p>` : ''}`
}

function download(fill: RunningFill, perSecond: number | undefined, now: number): Html {
  const { digest, upstream, repository, size, received, readers, startedAt } = fill
  return html`<tr><th scope="row"><code title="${digest}">${shortDigest(digest)}</code></th>
<td><a href="${cachePath({ upstream, repository })}">${upstream}/${repository}</a>${from(fill)}</td>
<td class="wide">${progress(size, received, digest)}</td>
<td class="number">${perSecond === undefined ? '–' : rate(perSecond)}</td><td class="number">${readers === 0 ? html`<span class="quiet">none</span>` : count(readers)}</td><td class="number">${duration(now - startedAt)}</td></tr>`
}

const from = ({ began }: RunningFill): Html =>
  began === 'shared'
    ? html` <span class="quiet">from the bucket</span>`
    : began === 'peer'
      ? html` <span class="quiet">from a replica</span>`
      : nothing

function progress(size: number | undefined, received: number, digest: string): Html {
  if (size === undefined) return html`<span>${bytes(received)} of an unknown size</span>`
  return html`<progress max="${size}" value="${received}" aria-label="${shortDigest(digest)}"></progress> <span>${bytes(received)} of ${bytes(size)}</span>`
}

function upstreams({ upstreams: all }: PageStatus, now: number): Html {
  const isQuiet = ({ state, upstreamRequests, servedBytes, lastError }: UpstreamStatus): boolean =>
    state === 'closed' && upstreamRequests === 0 && servedBytes === 0 && lastError === undefined
  // What is wrong is seen first; else as configured.
  const used = all
    .filter(upstream => !isQuiet(upstream))
    .sort((a, b) => Number(a.state === 'closed') - Number(b.state === 'closed'))
  const quiet = all.filter(isQuiet)
  return html`${used.length === 0 ? nothing : upstreamTable(used, now)}
${quiet.length === 0 ? nothing : html`<p class="quiet">Not used yet: ${quiet.map(({ name }) => name).join(', ')}</p>`}`
}

const upstreamTable = (
  used: readonly UpstreamStatus[],
  now: number,
): Html => html`<div class="scroll" role="group" aria-labelledby="upstreams-title" tabindex="0"><table>
<thead><tr><th scope="col">Upstream</th><th scope="col">State</th><th scope="col" class="number">To clients</th><th scope="col" class="number">Fetched</th><th scope="col" class="number">Saved</th><th scope="col" class="number">Requests</th><th scope="col" class="number">Pulls left</th><th scope="col">Last error</th></tr></thead>
<tbody>${used.map(upstream => upstreamRow(upstream, now))}</tbody></table></div>`

function upstreamRow(upstream: UpstreamStatus, now: number): Html {
  const { name, servedBytes, upstreamBytes, savedBytes, upstreamRequests, lastError } = upstream
  return html`<tr><th scope="row"><a href="${cachePath({ upstream: name })}">${name}</a></th><td>${upstreamState(upstream, now)}</td>
<td class="number">${bytes(servedBytes)}</td><td class="number">${bytes(upstreamBytes)}</td><td class="number">${bytes(savedBytes)}</td><td class="number">${count(upstreamRequests)}</td><td class="number">${rateLimit(upstream)}</td><td>${lastError === undefined ? html`<span class="quiet">none</span>` : html`<code>${lastError}</code>`}</td></tr>`
}

function upstreamState({ state, unreachableSince, blockedUntil }: UpstreamStatus, now: number): Html {
  const away = unreachableSince === undefined ? '' : duration(now - Date.parse(unreachableSince))
  // It is asked until it has failed often enough; that it failed the last time is known before.
  if (state === 'closed')
    return away === ''
      ? html`<span class="state good">answers</span>`
      : html`<span class="state fair">does not answer</span> <span class="quiet">for ${away}</span>`
  const word = state === 'half-open' ? 'on trial' : 'not asked'
  const since = away === '' ? '' : `away for ${away}`
  const until = blockedUntil === undefined ? '' : `asked again in ${duration(Date.parse(blockedUntil) - now)}`
  const times = [since, until].filter(text => text !== '').join(', ')
  return html`<span class="state ${state === 'half-open' ? 'fair' : 'bad'}">${word}</span> <span class="quiet">${times}</span>`
}

function rateLimit({ rateLimit: limit }: UpstreamStatus): Html {
  if (limit?.remaining === undefined) return html`<span class="quiet">–</span>`
  return html`${count(limit.remaining)}${limit.limit === undefined ? '' : html` <span class="quiet">of ${count(limit.limit)}</span>`}`
}

function stores({ storage, evicted, shared, redis, storeFailures }: PageStatus): Html {
  const reserved = storage.reservedBytes > 0 ? html`, ${bytes(storage.reservedBytes)} for running downloads` : nothing
  return html`<dl class="facts">
<div><dt>Disk</dt><dd><meter min="0" max="${storage.maxBytes}" value="${used(storage)}" aria-label="Disk used"></meter> ${bytes(used(storage))} of ${bytes(storage.maxBytes)}${reserved}</dd></div>
<div><dt>Blobs</dt><dd>${count(storage.blobs)}, ${bytes(storage.blobBytes)}</dd></div>
<div><dt>Manifests</dt><dd>${count(storage.manifests)}, ${bytes(storage.manifestBytes)}</dd></div>
<div><dt>Evicted</dt><dd>${evicted.blobs === 0 ? html`<span class="quiet">nothing yet</span>` : html`${count(evicted.blobs)}, ${bytes(evicted.bytes)}`}</dd></div>
${redis ? html`<div><dt>Redis</dt><dd>${redisState(redis)}</dd></div>` : nothing}
${shared ? html`<div><dt>Bucket</dt><dd>${shared.pendingUploads === 0 ? html`<span class="state good">everything is uploaded</span>` : html`<span class="state fair">${count(shared.pendingUploads)} uploads wait</span>, ${bytes(shared.pendingBytes)}`}</dd></div>` : nothing}
<div><dt>Failures</dt><dd>${storeFailures === 0 ? html`<span class="quiet">none</span>` : html`<span class="state fair">${count(storeFailures)}</span> <span class="quiet">pulls went on; the log says why</span>`}</dd></div>
</dl>`
}

function redisState({ state, refusals }: NonNullable<PageStatus['redis']>): Html {
  if (state === 'down') return html`<span class="state bad">does not answer</span>`
  if (refusals.length === 0) return html`<span class="state good">answers</span>`
  return html`<span class="state fair">refuses some work</span> <code>${refusals.join(', ')}</code>`
}

const meanings: Readonly<Record<string, string>> = {
  hit: 'from the cache',
  revalidated: 'a tag that upstream confirmed',
  stale: 'from the cache, upstream could not answer',
  redirected: 'sent to the bucket',
  joined: 'joined a running download',
  fill: 'started a download',
  denied: 'refused',
  error: 'failed',
}

function answers({ requests }: PageStatus): Html {
  if (requests.total === 0)
    return html`<p class="quiet">None yet. <a href="/clients">Point a client here</a> and pull something.</p>`
  const known = Object.keys(meanings)
  // Not `total`, in which pings are.
  const all = sumOf(requests.byOutcome, () => true)
  const outcomes = Object.entries(requests.byOutcome).sort(([a], [b]) => known.indexOf(a) - known.indexOf(b))
  return html`<table><thead><tr><th scope="col">Outcome</th><th scope="col" class="number">Answers</th><th scope="col" class="number">Share</th></tr></thead>
<tbody>${outcomes.map(
    ([outcome, number]) =>
      html`<tr${number === 0 ? html` class="quiet"` : ''}><th scope="row"><code>${outcome}</code> <span class="quiet">${meanings[outcome] ?? ''}</span></th><td class="number">${count(number)}</td><td class="number">${percent(number, all)}</td></tr>`,
  )}</tbody></table>`
}

type ByOutcome = PageStatus['requests']['byOutcome']

const sumOf = (byOutcome: ByOutcome, keep: (outcome: string) => boolean): number =>
  Object.entries(byOutcome).reduce((sum, [outcome, number]) => sum + (keep(outcome) ? number : 0), 0)

const used = ({ blobBytes, manifestBytes, reservedBytes }: PageStatus['storage']): number =>
  blobBytes + manifestBytes + reservedBytes
