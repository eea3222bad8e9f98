import { writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { request } from 'undici'
import { freePort } from '../../fakes/ports.ts'
import { type Running, scratch, start } from './process.ts'

const main = resolve(import.meta.dirname, '../../../src/main.ts')

/** `layover serve` as an operator runs it: a process, a configuration file, two ports. */
export type LayoverProcess = {
  /** `127.0.0.1:<port>` of the registry. */
  readonly host: string
  readonly url: string
  readonly adminUrl: string
  readonly dataDir: string
  readonly pid: () => number
  output(): string
  /** `kill -9`; the data directory stays. */
  kill(): Promise<void>
  startAgain(): Promise<void>
  /** Ends it and removes its data. */
  close(): Promise<void>
}

export type LayoverOptions = {
  /** By upstream name, the keys of the configuration file; false removes one that is built in. */
  readonly upstreams: Readonly<Record<string, Readonly<Record<string, unknown>> | false>>
  /** More top-level keys of the configuration file. */
  readonly settings?: Readonly<Record<string, unknown>>
  /** Variables beside PATH and HOME. */
  readonly env?: Readonly<Record<string, string>>
}

/** Starts it on a new data directory; resolves when `/readyz` answers 200. */
export async function startLayoverProcess({
  upstreams,
  settings = {},
  env = {},
}: LayoverOptions): Promise<LayoverProcess> {
  const directory = await scratch('serve')
  const dataDir = join(directory.path, 'data')
  const configPath = join(directory.path, 'layover.yaml')
  const host = `127.0.0.1:${await freePort()}`
  const admin = `127.0.0.1:${await freePort()}`
  // JSON is YAML.
  await writeFile(configPath, JSON.stringify({ listen: host, admin, dataDir, upstreams, ...settings }))
  const launch = (): Promise<Running> =>
    start({
      command: process.execPath,
      args: [main, 'serve', '--config', configPath],
      env,
      ready: async () => {
        const answer = await request(`http://${admin}/readyz`).catch(() => undefined)
        await answer?.body.dump()
        return answer?.statusCode === 200
      },
    })
  let running = await launch()
  return {
    host,
    url: `http://${host}`,
    adminUrl: `http://${admin}`,
    dataDir,
    pid: () => running.pid,
    output: () => running.output(),
    kill: () => running.end('SIGKILL'),
    async startAgain() {
      running = await launch()
    },
    async close() {
      await running.end()
      await directory.remove()
    },
  }
}
