import { writeFileSync } from 'node:fs'
import { renderDashboards } from './render.ts'

// npm run dashboards: writes grafana/dashboards/*.json.
for (const [file, json] of renderDashboards()) writeFileSync(new URL(`../dashboards/${file}`, import.meta.url), json)
