import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Redis } from 'ioredis'
import type { RedisConfig, RedisEndpoint } from '../../src/config/config.ts'
import { freePorts } from './ports.ts'

/** A real redis-server on a loopback port of its own, without persistence. */
export class RedisServer {
  readonly port: number
  readonly #directory: string
  readonly #command: readonly string[]
  #process: ChildProcess | undefined
  #admin: Redis | undefined

  private constructor(port: number, directory: string, command: readonly string[]) {
    this.port = port
    this.#directory = directory
    this.#command = command
  }

  /** `options` as in redis.conf: `['maxmemory', '2mb']`. */
  static async start(...options: readonly (readonly string[])[]): Promise<RedisServer> {
    const [port = 0, busPort = 0] = await freePorts(2)
    const directory = mkdtempSync(join(tmpdir(), 'layover-redis-'))
    const settings = [
      ['port', String(port)],
      ['bind', '127.0.0.1'],
      ['dir', directory],
      ['save', ''],
      ['appendonly', 'no'],
      ...options.flatMap(option =>
        option[0] === 'cluster-enabled' ? [option, ['cluster-port', String(busPort)]] : [option],
      ),
    ]
    const server = new RedisServer(
      port,
      directory,
      settings.flatMap(([name, ...values]) => [`--${name}`].concat(values)),
    )
    await server.run()
    return server
  }

  /** A sentinel that watches `master` under the name `cache` and decides alone. */
  static async startSentinel(master: RedisServer): Promise<RedisServer> {
    const [port = 0] = await freePorts(1)
    const directory = mkdtempSync(join(tmpdir(), 'layover-sentinel-'))
    const file = join(directory, 'sentinel.conf')
    writeFileSync(
      file,
      [
        `port ${port}`,
        'bind 127.0.0.1',
        `dir ${directory}`,
        `sentinel monitor cache 127.0.0.1 ${master.port} 1`,
        'sentinel down-after-milliseconds cache 500',
        'sentinel failover-timeout cache 2000',
        '',
      ].join('\n'),
    )
    const server = new RedisServer(port, directory, [file, '--sentinel'])
    await server.run()
    return server
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}/0`
  }

  get address(): { readonly host: string; readonly port: number } {
    return { host: '127.0.0.1', port: this.port }
  }

  /** A connection that may do everything, to look and to break things. */
  get admin(): Redis {
    if (this.#admin) return this.#admin
    this.#admin = new Redis({ ...this.address, protocol: 2, disableClientInfo: true, retryStrategy: () => 20 })
    this.#admin.on('error', () => {})
    return this.#admin
  }

  /** Starts it, again after `kill`, with nothing in it. Resolves when it answers. */
  async run(): Promise<void> {
    this.#process = spawn('redis-server', this.#command, { stdio: 'ignore' })
    await until(async () => (await this.admin.ping()) === 'PONG')
  }

  async kill(): Promise<void> {
    const running = this.#process
    this.#process = undefined
    if (running === undefined) return
    const ended = once(running, 'exit')
    running.kill('SIGKILL')
    await ended
  }

  /** It keeps its connections, takes new ones, and answers nothing. */
  stand(): void {
    this.#process?.kill('SIGSTOP')
  }

  goOn(): void {
    this.#process?.kill('SIGCONT')
  }

  async stop(): Promise<void> {
    this.#admin?.disconnect()
    await this.kill()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** Three masters that share the slots. */
export async function startRedisCluster(...options: readonly (readonly string[])[]): Promise<readonly RedisServer[]> {
  const nodes = await Promise.all(
    [0, 1, 2].map(() => RedisServer.start(['cluster-enabled', 'yes'], ['cluster-node-timeout', '2000'], ...options)),
  )
  const share = Math.ceil(16_384 / nodes.length)
  for (const [index, node] of nodes.entries()) {
    await node.admin.call('CLUSTER', 'SET-CONFIG-EPOCH', String(index + 1))
    const last = Math.min((index + 1) * share, 16_384) - 1
    await node.admin.call('CLUSTER', 'ADDSLOTSRANGE', String(index * share), String(last))
  }
  const [first] = nodes
  const myself = String(await first?.admin.call('CLUSTER', 'NODES'))
  const bus = /@(\d+)/.exec(myself)?.[1] ?? ''
  for (const node of nodes.slice(1)) await node.admin.call('CLUSTER', 'MEET', '127.0.0.1', String(first?.port), bus)
  for (const node of nodes)
    await until(async () => {
      const info = String(await node.admin.call('CLUSTER', 'INFO'))
      return info.includes('cluster_state:ok') && info.includes('cluster_known_nodes:3')
    })
  return nodes
}

export type SentinelSetUp = {
  readonly master: RedisServer
  readonly replica: RedisServer
  readonly sentinel: RedisServer
}

/** A master, one replica, and a sentinel that knows both. */
export async function startRedisSentinel(): Promise<SentinelSetUp> {
  const master = await RedisServer.start(['repl-diskless-sync-delay', '0'])
  const replica = await RedisServer.start(['replicaof', '127.0.0.1', String(master.port)])
  await until(async () => (await replica.admin.info('replication')).includes('master_link_status:up'))
  const sentinel = await RedisServer.startSentinel(master)
  await until(async () => {
    const known = await sentinel.admin.call('SENTINEL', 'REPLICAS', 'cache')
    return Array.isArray(known) && known.length === 1
  })
  return { master, replica, sentinel }
}

let prefixes = 0

/** A configuration with a key prefix that nobody else has. */
export function redisConfig(endpoint: RedisEndpoint, rest: Partial<RedisConfig> = {}): RedisConfig {
  return {
    endpoint,
    username: undefined,
    password: undefined,
    passwordFile: undefined,
    sentinelUsername: undefined,
    sentinelPassword: undefined,
    tls: undefined,
    keyPrefix: `test${++prefixes}`,
    commandTimeoutMs: 250,
    ...rest,
  }
}

/** Asks until it is so. What throws is not so yet. */
export async function until(isSo: () => Promise<boolean> | boolean, withinMs = 15_000): Promise<void> {
  const end = performance.now() + withinMs
  let last: unknown
  while (performance.now() < end) {
    try {
      if (await isSo()) return
    } catch (error) {
      last = error
    }
    await pause(20)
  }
  throw new Error(`it did not come to be so within ${withinMs} ms`, { cause: last })
}
