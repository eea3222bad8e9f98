import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from './ports.ts'
import { until } from './redis.ts'

export type ScrapeTarget = {
  readonly job: string
  /** `http://127.0.0.1:port` of an admin listener. */
  readonly url: string
}

/** One series of an answer: its labels, its values, oldest first, and the epoch seconds of each. */
export type Answered = {
  readonly labels: Readonly<Record<string, string>>
  readonly values: readonly number[]
  readonly times: readonly number[]
}

export type LoadedRule = { readonly name: string; readonly health: string; readonly lastError?: string }

/** A real Prometheus on a loopback port of its own that scrapes every second, itself too. Debian has it in the package prometheus. */
export class PrometheusServer {
  readonly url: string
  readonly startedAt = Date.now()
  readonly #directory: string
  readonly #process: ChildProcess

  private constructor(url: string, directory: string, process: ChildProcess) {
    this.url = url
    this.#directory = directory
    this.#process = process
  }

  /** `rules`: absolute paths of rule files. Resolves when it answers. */
  static async start(targets: readonly ScrapeTarget[], rules: readonly string[] = []): Promise<PrometheusServer> {
    const port = await freePort()
    const directory = mkdtempSync(join(tmpdir(), 'layover-prometheus-'))
    const config = join(directory, 'prometheus.json')
    // YAML is a superset of JSON.
    writeFileSync(
      config,
      JSON.stringify(configuration([...targets, { job: 'prometheus', url: `http://127.0.0.1:${port}` }], rules)),
    )
    const flags = [
      `--config.file=${config}`,
      `--storage.tsdb.path=${join(directory, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--log.level=error',
    ]
    const server = new PrometheusServer(
      `http://127.0.0.1:${port}`,
      directory,
      spawn('prometheus', flags, { stdio: ['ignore', 'ignore', 'inherit'] }),
    )
    try {
      // An `error` before that is a program that is not there.
      await once(server.#process, 'spawn')
      await until(async () => (await fetch(`${server.url}/-/ready`)).ok, 30_000)
    } catch (error) {
      await server.stop()
      throw error
    }
    return server
  }

  /** The answer now. Throws what Prometheus has to say against the expression. */
  query(expr: string): Promise<readonly Answered[]> {
    return this.#ask('query', { query: expr })
  }

  /** The answers from the start of this server to now, at `points` points. */
  queryRange(expr: string, points = 60): Promise<readonly Answered[]> {
    // The last point lies after the last scrape.
    const [start, end] = [this.startedAt / 1000, Date.now() / 1000 + 1]
    const step = Math.max(0.5, (end - start) / points)
    return this.#ask('query_range', { query: expr, start: String(start), end: String(end), step: String(step) })
  }

  async labelValues(label: string, ...match: readonly string[]): Promise<readonly string[]> {
    const query = new URLSearchParams(match.map(one => ['match[]', one]))
    return (await this.#get(`label/${label}/values?${query.toString()}`)) as string[]
  }

  async rules(): Promise<readonly LoadedRule[]> {
    const { groups } = (await this.#get('rules')) as { groups: { rules: LoadedRule[] }[] }
    return groups.flatMap(group => group.rules)
  }

  /** `LayoverDown firing`, `LayoverDown pending`, … as of the last evaluation. */
  async activeAlerts(): Promise<readonly string[]> {
    const { alerts } = (await this.#get('alerts')) as {
      alerts: { labels: { alertname: string }; state: string }[]
    }
    return alerts.map(({ labels, state }) => `${labels.alertname} ${state}`)
  }

  /** Resolves when each of so many targets was scraped after `since`, epoch milliseconds. */
  async scraped(targets: number, since = Date.now()): Promise<void> {
    await until(async () => {
      const answered = await this.query('timestamp(layover_build_info)')
      return answered.length === targets && answered.every(({ values: [seconds = 0] }) => seconds * 1000 > since)
    }, 60_000)
  }

  async stop(): Promise<void> {
    if (this.#process.pid !== undefined && this.#process.exitCode === null) {
      const ended = once(this.#process, 'exit')
      this.#process.kill('SIGKILL')
      await ended
    }
    rmSync(this.#directory, { recursive: true, force: true })
  }

  async #ask(way: 'query' | 'query_range', parameters: Readonly<Record<string, string>>): Promise<readonly Answered[]> {
    const data = (await this.#get(`${way}?${new URLSearchParams(parameters).toString()}`)) as {
      resultType: string
      result: { metric: Record<string, string>; value?: [number, string]; values?: [number, string][] }[]
    }
    if (data.resultType === 'scalar') throw new Error('the answer is no vector, which a panel cannot show')
    return data.result.map(({ metric, value, values = value ? [value] : [] }) => ({
      labels: metric,
      values: values.map(([, text]) => Number(text)),
      times: values.map(([seconds]) => seconds),
    }))
  }

  async #get(path: string): Promise<unknown> {
    const response = await fetch(`${this.url}/api/v1/${path}`)
    const { status, data, error } = (await response.json()) as { status: string; data?: unknown; error?: string }
    if (status !== 'success') throw new Error(`Prometheus: ${error}`)
    return data
  }
}

function configuration(targets: readonly ScrapeTarget[], rules: readonly string[]): object {
  const jobs = [...new Set(targets.map(({ job }) => job))]
  return {
    global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
    rule_files: rules,
    scrape_configs: jobs.map(job => ({
      job_name: job,
      static_configs: [{ targets: targets.filter(target => target.job === job).map(({ url }) => new URL(url).host) }],
    })),
  }
}
