import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { drawDashboard } from '../../grafana/preview/draw.ts'
import { evaluate, substitute } from '../../grafana/preview/evaluate.ts'
import { type Answered, PrometheusServer } from '../fakes/prometheus.ts'
import { dashboards, panelsOf, rules, rulesFile, type Target } from './committed.ts'
import { type Replicas, startReplicas } from './replicas.ts'
import { type Single, startSingle } from './single.ts'

/** Every query that an operator's Grafana or Prometheus will ask, asked of a real Prometheus that watched real Layovers. */

let single: Single
let replicas: Replicas
let prometheus: PrometheusServer

beforeAll(async () => {
  ;[single, replicas] = await Promise.all([startSingle(), startReplicas()])
  const targets = [
    { job: 'layover', url: single.layover.adminUrl },
    ...replicas.layovers.map(({ adminUrl: url }) => ({ job: 'layover-fleet', url })),
  ]
  prometheus = await PrometheusServer.start(targets, [rulesFile])
  // Twice, with a look between: what is counted for the first time shows no increase.
  for (const day of [1, 2]) {
    await prometheus.scraped(targets.length)
    await Promise.all([single.day(day), replicas.day(day)])
  }
  await prometheus.scraped(targets.length)
}, 180_000)

afterAll(async () => {
  await Promise.all([prometheus?.stop(), single?.close(), replicas?.close()])
}, 60_000)

// Wide enough for the slowest machine.
const choices = { jobs: ['layover', 'layover-fleet'], rateInterval: '30m', range: '30m' }
const substituted = (expr: string): string => substitute(expr, choices)

/** What may be 0 whenever Prometheus looks: it is of the moment, or good news. All else was made to happen. */
const mayBeZero = new Set([
  'Age of served tags',
  'Bytes that wait',
  'Client connections',
  'Connections and clients that left',
  'Downloads running',
  'Instances down',
  'Redis out of reach of',
  'Room used C',
  'Running',
  'Uploads that wait',
])

const hasNumber = (answered: readonly Answered[]): boolean =>
  answered.some(({ values }) => values.some(value => Number.isFinite(value)))

const isZero = (answered: readonly Answered[]): boolean =>
  answered.every(({ values }) => values.every(value => value === 0 || !Number.isFinite(value)))

async function ask({ expr, instant }: Target): Promise<readonly Answered[]> {
  const query = substituted(expr)
  return instant ? await prometheus.query(query) : await prometheus.queryRange(query)
}

describe.each([...dashboards])('%s', (_file, dashboard) => {
  test('each query of each panel has an answer with numbers in it, and not only 0', async () => {
    const empty: string[] = []
    for (const { title, targets = [] } of panelsOf(dashboard))
      for (const target of targets) {
        const answered = await ask(target)
        if (
          !hasNumber(answered) ||
          (isZero(answered) && ![title, `${title} ${target.refId}`].some(name => mayBeZero.has(name)))
        )
          empty.push(`${title} ${target.refId}: ${target.expr}`)
      }
    expect(empty).toEqual([])
  })

  test('shows nothing of other programs that Prometheus watches', async () => {
    const foreign = new URL(prometheus.url).host
    for (const [{ title }, series] of await evaluate(dashboard, prometheus, choices))
      expect([title, series.filter(({ labels }) => labels['instance'] === foreign)]).toEqual([title, []])
  })

  test('its preview shows something in every panel', async () => {
    const drawn = drawDashboard(dashboard, await evaluate(dashboard, prometheus, choices), {
      from: prometheus.startedAt / 1000,
      to: Date.now() / 1000,
    })
    expect(drawn.match(/<section class="(?!row)/g)?.length).toBe(panelsOf(dashboard).length)
    expect(drawn.match(/class="none"|NaN|undefined/g)).toBe(null)
  })

  test('each variable has values to choose from', async () => {
    for (const { name, type, query } of dashboard.templating.list) {
      if (type === 'datasource') continue
      const asked = typeof query === 'string' ? query : query.query
      const [, selector = '', label = ''] = /^label_values\((.+), (\w+)\)$/.exec(asked) ?? []
      const values = await prometheus.labelValues(label, substituted(selector))
      expect([name, values.length > 0]).toEqual([name, true])
    }
  })
})

test('the jobs to choose from are those of Layover', async () => {
  expect(await prometheus.labelValues('job', 'layover_build_info')).toEqual(choices.jobs)
})

describe('rules.yml', () => {
  test('Prometheus loads and evaluates every rule', async () => {
    const loaded = await prometheus.rules()
    expect(loaded.map(({ name }) => name).sort()).toEqual(rules.map(({ alert, record = '' }) => alert ?? record).sort())
    expect(loaded.filter(({ health, lastError }) => health !== 'ok' || lastError)).toEqual([])
  })

  test('every record is there', async () => {
    const missing: string[] = []
    for (const { record } of rules) if (record && !hasNumber(await prometheus.query(record))) missing.push(record)
    expect(missing).toEqual([])
  })

  test('every series that a rule looks at is there before it has to fire', async () => {
    const missing: string[] = []
    for (const { expr, alert, record } of rules)
      for (const selector of selectorsIn(expr))
        if (!hasNumber(await prometheus.query(selector))) missing.push(`${alert ?? record}: ${selector}`)
    expect(missing).toEqual([])
  })
})

test('alerts take notice of what went wrong, and not of what did not', async () => {
  // Those that wait for some minutes of it are pending.
  const pending = ['NotCaching', 'StaleServing', 'UpstreamLimited', 'UpstreamUnreachable']
  const expected = ['LayoverWrongBytes firing', ...pending.map(name => `Layover${name} pending`)]
  await expect.poll(() => prometheus.activeAlerts(), { timeout: 30_000 }).toEqual(expect.arrayContaining(expected))
  const absent = ['LayoverRestarting', 'LayoverUploadsStuck']
  const active = await prometheus.activeAlerts()
  expect(absent.filter(name => active.some(alert => alert.startsWith(name)))).toEqual([])
})

test('every metric of Layover is on a dashboard', async () => {
  const names = (await prometheus.labelValues('__name__')).filter(name => name.startsWith('layover_'))
  const shown = [...dashboards.values()]
    .flatMap(panelsOf)
    .flatMap(({ targets = [] }) => targets.flatMap(({ expr }) => expr.match(/\blayover_\w+/g) ?? []))
  const families = new Set(shown.map(familyOf))
  expect([...new Set(names.map(familyOf))].filter(name => !families.has(name))).toEqual([])
})

/** The series of a histogram are one metric. */
const familyOf = (name: string): string => name.replace(/_(?:bucket|sum|count)$/, '')

/** `name{…}` without ranges, functions and labels: each word that Layover, Node or Prometheus has as a metric. */
function selectorsIn(expr: string): readonly string[] {
  return expr.match(/\b(?:up|(?:job(?:_upstream)?:)?(?:layover|nodejs|process)_\w+(?::\w+)?)\b(?:\{[^}]*\})?/g) ?? []
}
