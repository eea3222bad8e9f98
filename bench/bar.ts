import { join } from 'node:path'
import { spawn } from 'node:child_process'
import { runOk } from '../test/real/harness/process.ts'
import type { PullPlan, PullReport } from './puller.ts'
import type { Server, UpstreamServer } from './servers.ts'
import type { Tree } from './tree.ts'

/** What every bar gets to work with. */
export type Bench = {
  readonly tree: Tree
  readonly upstream: UpstreamServer
  readonly runs: number
  /** One line of progress. */
  readonly say: (text: string) => void
}

/** One bar: a promise about speed, a way to measure it, and where the limit is. */
export type Bar = {
  readonly name: string
  /** Needs a loopback with smaller buffers than the system's, see `network.ts`. */
  readonly ownNetwork?: boolean
  measure(bench: Bench): Promise<readonly Verdict[]>
}

export type Verdict = {
  readonly what: string
  readonly value: number
  /** `×`, `ms`, `MiB`, … */
  readonly unit: string
  /** Absent: a figure for comparison, without a bar. */
  readonly limit?: undefined | { readonly atMost: number } | { readonly atLeast: number } | { readonly exactly: number }
  /** Every run's figure, in order. */
  readonly samples: readonly number[]
}

export function isMet({ value, limit }: Verdict): boolean | undefined {
  if (limit === undefined) return undefined
  if ('atMost' in limit) return value <= limit.atMost
  return 'atLeast' in limit ? value >= limit.atLeast : value === limit.exactly
}

const puller = join(import.meta.dirname, 'puller.ts')

/** Runs the load clients against a server. Rejects when one of them did not get what it asked for. */
export async function pull(server: Pick<Server, 'name' | 'port'>, plan: Omit<PullPlan, 'port'>): Promise<PullReport> {
  return checked(server.name, await attemptPull(server, plan))
}

/** Like {@link pull}, with what failed in the report: a peer that breaks under load is a finding, not the end of the bench. */
export async function attemptPull(server: Pick<Server, 'port'>, plan: Omit<PullPlan, 'port'>): Promise<PullReport> {
  const output = await runOk(process.execPath, [puller, JSON.stringify({ ...plan, port: server.port })])
  return JSON.parse(output) as PullReport
}

/** Starts load clients that stop to read after some bytes and stay; resolves when all of them stopped. */
export async function stall(
  server: Server,
  plan: Omit<PullPlan, 'port'> & { readonly stallAfterBytes: number },
): Promise<{ readonly report: Promise<PullReport>; end(): void }> {
  const child = spawn(process.execPath, [puller, JSON.stringify({ ...plan, port: server.port })], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const report = new Promise<PullReport>((resolve, reject) => {
    let text = ''
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text.endsWith('\n')) resolve(JSON.parse(text) as PullReport)
    })
    child.on('error', reject)
    child.on('close', () => reject(new Error('the stalled clients ended early')))
  })
  // Whoever ends it early does not wait for it.
  report.catch(() => undefined)
  return {
    report: report.then(found => checked(server.name, found)),
    end: () => void child.kill('SIGKILL'),
  }
}

function checked(name: string, report: PullReport): PullReport {
  const [first] = report.failures
  if (first !== undefined) throw new Error(`${name}: ${report.failures.length} requests failed, the first: ${first}`)
  return report
}

/** Starts a server, works with it, and ends it whatever happens. */
export async function withServer<S extends { close(): Promise<void> }, Result>(
  starting: Promise<S>,
  work: (server: S) => Promise<Result>,
): Promise<Result> {
  const server = await starting
  try {
    return await work(server)
  } finally {
    await server.close()
  }
}
