import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard'
import type { PanelBuilder } from './panels.ts'
import { series } from './promql.ts'
import { source } from './panels.ts'

export type Row = {
  readonly title: string
  /** Closed until somebody opens it: what not every set-up has. Grafana asks nothing for a closed row. */
  readonly collapsed?: boolean
  readonly panels: readonly PanelBuilder[]
}

export type DashboardSpec = {
  readonly uid: string
  readonly title: string
  readonly description: string
  /** Shown at first, up to now: `24h`. */
  readonly last: string
  /** Lets the viewer choose registries; then expressions name `$upstream`. */
  readonly choosesUpstream?: boolean
  readonly rows: readonly Row[]
}

/** What all dashboards of Layover have in common: variables, links to each other, tags. Ids and places follow from the order. */
export function assemble({ uid, title, description, last, choosesUpstream, rows }: DashboardSpec): dashboard.Dashboard {
  const builder = new dashboard.DashboardBuilder(title)
    .uid(uid)
    .description(description)
    .tags(['layover', 'registry'])
    .editable()
    .tooltip(dashboard.DashboardCursorSync.Crosshair)
    .time({ from: `now-${last}`, to: 'now' })
    .refresh('1m')
    .timezone('browser')
    .variables(variables(choosesUpstream ?? false))
    .link(linkToOthers())
  for (const row of rows) addRow(builder, row)
  return numbered(builder.build())
}

function variables(choosesUpstream: boolean): dashboard.QueryVariableBuilder[] {
  const chosen = [
    // A builder of another class with the same result.
    new dashboard.DatasourceVariableBuilder('datasource')
      .label('Data source')
      .type('prometheus') as unknown as dashboard.QueryVariableBuilder,
    // "All" is Layover's jobs and no others: `up` and the metrics of Node are not ours alone.
    choice('job', 'Job', 'label_values(layover_build_info, job)'),
    // Those that are gone by now count too: what they served in the chosen time was served.
    choice('instance', 'Instance', 'label_values(layover_build_info{job=~"$job"}, instance)').allValue('.*'),
  ]
  const upstreams = `label_values(${series('layover_upstream_state')}, upstream)`
  return choosesUpstream ? [...chosen, choice('upstream', 'Registry', upstreams).allValue('.*')] : chosen
}

function choice(name: string, label: string, query: string): dashboard.QueryVariableBuilder {
  return new dashboard.QueryVariableBuilder(name)
    .label(label)
    .datasource(source)
    .query({ query, refId: name })
    .definition(query)
    .refresh(dashboard.VariableRefresh.OnTimeRangeChanged)
    .sort(dashboard.VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .current({ text: ['All'], value: ['$__all'] })
}

function linkToOthers(): dashboard.DashboardLinkBuilder {
  return new dashboard.DashboardLinkBuilder('Layover')
    .type(dashboard.DashboardLinkType.Dashboards)
    .tags(['layover'])
    .asDropdown(false)
    .includeVars(true)
    .keepTime(true)
}

function addRow(builder: dashboard.DashboardBuilder, { title, collapsed = false, panels }: Row): void {
  const row = new dashboard.RowBuilder(title).collapsed(collapsed)
  if (collapsed) for (const panel of panels) row.withPanel(panel)
  builder.withRow(row)
  if (!collapsed) for (const panel of panels) builder.withPanel(panel)
}

function numbered(built: dashboard.Dashboard): dashboard.Dashboard {
  let id = 0
  for (const panel of built.panels ?? []) {
    panel.id = ++id
    if ('panels' in panel) for (const inner of panel.panels) inner.id = ++id
  }
  return built
}
