import { readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { renderDashboards } from '../../grafana/src/render.ts'
import { type Dashboard, dashboards, type Panel, panelsOf, pathOf, read } from './committed.ts'

test('the committed JSON is what `npm run dashboards` writes', () => {
  const rendered = renderDashboards()
  expect(readdirSync(pathOf('grafana/dashboards')).sort()).toEqual([...rendered.keys()].sort())
  for (const [file, json] of rendered) expect([file, read(`grafana/dashboards/${file}`) === json]).toEqual([file, true])
})

test('each has an address of its own, so that links and bookmarks outlive an import', () => {
  const uids = [...dashboards.values()].map(({ uid }) => uid)
  expect(uids.sort()).toEqual(['layover-operations', 'layover-overview', 'layover-upstreams'])
})

test('the ConfigMaps for Kubernetes hold each of them, with what the sidecar looks for', () => {
  const { generatorOptions, configMapGenerator } = parse(read('grafana/kustomization.yaml')) as {
    generatorOptions: { labels: object }
    configMapGenerator: { files: string[] }[]
  }
  expect(generatorOptions.labels).toEqual({ grafana_dashboard: '1' })
  const files = configMapGenerator.flatMap(map => map.files)
  expect(files.sort()).toEqual([...dashboards.keys()].map(file => `dashboards/${file}`).sort())
})

describe.each([...dashboards])('%s', (file, dashboard) => {
  const panels = panelsOf(dashboard)

  test('has its tags, its variables, and links to the others that keep them', () => {
    expect(dashboard.tags).toEqual(['layover', 'registry'])
    expect(dashboard.links).toMatchObject([
      { type: 'dashboards', tags: ['layover'], includeVars: true, keepTime: true },
    ])
    const names = ['datasource', 'job', 'instance', ...(file === 'upstreams.json' ? ['upstream'] : [])]
    expect(dashboard.templating.list.map(({ name }) => name)).toEqual(names)
    // Where "All" is any job, `up` and the metrics of Node are those of everybody.
    expect(dashboard.templating.list.find(({ name }) => name === 'job')?.allValue).toBeUndefined()
  })

  test('every panel says what it shows, in which unit, and what stands there without data', () => {
    const silent = panels.filter(
      ({ description = '', fieldConfig }) =>
        description.length < 20 || !fieldConfig?.defaults.unit || !fieldConfig.defaults.noValue,
    )
    expect(silent.map(({ title }) => title)).toEqual([])
  })

  test('every panel asks something, of the chosen data source, and has a place of its own', () => {
    expect(panels.filter(({ targets = [] }) => targets.length === 0).map(({ title }) => title)).toEqual([])
    expect(new Set(panels.map(({ datasource }) => datasource?.uid))).toEqual(new Set(['${datasource}']))
    const ids = [...dashboard.panels, ...panels].map(({ id }) => id)
    expect(new Set(ids).size).toBe(new Set([...dashboard.panels, ...panels]).size)
    expect(overlaps(dashboard)).toEqual([])
  })

  test('every expression is narrowed to the chosen jobs and instances, and no rate has a fixed window', () => {
    for (const { title, targets = [] } of panels)
      for (const { expr } of targets) {
        const selectors = expr.match(/\{[^}]*\}/g) ?? []
        const wide = selectors.filter(each => !each.startsWith('{job=~"$job", instance=~"$instance"'))
        expect([title, selectors.length > 0, wide]).toEqual([title, true, []])
        expect([title, /\[\d+[smhd]/.test(expr)]).toEqual([title, false])
      }
  })

  test('a closed row says of each panel which set-up has nothing to show in it', () => {
    const closed = dashboard.panels.filter(({ collapsed }) => collapsed).flatMap(row => row.panels ?? [])
    expect(
      closed
        .filter(panel => !panel.description?.includes('No data is fine') && !panel.description?.includes('replicas'))
        .map(({ title }) => title),
    ).toEqual([])
  })

  test('a runbook that a panel names exists', () => {
    const named = panels.flatMap(({ description = '' }) => description.match(/\bLayover[A-Z]\w+/g) ?? [])
    const pages = readdirSync(pathOf('docs/runbooks'))
    expect(named.filter(name => !pages.includes(`${name}.md`))).toEqual([])
  })
})

/** Titles of panels that lie on each other or leave the grid of 24 columns. */
function overlaps(dashboard: Dashboard): readonly string[] {
  const placed = dashboard.panels.flatMap(panel => [panel, ...(panel.panels ?? [])])
  return placed.flatMap((panel, index) => {
    const others = placed.slice(index + 1).filter(other => touch(panel.gridPos, other.gridPos))
    return others.length > 0 || panel.gridPos.x + panel.gridPos.w > 24 ? [panel.title] : []
  })
}

const touch = (one: Panel['gridPos'], other: Panel['gridPos']): boolean =>
  one.x < other.x + other.w && other.x < one.x + one.w && one.y < other.y + other.h && other.y < one.y + one.h
