import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { createMetrics } from '../../src/metrics/metrics.ts'
import { defineSeries } from '../../src/metrics/series.ts'
import { parseExposition } from './exposition.ts'

const page = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8')

/** Name and labels of each metric, as the tables of docs/metrics.md have them. */
function described(): ReadonlyMap<string, readonly string[]> {
  const rows = [...page.matchAll(/^\| `(layover_[a-z0-9_]+)` \| ([^|]*)\|/gm)]
  return new Map(
    rows.map(([, name = '', labels = '']) => [name, [...labels.matchAll(/`([a-z_]+)`/g)].map(each => each[1] ?? '')]),
  )
}

test('docs/metrics.md has every metric of Layover, with its labels, and no other', async () => {
  const { body } = await createMetrics({ upstreams: ['docker.io'], version: '1' }).render()
  const exposed = [...parseExposition(body).families.keys()].filter(name => name.startsWith('layover_'))
  expect([...described().keys()].sort()).toEqual(exposed.sort())
  const labels = new Map(defineSeries().exposed.map(({ name, labels: names }) => [name, names]))
  expect(described()).toEqual(new Map([...described().keys()].map(name => [name, labels.get(name)])))
})

test('no metric has a label that a client can fill', () => {
  const labels = new Set(defineSeries().exposed.flatMap(({ labels: names }) => names))
  expect([...labels].sort()).toEqual([
    'cause',
    'code',
    'currency',
    'direction',
    'kind',
    'link',
    'node',
    'operation',
    'outcome',
    'reason',
    'result',
    'source',
    'upstream',
    'version',
  ])
})
