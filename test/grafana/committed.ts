import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import type { Panel as DrawnPanel } from '../../grafana/preview/panel.ts'

export type { Target } from '../../grafana/preview/panel.ts'

export type Panel = Omit<DrawnPanel, 'panels'> & {
  readonly id: number
  readonly description?: string
  readonly datasource?: { readonly uid?: string }
  readonly collapsed?: boolean
  readonly panels?: readonly Panel[]
}

export type Variable = {
  readonly name: string
  readonly type: string
  readonly query: string | { readonly query: string }
  readonly allValue?: string
}

export type Dashboard = {
  readonly uid: string
  readonly title: string
  readonly tags: readonly string[]
  readonly links: readonly { readonly type: string; readonly tags: readonly string[]; readonly includeVars: boolean }[]
  readonly templating: { readonly list: readonly Variable[] }
  readonly panels: readonly Panel[]
}

export type Rule = {
  readonly alert?: string
  readonly record?: string
  readonly expr: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
}

export const pathOf = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))
export const read = (path: string): string => readFileSync(pathOf(path), 'utf8')

/** The dashboards as Grafana gets them, by file name. */
export const dashboards: ReadonlyMap<string, Dashboard> = new Map(
  readdirSync(pathOf('grafana/dashboards')).map(file => [
    file,
    JSON.parse(read(`grafana/dashboards/${file}`)) as Dashboard,
  ]),
)

/** Those in closed rows too, without the rows. */
export function panelsOf({ panels }: Dashboard): readonly Panel[] {
  return panels.flatMap(panel => (panel.type === 'row' ? (panel.panels ?? []) : [panel]))
}

export const rulesFile = pathOf('deploy/prometheus/rules.yml')
export const rules = (parse(read('deploy/prometheus/rules.yml')) as { groups: { rules: Rule[] }[] }).groups.flatMap(
  group => group.rules,
)
export const alerts = rules.filter((rule): rule is Rule & { alert: string } => rule.alert !== undefined)
