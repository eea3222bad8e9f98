import { writeFileSync } from 'node:fs'
import { renderDashboards } from './render.ts'

// npm run dashboards: writes grafana/dashboards/*.json. With --preview also docs/images/grafana-*.png, from a run of a minute.
for (const [file, json] of renderDashboards()) writeFileSync(new URL(`../dashboards/${file}`, import.meta.url), json)

if (process.argv.includes('--preview')) {
  const { preview } = await import('../preview/preview.ts')
  await preview(60)
}
