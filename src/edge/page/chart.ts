import type { TrafficPeriod, TrafficSlot } from '../../metrics/history.ts'
import { bytes, duration, rate } from './format.ts'
import { type Html, html, raw } from './html.ts'

export type ChartOptions = {
  /** Of its elements: `hour`. */
  readonly id: string
  readonly title: string
  readonly period: TrafficPeriod
  /** What stands at the left end: `1 h ago`. */
  readonly begin: string
}

const height = 148
const margin = 4
/** Whatever the other side's scale, a side with traffic is seen. */
const leastSide = 14
const rowsOfTable = 12

/**
 * What went to clients (upwards) and what came from upstreams (downwards), on one scale: what is missing below is what was saved. Drawn here, without
 * a script; the same figures stand below it as a table.
 */
export function trafficChart({ id, title, period, begin }: ChartOptions): Html {
  const known = period.slots.filter(slot => slot.known)
  const total = sumOf(known)
  const peak = { served: peakOf(known, servedRate), upstream: peakOf(known, upstreamRate) }
  const summary = `${bytes(total.servedBytes)} to clients, at most ${rate(peak.served)}; ${bytes(total.upstreamBytes)} from upstream, at most ${rate(peak.upstream)}.`
  return html`<figure class="chart">
<figcaption><h3 id="${id}-title">${title}</h3><span class="key up">${bytes(total.servedBytes)} to clients</span> <span class="key down">${bytes(total.upstreamBytes)} from upstream</span></figcaption>
<svg role="img" aria-label="${title}: ${summary}" width="100%" height="${height}">${drawing(period, peak)}</svg>
<div class="ends" aria-hidden="true"><span>${begin}</span><span>now</span></div>
<details id="${id}-figures"><summary>Figures</summary>${table(period, title)}</details>
</figure>`
}

type Peak = { readonly served: number; readonly upstream: number }

function drawing({ slots }: TrafficPeriod, peak: Peak): Html {
  const room = height - 2 * margin
  const top = peak.served + peak.upstream
  const below = top === 0 ? leastSide : Math.max(leastSide, (room * peak.upstream) / top)
  const base = height - margin - below
  // One scale for both sides, the one by which both fit.
  const scale = Math.min(
    peak.served === 0 ? Number.POSITIVE_INFINITY : (base - margin) / peak.served,
    peak.upstream === 0 ? Number.POSITIVE_INFINITY : below / peak.upstream,
  )
  const y = (value: number): number => (value === 0 ? 0 : value * scale)
  const first = slots.findIndex(slot => slot.known)
  const lines = Number.isFinite(scale) ? gridRates(peak.served).map(value => ({ value, at: base - y(value) })) : []
  return html`<svg width="100%" height="${height}" viewBox="0 0 ${slots.length} ${height}" preserveAspectRatio="none" aria-hidden="true" focusable="false">
${first > 0 ? raw(`<rect class="unknown" x="0" y="0" width="${first}" height="${height}"/>`) : ''}
${raw(lines.map(({ at }) => `<line class="grid" x1="0" x2="${slots.length}" y1="${round(at)}" y2="${round(at)}"/>`).join(''))}
${raw(`<path class="up" d="${area(slots, base, slot => -y(servedRate(slot)))}"/><path class="down" d="${area(slots, base, slot => y(upstreamRate(slot)))}"/>`)}
${raw(`<line class="base" x1="0" x2="${slots.length}" y1="${round(base)}" y2="${round(base)}"/>`)}</svg>
${lines.map(({ value, at }) => html`<text x="2" y="${round(at + 11)}">${rate(value)}</text>`)}
${first > slots.length / 4 ? html`<text class="unknown" x="${round((50 * first) / slots.length)}%" y="${round(base - 6)}" text-anchor="middle">not running</text>` : ''}`
}

/** Steps, closed along the base line. Stretches of nothing cost one step. */
function area(slots: readonly TrafficSlot[], base: number, offset: (slot: TrafficSlot) => number): string {
  let path = `M0 ${round(base)}`
  let level = 0
  for (const [x, slot] of slots.entries()) {
    const next = slot.known ? offset(slot) : 0
    if (round(next) === round(level)) continue
    path += `H${x}V${round(base + next)}`
    level = next
  }
  return `${path}H${slots.length}V${round(base)}Z`
}

/** One or two round values: 1, 2, 5, 10 … 500 of a unit. */
function gridRates(peak: number): readonly number[] {
  if (peak <= 0) return []
  const unit = 1024 ** Math.max(0, Math.floor(Math.log2(peak) / 10))
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500].map(step => step * unit)
  const fitting = steps.filter(step => step <= peak * 0.95)
  const largest = fitting.at(-1)
  if (largest === undefined) return []
  return largest * 2 <= peak * 0.95 ? [largest, largest * 2] : [largest]
}

function table({ slots }: TrafficPeriod, title: string): Html {
  const perRow = Math.ceil(slots.length / rowsOfTable)
  const rows = Array.from({ length: rowsOfTable }, (_, row) => slots.slice(row * perRow, (row + 1) * perRow))
    .map(row => row.filter(slot => slot.known))
    .filter(row => row.length > 0)
    .map(row => ({ at: row[0]?.at ?? 0, sum: sumOf(row) }))
  const end = slots.at(-1)?.at ?? 0
  return html`<table><caption class="hidden">${title}</caption>
<thead><tr><th scope="col">From</th><th scope="col" class="number">To clients</th><th scope="col" class="number">From upstream</th></tr></thead>
<tbody>${rows.map(
    ({ at, sum }) =>
      html`<tr><th scope="row">${at === end ? 'now' : `${duration(end - at)} ago`}</th><td class="number">${bytes(sum.servedBytes)}</td><td class="number">${bytes(sum.upstreamBytes)}</td></tr>`,
  )}</tbody></table>`
}

/** The first moments of a stretch say little about its rate. */
const leastSeconds = 5
const servedRate = ({ servedBytes, seconds }: TrafficSlot): number => servedBytes / Math.max(leastSeconds, seconds)
const upstreamRate = ({ upstreamBytes, seconds }: TrafficSlot): number =>
  upstreamBytes / Math.max(leastSeconds, seconds)

const peakOf = (slots: readonly TrafficSlot[], rateOf: (slot: TrafficSlot) => number): number =>
  slots.reduce((peak, slot) => Math.max(peak, rateOf(slot)), 0)

const sumOf = (slots: readonly TrafficSlot[]) => ({
  servedBytes: slots.reduce((sum, slot) => sum + slot.servedBytes, 0),
  upstreamBytes: slots.reduce((sum, slot) => sum + slot.upstreamBytes, 0),
})

const round = (value: number): number => Math.round(value * 10) / 10
