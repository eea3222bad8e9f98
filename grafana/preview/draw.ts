import { colourOf, paletteColour, thresholdColour } from './colours.ts'
import { format } from './format.ts'
import { clock, graph, timeTicks } from './graph.ts'
import { escaped } from './markup.ts'
import { type Dashboard, type GridPos, type Panel, type Series, settingsOf } from './panel.ts'

export type Answers = ReadonlyMap<Panel, readonly Series[]>
type Span = { readonly from: number; readonly to: number }

const width = 1440
const column = width / 24
const row = 34
const gap = 8

/** The dashboard as a page, each panel where its gridPos says. */
export function drawDashboard(dashboard: Dashboard, answers: Answers, time: Span): string {
  const placed = dashboard.panels.flatMap(panel => [panel, ...(panel.panels ?? [])])
  const bottom = Math.max(...placed.map(({ gridPos }) => gridPos.y + gridPos.h))
  const drawn = placed.map(
    panel => `<section class="${panel.type}" style="${place(panel.gridPos)}">${inside(panel, answers, time)}</section>`,
  )
  return `<!doctype html><meta charset="utf-8"><title>${escaped(dashboard.title)}</title><style>${style}</style>
<header><h1>${escaped(dashboard.title)}</h1><p>Preview, not a screenshot of Grafana: drawn from this dashboard’s own queries, asked of a Prometheus that watched a real run for ${Math.round(time.to - time.from)} seconds.</p></header>
<main style="height:${bottom * row}px">${drawn.join('\n')}</main>`
}

const place = ({ x, y, w, h }: GridPos): string =>
  `left:${x * column}px;top:${y * row}px;width:${w * column - gap}px;height:${h * row - gap}px`

function inside(panel: Panel, answers: Answers, time: Span): string {
  const title = `<h2>${escaped(panel.title)}</h2>`
  if (panel.type === 'row') return title
  const size = { width: panel.gridPos.w * column - gap - 18, height: panel.gridPos.h * row - gap - 40 }
  const series = answers.get(panel) ?? []
  if (series.length === 0) return `${title}<p class="none">${escaped(panel.fieldConfig?.defaults.noValue ?? '')}</p>`
  switch (panel.type) {
    case 'stat':
      return title + numbers(panel, series)
    case 'bargauge':
      return title + bars(panel, series)
    case 'table':
      return title + table(panel, series)
    case 'state-timeline':
      return title + bands(panel, series, size, time)
    default:
      return title + graph(panel, series, size, time)
  }
}

const lastOf = ({ values }: Series): number => values.findLast(value => Number.isFinite(value)) ?? Number.NaN

function numbers(panel: Panel, series: readonly Series[]): string {
  const { thresholds, ...settings } = settingsOf(panel, '')
  const isNamed = panel.targets?.some(({ legendFormat }) => legendFormat.includes('{{')) ?? false
  const shown = series.map(one => {
    const value = lastOf(one)
    const name = isNamed ? `<small>${escaped(one.name)}</small>` : ''
    return `<div style="color:${thresholdColour(value, thresholds?.steps ?? [])}">${name}<b>${escaped(format(value, settings))}</b></div>`
  })
  return `<div class="numbers">${shown.join('')}</div>`
}

function bars(panel: Panel, series: readonly Series[]): string {
  const settings = settingsOf(panel, '')
  const most = Math.max(...series.map(one => Math.abs(lastOf(one))), 1e-9)
  const shown = series.map(one => {
    const value = lastOf(one)
    const colour = thresholdColour(value, settings.thresholds?.steps ?? [])
    return `<label>${escaped(one.name)}</label><div class="bar"><i style="width:${(Math.abs(value) / most) * 100}%;background:${colour}"></i><span style="color:${colour}">${escaped(format(value, settings))}</span></div>`
  })
  return `<div class="bars">${shown.join('')}</div>`
}

function table(panel: Panel, series: readonly Series[]): string {
  const by = series.flatMap(({ labels }) => Object.keys(labels)).at(0) ?? ''
  const names = [...new Set(series.map(({ labels }) => labels[by] ?? ''))].sort()
  const columns = (panel.targets ?? []).map(({ refId }) => ({ refId, settings: settingsOf(panel, `Value #${refId}`) }))
  const head = [settingsOf(panel, by).displayName ?? by, ...columns.map(({ settings }) => settings.displayName ?? '')]
  const body = names.map(name => {
    const cells = columns.map(({ refId, settings }) => {
      const found = series.find(one => one.refId === refId && one.labels[by] === name)
      if (!found || !Number.isFinite(lastOf(found))) return '<td>–</td>'
      const value = lastOf(found)
      const mapped = settings.mappings?.[0]?.options[String(value)]?.color
      return `<td style="color:${mapped ? colourOf(mapped) : thresholdColour(value, settings.thresholds?.steps ?? [])}">${escaped(format(value, settings))}</td>`
    })
    return `<tr><th>${escaped(name)}</th>${cells.join('')}</tr>`
  })
  return `<table><tr>${head.map(text => `<th>${escaped(text)}</th>`).join('')}</tr>${body.join('')}</table>`
}

function bands(panel: Panel, series: readonly Series[], size: { width: number; height: number }, time: Span): string {
  const left = 120
  const options = panel.fieldConfig?.defaults.mappings?.[0]?.options ?? {}
  const band = Math.min(36, (size.height - 50) / series.length)
  const x = (seconds: number): number =>
    left + ((seconds - time.from) / (time.to - time.from)) * (size.width - left - 10)
  const drawn = series.map(({ name, times, values }, index) => {
    const y = index * band + 4
    const starts = times.map((_, at) => at).filter(at => values[at] !== values[at - 1])
    const boxes = starts.map((at, order) => {
      const seconds = times[at] ?? time.from
      const next = times[starts[order + 1] ?? -1] ?? time.to
      const colour = colourOf(options[String(values[at])]?.color ?? paletteColour(at))
      return `<rect x="${x(seconds)}" y="${y}" width="${x(next) - x(seconds)}" height="${band * 0.8}" fill="${colour}" fill-opacity="0.8"/>`
    })
    return `<text x="${left - 8}" y="${y + band / 2}" text-anchor="end">${escaped(name)}</text>${boxes.join('')}`
  })
  const marks = timeTicks(time, size.width).map(
    seconds => `<text x="${x(seconds)}" y="${series.length * band + 22}" text-anchor="middle">${clock(seconds)}</text>`,
  )
  const legend = Object.values(options).map(
    ({ text, color }) => `<span><i style="background:${colourOf(color)}"></i>${escaped(text)}</span>`,
  )
  return `<svg width="${size.width}" height="${size.height - 34}">${drawn.join('')}${marks.join('')}</svg><div class="legend">${legend.join('')}</div>`
}

const style = `
body{margin:0;padding:16px;background:#111217;color:#ccccdc;font:13px/1.4 system-ui,"DejaVu Sans",sans-serif;width:${width}px}
header{display:flex;align-items:baseline;gap:24px;margin-bottom:12px}h1{font-size:20px;margin:0;white-space:nowrap}header p{margin:0;color:#f2cc0c}
main{position:relative}section{position:absolute;box-sizing:border-box;background:#181b1f;border:1px solid #25272e;border-radius:3px;padding:6px 8px;overflow:hidden}
section.row{background:none;border:0;padding:2px 0}h2{font-size:13px;font-weight:600;margin:0 0 6px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}.row h2{font-size:15px;line-height:26px}
.none{color:#8e8ea0;text-align:center;margin-top:18px}.numbers{display:flex;justify-content:space-around;align-items:center;height:calc(100% - 30px)}
.numbers div{text-align:center}.numbers b{font-size:28px;font-weight:600;white-space:nowrap}.numbers small{display:block;font-size:13px}
.legend{display:flex;flex-wrap:wrap;gap:0 14px;height:36px;overflow:hidden;font-size:12px}.legend i{display:inline-block;width:14px;height:4px;border-radius:2px;margin-right:6px;vertical-align:middle}
svg text{fill:#9a9bab;font-size:11px}.grid{stroke:#25272e}
.bars label{display:block;font-size:12px}.bar{position:relative;background:#22252b;height:22px;margin-bottom:8px;border-radius:2px}.bar i{position:absolute;inset:0 auto 0 0;opacity:.35;border-radius:2px}.bar span{position:absolute;right:8px;line-height:22px;font-weight:600}
table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:7px 12px;border-bottom:1px solid #25272e;font-weight:400}tr:first-child th{color:#6e9fff;font-weight:600}th:first-child{text-align:left}`
