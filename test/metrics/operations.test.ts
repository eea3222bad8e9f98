import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parse } from 'yaml'
import { createMetrics } from '../../src/metrics/metrics.ts'
import { parseExposition } from './exposition.ts'
import { promtoolFaults } from './promtool.ts'

type Rule = {
  readonly alert: string
  readonly expr: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
}
type Panel = {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly gridPos: { readonly x: number; readonly w: number }
  readonly targets?: readonly { readonly expr: string }[]
}
type Dashboard = {
  readonly uid: string
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly { readonly name: string }[] }
}

const pathOf = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const read = (path: string): string => readFileSync(pathOf(path), 'utf8')

const rules = (parse(read('deploy/prometheus/rules.yml')) as { groups: { rules: Rule[] }[] }).groups.flatMap(
  group => group.rules,
)
const dashboard = JSON.parse(read('grafana/dashboards/layover.json')) as Dashboard
const targets = dashboard.panels.flatMap(({ title, targets: list = [] }) => list.map(({ expr }) => ({ title, expr })))

/** Names in an expression that look like ours or like the process metrics, without the endings of histograms. */
function metricsIn(expr: string): readonly string[] {
  const names = expr.match(/\b(?:layover|process|nodejs)_[a-z0-9_]+/g) ?? []
  return names.map(name => name.replace(/_bucket$|_(?<=_seconds_)(sum|count)$/, ''))
}

async function registered(): Promise<ReadonlySet<string>> {
  const { body } = await createMetrics({ upstreams: ['docker.io'], version: '1' }).render()
  return new Set(parseExposition(body).families.keys())
}

describe('the dashboard', () => {
  test('shows only metrics that exist', async () => {
    const known = await registered()
    const unknown = targets.flatMap(({ title, expr }) =>
      metricsIn(expr)
        .filter(name => !known.has(name))
        .map(name => `${title}: ${name}`),
    )
    expect(unknown).toEqual([])
  })

  test('has its uid, its variables, and panels that ask for something and fit the grid', () => {
    expect(dashboard.uid).toBe('layover')
    expect(dashboard.templating.list.map(({ name }) => name)).toEqual(['datasource', 'job', 'upstream'])
    const ids = dashboard.panels.map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
    const odd = dashboard.panels.filter(
      ({ type, gridPos, targets: list = [] }) => gridPos.x + gridPos.w > 24 || (type !== 'row' && list.length === 0),
    )
    expect(odd.map(({ title }) => title)).toEqual([])
  })

  test('every expression is narrowed to the job, and no rate has a fixed window', () => {
    for (const { title, expr } of targets) {
      expect([title, expr.includes('job=~"$job"')]).toEqual([title, true])
      expect([title, /\[\d+[smhd]\]/.test(expr)]).toEqual([title, false])
    }
  })

  test('asks in valid PromQL, where promtool is installed to tell', () => {
    const exprs = targets.map(({ expr }) => expr.replace(/\$__(rate_interval|range)/g, '5m').replace(/\$\w+/g, '.*'))
    const recorded = exprs.map((expr, at) => ({ record: `panel:${at}`, expr }))
    const folder = mkdtempSync(join(tmpdir(), 'layover-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    writeFileSync(join(folder, 'rules.json'), JSON.stringify({ groups: [{ name: 'dashboard', rules: recorded }] }))
    // Where it is not, the balance of brackets is what can be told.
    expect(promtoolFaults(['check', 'rules', 'rules.json'], { cwd: folder }) ?? exprs.filter(unbalanced)).toEqual([])
  })
})

describe('the alerts', () => {
  test('use only metrics that exist', async () => {
    const known = await registered()
    expect(rules.flatMap(({ expr }) => metricsIn(expr)).filter(name => !known.has(name))).toEqual([])
  })

  test('each says what is wrong and points to its section of the runbook', () => {
    const sections = [...read('docs/runbook.md').matchAll(/^## (\w+)$/gm)].map(([, title = '']) => title)
    expect(sections).toEqual(expect.arrayContaining(rules.map(({ alert }) => alert)))
    expect(sections.length).toBe(rules.length)
    for (const { alert, labels, annotations } of rules) {
      expect(annotations['runbook_url']).toBe(`docs/runbook.md#${alert.toLowerCase()}`)
      expect([alert, Boolean(annotations['summary'] && annotations['description'])]).toEqual([alert, true])
      expect(['warning', 'critical']).toContain(labels['severity'])
    }
  })

  test('each has a test that sees it fire and one that sees it silent', () => {
    type Case = { readonly alertname: string; readonly exp_alerts: readonly unknown[] }
    const { tests } = parse(read('deploy/prometheus/rules_test.yml')) as { tests: { alert_rule_test: Case[] }[] }
    const cases = tests.flatMap(({ alert_rule_test: list }) => list)
    for (const { alert } of rules) {
      const own = cases.filter(({ alertname }) => alertname === alert)
      expect([alert, own.some(({ exp_alerts: fired }) => fired.length > 0)]).toEqual([alert, true])
      expect([alert, own.some(({ exp_alerts: fired }) => fired.length === 0)]).toEqual([alert, true])
    }
  })

  test('pass the tests of promtool, where promtool is installed', () => {
    const rulesFaults = promtoolFaults(['test', 'rules', 'rules_test.yml'], { cwd: pathOf('deploy/prometheus') })
    // Where it is not, that the rules parse, name what exists and have tests is checked above.
    expect(rulesFaults ?? []).toEqual([])
  })
})

const unbalanced = (expr: string): boolean =>
  (expr.match(/[({[]/g) ?? []).length !== (expr.match(/[)}\]]/g) ?? []).length
