import { assemble } from './frame.ts'
import { operations } from './operations.ts'
import { overview } from './overview.ts'
import { upstreams } from './upstreams.ts'

/** The dashboards as they are committed, by file name. */
export function renderDashboards(): ReadonlyMap<string, string> {
  const dashboards = { overview, operations, upstreams }
  return new Map(
    Object.entries(dashboards).map(([name, spec]) => [
      `${name}.json`,
      `${JSON.stringify(assemble(spec), undefined, 2)}\n`,
    ]),
  )
}
