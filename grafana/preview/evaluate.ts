import type { PrometheusServer } from '../../test/fakes/prometheus.ts'
import type { Answers } from './draw.ts'
import type { Dashboard, Panel, Series, Target } from './panel.ts'

/** As Grafana does with everything chosen: `$job` and the like are any, the windows are those given (`30s`). */
export function substitute(expr: string, { rateInterval, range }: { rateInterval: string; range: string }): string {
  return expr
    .replaceAll('$__rate_interval', rateInterval)
    .replaceAll('$__range', range)
    .replace(/\$(job|instance|upstream)\b/g, '.*')
}

/** What the panels of a dashboard show now. */
export async function evaluate(
  dashboard: Dashboard,
  prometheus: PrometheusServer,
  windows: { rateInterval: string; range: string },
): Promise<Answers> {
  const answers = new Map<Panel, readonly Series[]>()
  for (const panel of dashboard.panels.flatMap(panel => [panel, ...(panel.panels ?? [])])) {
    const asked = (panel.targets ?? []).map(target => ask(target, prometheus, substitute(target.expr, windows)))
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
