import { colourOf, paletteColour } from './colours.ts'
import { format } from './format.ts'
import { type Panel, type Series, settingsOf } from './panel.ts'
import { escaped } from './markup.ts'

type Size = { readonly width: number; readonly height: number }
type Span = { readonly from: number; readonly to: number }
type Drawn = {
  readonly name: string
  readonly colour: string
  readonly points: readonly (readonly [number, number, number])[]
}

const left = 74
const legendHeight = 34

/** Lines over time as SVG, and their legend. */
export function graph(panel: Panel, series: readonly Series[], { width, height }: Size, time: Span): string {
  const stacked = panel.fieldConfig?.defaults.custom?.stacking?.mode === 'normal'
  const drawn = layered(panel, series, stacked)
  const top = scaleOf(panel, drawn)
  const plot = { width: width - left - 12, height: height - legendHeight - 26 }
  const x = (seconds: number): number => left + ((seconds - time.from) / (time.to - time.from)) * plot.width
  const y = (value: number): number => 6 + (1 - (value - top.low) / (top.high - top.low || 1)) * plot.height
  const grid = top.ticks.map(
    tick =>
      `<line x1="${left}" x2="${left + plot.width}" y1="${y(tick)}" y2="${y(tick)}" class="grid"/><text x="${left - 8}" y="${y(tick) + 4}" text-anchor="end">${escaped(format(tick, panel.fieldConfig?.defaults ?? {}))}</text>`,
  )
  const marks = timeTicks(time, plot.width).map(
    seconds => `<text x="${x(seconds)}" y="${plot.height + 24}" text-anchor="middle">${clock(seconds)}</text>`,
  )
  const isBars = panel.fieldConfig?.defaults.custom?.drawStyle === 'bars'
  const lines = drawn.map(({ colour, points }) =>
    isBars ? columns(points, colour, x, y) : shapes(points, colour, stacked, x, y),
  )
  return `<svg width="${width}" height="${height - legendHeight}">${grid.join('')}${marks.join('')}${limits(panel, top, left, plot.width, y)}${lines.join('')}</svg>${legend(drawn)}`
}

function layered(panel: Panel, series: readonly Series[], stacked: boolean): readonly Drawn[] {
  const floor = new Map<number, number>()
  return series.map(({ name, times, values }, index) => ({
    name,
    colour: colourOf(settingsOf(panel, name).colour ?? paletteColour(index)),
    points: times.flatMap((seconds, at) => {
      const value = values[at] ?? Number.NaN
      if (!Number.isFinite(value)) return []
      const below = stacked ? (floor.get(seconds) ?? 0) : 0
      floor.set(seconds, below + value)
      return [[seconds, below, below + value] as const]
    }),
  }))
}

function scaleOf(panel: Panel, drawn: readonly Drawn[]) {
  const { min, max } = panel.fieldConfig?.defaults ?? {}
  const values = drawn.flatMap(({ points }) => points.map(([, , value]) => value))
  const high = max ?? Math.max(...values, 0)
  const low = min ?? Math.min(...values, 0)
  const isBinary = /^(?:bytes|binBps)$/.test(panel.fieldConfig?.defaults.unit ?? '')
  const step = niceStep((high - low || 1) / 4, isBinary ? 1024 : 10)
  const bounds = {
    low: Math.floor(low / step) * step,
    high: max ?? Math.max(Math.ceil(high / step) * step, low + step),
  }
  const ticks = Array.from(
    { length: Math.round((bounds.high - bounds.low) / step) + 1 },
    (_, index) => bounds.low + index * step,
  )
  return { ...bounds, ticks: ticks.filter(tick => tick <= bounds.high + step / 1e3) }
}

function niceStep(rough: number, base: number): number {
  const power = base ** Math.floor(Math.log(rough) / Math.log(base))
  const steps =
    base === 10
      ? [1, 2, 2.5, 5, 10]
      : [1, 2, 4, 5, 8, 10, 16, 20, 32, 40, 50, 64, 80, 100, 128, 200, 256, 400, 512, 1024]
  return power * (steps.find(step => step * power >= rough) ?? base)
}

/** A line ends where values are missing. */
function shapes(points: Drawn['points'], ...rest: Tail): string {
  const step = Math.min(...points.slice(1).map(([seconds], index) => seconds - (points[index]?.[0] ?? seconds)))
  const runs: (readonly [number, number, number])[][] = []
  for (const point of points) {
    const run = runs.at(-1)
    const before = run?.at(-1)?.[0]
    if (run && before !== undefined && point[0] - before < step * 1.5) run.push(point)
    else runs.push([point])
  }
  return runs.map(run => shape(run, ...rest)).join('')
}

type Tail = readonly [colour: string, stacked: boolean, x: (s: number) => number, y: (v: number) => number]

function shape(
  points: Drawn['points'],
  colour: string,
  stacked: boolean,
  x: (s: number) => number,
  y: (v: number) => number,
): string {
  if (points.length === 0) return ''
  const upper = points.map(([seconds, , value]) => `${x(seconds).toFixed(1)},${y(value).toFixed(1)}`)
  const lower = points.toReversed().map(([seconds, below]) => `${x(seconds).toFixed(1)},${y(below).toFixed(1)}`)
  return `<polygon points="${[...upper, ...lower].join(' ')}" fill="${colour}" fill-opacity="${stacked ? 0.4 : 0.08}"/><polyline points="${upper.join(' ')}" fill="none" stroke="${colour}" stroke-width="1.5"/>`
}

function columns(points: Drawn['points'], colour: string, x: (s: number) => number, y: (v: number) => number): string {
  return points
    .map(
      ([seconds, below, value]) =>
        `<rect x="${x(seconds).toFixed(1)}" y="${y(value).toFixed(1)}" width="3" height="${(y(below) - y(value)).toFixed(1)}" fill="${colour}" fill-opacity="0.8"/>`,
    )
    .join('')
}

function limits(
  panel: Panel,
  scale: { low: number; high: number },
  from: number,
  width: number,
  y: (v: number) => number,
): string {
  const { thresholds, custom } = panel.fieldConfig?.defaults ?? {}
  if (custom?.thresholdsStyle?.mode !== 'dashed') return ''
  return (thresholds?.steps ?? [])
    .filter(({ value }) => value !== null && value >= scale.low && value <= scale.high)
    .map(
      ({ value, color }) =>
        `<line x1="${from}" x2="${from + width}" y1="${y(value ?? 0)}" y2="${y(value ?? 0)}" stroke="${colourOf(color)}" stroke-dasharray="6 5"/>`,
    )
    .join('')
}

export function timeTicks({ from, to }: Span, width: number): readonly number[] {
  const step = [5, 10, 15, 30, 60, 120, 300].find(each => ((to - from) / each) * 70 < width) ?? 600
  const first = Math.ceil(from / step) * step
  return Array.from({ length: Math.floor((to - first) / step) + 1 }, (_, index) => first + index * step)
}

export const clock = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(11, 19)

function legend(drawn: readonly Drawn[]): string {
  return `<div class="legend">${drawn.map(({ name, colour }) => `<span><i style="background:${colour}"></i>${escaped(name)}</span>`).join('')}</div>`
}
