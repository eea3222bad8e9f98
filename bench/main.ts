import { mkdir, writeFile } from 'node:fs/promises'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { scratch } from '../test/real/harness/process.ts'
import { type Bar, isMet, type Verdict } from './bar.ts'
import { cold } from './bars/cold.ts'
import { firstByte } from './bars/first-byte.ts'
import { manifest } from './bars/manifest.ts'
import { stalledReaders } from './bars/stalled.ts'
import { start } from './bars/start.ts'
import { warmBlob } from './bars/warm-blob.ts'
import { startUpstream } from './servers.ts'
import { plantTree } from './tree.ts'

/** `npm run bench [-- name…] [--runs 5]`: measures the bars beside their peers, prints a table, writes `bench/results/latest.json`. */

const bars: readonly Bar[] = [cold, firstByte, warmBlob, manifest, stalledReaders, start]
const results = join(import.meta.dirname, 'results')

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: { runs: { type: 'string', default: '5' } },
    allowPositionals: true,
  })
  const runs = Number(values.runs)
  const chosen = bars.filter(({ name }) => positionals.length === 0 || positionals.includes(name))
  if (chosen.length === 0 || !Number.isInteger(runs) || runs < 1) {
    process.stderr.write(`npm run bench -- [${bars.map(({ name }) => name).join('|')}]… [--runs 5]\n`)
    return 2
  }
  await using undo = new AsyncDisposableStack()
  const directory = await scratch('bench')
  undo.defer(() => directory.remove())
  const tree = await plantTree(directory.path)
  const upstream = await startUpstream(tree)
  undo.defer(() => upstream.close())

  const verdicts: Verdict[] = []
  for (const bar of chosen)
    verdicts.push(...(await bar.measure({ tree, upstream, runs, say: text => void process.stderr.write(`${text}\n`) })))
  process.stdout.write(`\n${table(verdicts)}\n`)
  await mkdir(results, { recursive: true })
  await writeFile(join(results, 'latest.json'), `${JSON.stringify(report(runs, verdicts), undefined, 2)}\n`)
  return verdicts.some(verdict => isMet(verdict) === false) ? 1 : 0
}

function report(runs: number, verdicts: readonly Verdict[]): unknown {
  const machine = { node: process.version, cpu: cpus()[0]?.model, cores: cpus().length }
  return { at: new Date().toISOString(), machine, runs, verdicts: verdicts.map(v => ({ ...v, met: isMet(v) })) }
}

function table(verdicts: readonly Verdict[]): string {
  return verdicts
    .map(verdict => [word(verdict), figure(verdict).padStart(16), limit(verdict).padEnd(10), verdict.what].join('  '))
    .join('\n')
}

function word(verdict: Verdict): string {
  const met = isMet(verdict)
  if (met === undefined) return '    '
  return met ? 'pass' : 'MISS'
}

const figure = ({ value, unit }: Verdict): string => `${digits(value)} ${unit}`.trim()
const digits = (value: number): string =>
  Number.isInteger(value) || value >= 1000 ? value.toFixed(0) : value.toFixed(value < 10 ? 3 : 1)

function limit({ limit: bar }: Verdict): string {
  if (bar === undefined) return ''
  if ('atMost' in bar) return `≤ ${bar.atMost}`
  return 'atLeast' in bar ? `≥ ${bar.atLeast}` : `= ${bar.exactly}`
}

process.exitCode = await main()
