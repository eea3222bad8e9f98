import type { PrometheusServer } from '../../test/fakes/prometheus.ts'
import type { Answers } from './draw.ts'
import type { Dashboard, Panel, Series, Target } from './panel.ts'

export type Choices = {
  /** The jobs that the variable lists. */
  readonly jobs: readonly string[]
  /** `30s` */
  readonly rateInterval: string
  readonly range: string
}

/** As Grafana does with "All" chosen everywhere. */
export function substitute(expr: string, { jobs, rateInterval, range }: Choices): string {
  return expr
    .replaceAll('$__rate_interval', rateInterval)
    .replaceAll('$__range', range)
    .replaceAll('$job', `(${jobs.join('|')})`)
    .replace(/\$(instance|upstream)\b/g, '.*')
}

/** What the panels of a dashboard show now. */
export async function evaluate(dashboard: Dashboard, prometheus: PrometheusServer, choices: Choices): Promise<Answers> {
  const answers = new Map<Panel, readonly Series[]>()
  for (const panel of dashboard.panels.flatMap(panel => [panel, ...(panel.panels ?? [])])) {
    const asked = (panel.targets ?? []).map(target => ask(target, prometheus, substitute(target.expr, choices)))
    answers.set(panel, (await Promise.all(asked)).flat())
  }
  return answers
}

async function ask(target: Target, prometheus: PrometheusServer, expr: string): Promise<readonly Series[]> {
  const answered = target.instant ? await prometheus.query(expr) : await prometheus.queryRange(expr, 150)
  const series = answered.map(({ labels, times, values }) => ({
    labels,
    times,
    values,
    refId: target.refId,
    name: named(target.legendFormat, labels),
  }))
  return target.instant ? series : series.sort((one, other) => one.name.localeCompare(other.name))
}

const named = (legend: string, labels: Readonly<Record<string, string>>): string =>
  legend.replace(/\{\{(\w+)\}\}/g, (_, label: string) => labels[label] ?? '')
