import { mkdir, writeFile } from 'node:fs/promises'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { scratch } from '../test/real/harness/process.ts'
import { type Bar, isMet, type Verdict } from './bar.ts'
import { cold } from './bars/cold.ts'
import { firstByte } from './bars/first-byte.ts'
import { fleet } from './bars/fleet.ts'
import { fromBucket } from './bars/from-bucket.ts'
import { manifest } from './bars/manifest.ts'
import { metrics } from './bars/metrics.ts'
import { outage } from './bars/outage.ts'
import { ownerKilled } from './bars/owner-killed.ts'
import { page } from './bars/page.ts'
import { sharedTag } from './bars/shared-tag.ts'
import { stalledReaders } from './bars/stalled.ts'
import { start } from './bars/start.ts'
import { warmBlob } from './bars/warm-blob.ts'
import { hasOwnNetwork, runOnOwnNetwork } from './network.ts'
import { startUpstream } from './servers.ts'
import { plantTree } from './tree.ts'

/** `npm run bench [-- name…] [--runs 5]`: measures the bars beside their peers, prints a table, writes `bench/results/latest.json`. */

const oneMachine: readonly Bar[] = [cold, firstByte, warmBlob, manifest, metrics, stalledReaders, start, page]
const manyReplicas: readonly Bar[] = [fleet, ownerKilled, fromBucket, sharedTag, outage]
const bars = [...oneMachine, ...manyReplicas]
const results = join(import.meta.dirname, 'results')

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: {
      runs: { type: 'string', default: '5' },
      // Only the verdicts, as JSON: for a bench that runs a part of itself elsewhere.
      json: { type: 'boolean', default: false },
    },
    allowPositionals: true,
  })
  const runs = Number(values.runs)
  const chosen = bars.filter(({ name }) => positionals.length === 0 || positionals.includes(name))
  if (chosen.length === 0 || !Number.isInteger(runs) || runs < 1) {
    process.stderr.write(`npm run bench -- [${bars.map(({ name }) => name).join('|')}]… [--runs 5]\n`)
    return 2
  }
  const verdicts = await measureAll(chosen, runs, values.json)
  if (values.json) {
    process.stdout.write(JSON.stringify(verdicts))
    return 0
  }
  process.stdout.write(`\n${table(verdicts)}\n`)
  await mkdir(results, { recursive: true })
  await writeFile(join(results, 'latest.json'), `${JSON.stringify(report(runs, verdicts), undefined, 2)}\n`)
  return verdicts.some(verdict => isMet(verdict) === false) ? 1 : 0
}

async function measureAll(chosen: readonly Bar[], runs: number, isInside: boolean): Promise<readonly Verdict[]> {
  await using undo = new AsyncDisposableStack()
  const directory = await scratch('bench')
  undo.defer(() => directory.remove())
  const tree = await plantTree(directory.path)
  const upstream = await startUpstream(tree)
  undo.defer(() => upstream.close())
  const bench = { tree, upstream, runs, say: (text: string) => void process.stderr.write(`${text}\n`) }

  const separate = !isInside && chosen.some(({ ownNetwork }) => ownNetwork) && (await hasOwnNetwork())
  const verdicts: Verdict[] = []
  for (const bar of chosen)
    verdicts.push(...(await (bar.ownNetwork === true && separate ? measureElsewhere(bar, runs) : bar.measure(bench))))
  return verdicts
}

async function measureElsewhere({ name }: Bar, runs: number): Promise<readonly Verdict[]> {
  const command = [process.execPath, import.meta.filename, name, '--runs', String(runs), '--json']
  return JSON.parse(await runOnOwnNetwork(command)) as readonly Verdict[]
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
