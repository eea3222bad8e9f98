import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'
import { drawDashboard } from './draw.ts'
import { evaluate } from './evaluate.ts'
import type { Dashboard } from './panel.ts'
import { run } from './run.ts'

const pathOf = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const browser = process.env['CHROMIUM'] ?? '/usr/bin/chromium'

/** Draws the committed dashboards from a real run of so many seconds, as PNG files in docs/images. Needs prometheus, redis-server and chromium. */
export async function preview(seconds: number): Promise<void> {
  const running = await run(seconds)
  const folder = await mkdtemp(join(tmpdir(), 'layover-pages-'))
  try {
    await mkdir(pathOf('docs/images'), { recursive: true })
    for (const name of ['overview', 'operations', 'upstreams']) {
      const dashboard = JSON.parse(await readFile(pathOf(`grafana/dashboards/${name}.json`), 'utf8')) as Dashboard
      const answers = await evaluate(dashboard, running.prometheus, {
        jobs: ['layover'],
        rateInterval: '6s',
        range: `${seconds}s`,
      })
      const page = join(folder, `${name}.html`)
      await writeFile(page, drawDashboard(dashboard, answers, running))
      await photograph(page, pathOf(`docs/images/grafana-${name}.png`))
    }
  } finally {
    await running.close()
    await rm(folder, { recursive: true })
  }
}

async function photograph(page: string, picture: string): Promise<void> {
  const launched = await chromium.launch({ executablePath: browser, args: ['--no-sandbox'] })
  try {
    const tab = await launched.newPage({ viewport: { width: 1472, height: 900 } })
    await tab.goto(pathToFileURL(page).href)
    await tab.screenshot({ path: picture, fullPage: true })
  } finally {
    await launched.close()
  }
}
