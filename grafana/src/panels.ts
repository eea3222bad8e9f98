import * as bargauge from '@grafana/grafana-foundation-sdk/bargauge'
import type { Builder, Dataquery } from '@grafana/grafana-foundation-sdk/cog'
import * as common from '@grafana/grafana-foundation-sdk/common'
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard'
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus'
import * as stat from '@grafana/grafana-foundation-sdk/stat'
import * as statetimeline from '@grafana/grafana-foundation-sdk/statetimeline'
import * as table from '@grafana/grafana-foundation-sdk/table'
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries'

export type PanelBuilder = Builder<dashboard.Panel>

/** `expr` in PromQL, `legend` with `{{label}}` in it. */
export type Query = {
  readonly expr: string
  readonly legend: string
  /** Asks for the traces behind a histogram, where tracing is on. */
  readonly exemplars?: boolean
}

/** From which value on which colour; the first colour is that of everything below. */
export type Thresholds = readonly [first: string, ...steps: (readonly [value: number, colour: string])[]]

export type PanelSpec = {
  readonly title: string
  /** What it shows, which values are good, and what to look at when they are not. */
  readonly description: string
  readonly queries: readonly Query[]
  /** A unit id of Grafana: `bytes`, `percentunit`, `s`. */
  readonly unit: string
  /** Of the grid's 24 columns. */
  readonly width: number
  /** Grid rows of about 30 pixels. */
  readonly height?: number
  /** Shown where nothing has been measured. */
  readonly empty?: string
  readonly thresholds?: Thresholds
  readonly min?: number
  readonly max?: number
  readonly decimals?: number
  /** Fixed colours by legend. */
  readonly colours?: Readonly<Record<string, string>>
}

/** The data source that the variable chooses. */
export const source: common.DataSourceRef = { type: 'prometheus', uid: '${datasource}' }

/** One number, or one for each label value, from the time that the dashboard shows. */
export function number(spec: PanelSpec & { readonly mappings?: dashboard.ValueMapping[] }): PanelBuilder {
  const panel = new stat.PanelBuilder()
    .graphMode(common.BigValueGraphMode.None)
    .colorMode(common.BigValueColorMode.Value)
    .textMode(
      spec.queries.some(({ legend }) => legend.includes('{{'))
        ? common.BigValueTextMode.ValueAndName
        : common.BigValueTextMode.Value,
    )
    .justifyMode(common.BigValueJustifyMode.Center)
    .orientation(common.VizOrientation.Auto)
    .reduceOptions(last())
    .mappings(spec.mappings ?? [])
  return described(panel, spec, { height: 4, instant: true })
}

/** Lines over time; `stacked` where the sum of the lines means something. */
export function lines(spec: PanelSpec & { readonly stacked?: boolean; readonly marks?: boolean }): PanelBuilder {
  const panel = new timeseries.PanelBuilder()
    .lineWidth(1)
    .fillOpacity(spec.stacked ? 40 : 10)
    .showPoints(common.VisibilityMode.Never)
    .legend(legendBelow())
    .tooltip(tooltipOfAll())
  if (spec.stacked) panel.stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal).group('A'))
  if (spec.marks)
    panel.thresholdsStyle(new common.GraphThresholdsStyleConfigBuilder().mode(common.GraphThresholdsStyleMode.Dashed))
  return described(panel, spec, { height: 8, instant: false })
}

/** What seldom happens: a bar where it did. Series that exist and stand still are left out, for there is one for each registry and reason. */
export function events(spec: PanelSpec): PanelBuilder {
  const panel = new timeseries.PanelBuilder()
    .drawStyle(common.GraphDrawStyle.Bars)
    .fillOpacity(80)
    .lineWidth(0)
    .stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal).group('A'))
    .legend(legendBelow())
    .tooltip(tooltipOfAll())
  const queries = spec.queries.map(({ expr, legend }) => ({ expr: `${expr} > 0`, legend }))
  return described(panel, { ...spec, queries, min: 0 }, { height: 8, instant: false })
}

/** One bar for each label value, longest first. */
export function bars(spec: PanelSpec): PanelBuilder {
  const panel = new bargauge.PanelBuilder()
    .orientation(common.VizOrientation.Horizontal)
    .displayMode(common.BarGaugeDisplayMode.Basic)
    .showUnfilled(true)
    .reduceOptions(last())
  return described(panel, spec, { height: 8, instant: true })
}

/** States over time, one band for each label value. */
export function states(spec: PanelSpec & { readonly mappings: dashboard.ValueMapping[] }): PanelBuilder {
  const panel = new statetimeline.PanelBuilder()
    .showValue(common.VisibilityMode.Never)
    .mergeValues(true)
    .rowHeight(0.8)
    .fillOpacity(80)
    .mappings(spec.mappings)
    .legend(legendBelow())
  return described(panel, spec, { height: 8, instant: false })
}

export type Column = {
  readonly title: string
  readonly expr: string
  readonly unit: string
  readonly thresholds?: Thresholds
  readonly mappings?: dashboard.ValueMapping[]
}

export type TableSpec = Pick<PanelSpec, 'title' | 'description' | 'width' | 'height'> & {
  /** The label that makes the rows; each expression is summed by it. */
  readonly by: string
  readonly byTitle: string
  /** Where a click on a row leads. */
  readonly link: { readonly title: string; readonly url: string }
  readonly columns: readonly Column[]
}

/** One row for each value of a label, one column for each query. */
export function rowsBy({ by, byTitle, link, columns, ...spec }: TableSpec): PanelBuilder {
  const panel = new table.PanelBuilder()
    .title(spec.title)
    .description(spec.description)
    .datasource(source)
    .span(spec.width)
    .height(spec.height ?? 9)
    .unit('short')
    .noValue('–')
    .thresholds(thresholds(['text']))
    .targets(
      columns.map(({ expr }, index) =>
        query({ expr, legend: `{{${by}}}` }, index, true).format(prometheus.PromQueryFormat.Table),
      ),
    )
    .withTransformation({ id: 'merge', options: {} })
    .withTransformation({
      id: 'organize',
      options: { excludeByName: { Time: true }, indexByName: {}, renameByName: {} },
    })
    .overrideByName(by, [
      { id: 'displayName', value: byTitle },
      { id: 'links', value: [{ title: link.title, url: link.url }] },
    ])
  for (const [index, { title, unit, thresholds: limits, mappings }] of columns.entries())
    panel.overrideByName(`Value #${letter(index)}`, [
      { id: 'displayName', value: title },
      { id: 'unit', value: unit },
      ...(limits
        ? [
            { id: 'thresholds', value: thresholds(limits).build() },
            { id: 'custom.cellOptions', value: { type: 'color-text' } },
          ]
        : []),
      ...(mappings ? [{ id: 'mappings', value: mappings }] : []),
    ])
  return panel
}

// What all the visual panels of the SDK have in common; it gives each its own class and no interface.
type AnyPanel = PanelBuilder & {
  title(text: string): AnyPanel
  description(text: string): AnyPanel
  datasource(ref: common.DataSourceRef): AnyPanel
  span(columns: number): AnyPanel
  height(rows: number): AnyPanel
  unit(unit: string): AnyPanel
  noValue(text: string): AnyPanel
  min(value: number): AnyPanel
  max(value: number): AnyPanel
  decimals(digits: number): AnyPanel
  thresholds(of: Builder<dashboard.ThresholdsConfig>): AnyPanel
  targets(of: Builder<Dataquery>[]): AnyPanel
  overrideByName(name: string, properties: dashboard.DynamicConfigValue[]): AnyPanel
  colorScheme(color: Builder<dashboard.FieldColor>): AnyPanel
}

function described(
  panel: AnyPanel,
  spec: PanelSpec,
  { height, instant }: { height: number; instant: boolean },
): PanelBuilder {
  panel
    .title(spec.title)
    .description(spec.description)
    .datasource(source)
    .span(spec.width)
    .height(spec.height ?? height)
    .unit(spec.unit)
    .noValue(spec.empty ?? 'nothing measured')
    .thresholds(thresholds(spec.thresholds ?? ['green']))
    .targets(spec.queries.map((one, index) => query(one, index, instant)))
    .colorScheme(
      new dashboard.FieldColorBuilder().mode(
        instant ? dashboard.FieldColorModeId.Thresholds : dashboard.FieldColorModeId.PaletteClassicByName,
      ),
    )
  if (spec.min !== undefined) panel.min(spec.min)
  if (spec.max !== undefined) panel.max(spec.max)
  if (spec.decimals !== undefined) panel.decimals(spec.decimals)
  for (const [name, colour] of Object.entries(spec.colours ?? {}))
    panel.overrideByName(name, [{ id: 'color', value: { mode: 'fixed', fixedColor: colour } }])
  return panel
}

function query({ expr, legend, exemplars }: Query, index: number, instant: boolean): prometheus.DataqueryBuilder {
  const built = new prometheus.DataqueryBuilder()
    .refId(letter(index))
    .datasource(source)
    .expr(expr)
    .legendFormat(legend)
  if (exemplars) built.exemplar(true)
  return instant ? built.instant() : built.range()
}

function thresholds([first, ...steps]: Thresholds): dashboard.ThresholdsConfigBuilder {
  return new dashboard.ThresholdsConfigBuilder()
    .mode(dashboard.ThresholdsMode.Absolute)
    .steps([{ value: null, color: first }, ...steps.map(([value, color]) => ({ value, color }))])
}

const last = (): common.ReduceDataOptionsBuilder =>
  new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']).values(false)

const legendBelow = (): common.VizLegendOptionsBuilder =>
  new common.VizLegendOptionsBuilder()
    .displayMode(common.LegendDisplayMode.List)
    .placement(common.LegendPlacement.Bottom)
    .showLegend(true)
    .calcs([])

const tooltipOfAll = (): common.VizTooltipOptionsBuilder =>
  new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending)

const letter = (index: number): string => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'.charAt(index)
