import { randomUUID } from 'node:crypto'
import type { Clock } from '../../clock.ts'
import { formatAddress } from '../../config/address.ts'
import type { RedisConfig } from '../../config/config.ts'
import { describeSystemError } from '../../config/secrets.ts'
import { formatSize } from '../../config/size.ts'
import { createRedisClient, passwordOf, type RedisClient } from '../../store/redis-client.ts'
import { isReply, RedisFailure, redisFailure } from '../../store/redis-error.ts'
import type { Check, CheckContext } from './check.ts'

/** Whether Redis does what Layover asks of it: every command that is used, under our own keys, which are removed again. */
export function redisCheck(config: RedisConfig, clock: Clock): Check {
  return { name: 'redis', run: context => examine(context, config, clock) }
}

async function examine(context: CheckContext, config: RedisConfig, clock: Clock): Promise<void> {
  const where = describeEndpoint(config)
  context.step(`connecting to ${where}`)
  let password: string | undefined
  try {
    password = passwordOf(config)
  } catch (error) {
    return context.fail(`redis.passwordFile cannot be read: ${describeSystemError(error)}`, 'see path and owner')
  }
  const client = createRedisClient(config, password)
  try {
    await connected(client, context.signal)
    await examineConnected(context, { client, config, clock, where })
  } catch (error) {
    context.signal.throwIfAborted()
    const failure = redisFailure(error)
    context.fail(`${where}: ${failure.message}`, adviceFor(failure))
  } finally {
    client.disconnect()
  }
}

/** Resolves when commands are taken. Rejects when the first attempt to connect ended. */
function connected(client: RedisClient, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    let last: unknown
    client.on('error', (error: unknown) => {
      last = error
    })
    client.once('ready', () => resolve())
    client.once('close', () => reject(last ?? new RedisFailure('UNAVAILABLE', 'Redis closed the connection')))
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}

type Connected = {
  readonly client: RedisClient
  readonly config: RedisConfig
  readonly clock: Clock
  readonly where: string
}

async function examineConnected(context: CheckContext, { client, config, clock, where }: Connected): Promise<void> {
  const prefix = `${config.keyPrefix}:1:`
  const trial = new CommandTrial(client, `${prefix}doctor:{${randomUUID()}}`)
  context.step(`INFO of ${where}`)
  const info = await infoOf(client)
  // Writing there would only make the client look for the master again.
  if (info?.get('role') === 'slave') return context.fail(`${where} is a replica, which takes no writes`, masterAdvice)
  context.step(`commands at ${where}`)
  const latencyMs = await trial.latency(clock)
  await trial.run()
  const version = info?.get('redis_version')
  const shown = `${where}: ${version === undefined ? '' : `Redis ${version}, `}${latencyMs.toFixed(1)} ms`
  if (trial.denied.length > 0) context.fail(`${shown}; the ACL user may not run: ${trial.denied.join(', ')}`, aclAdvice)
  if (trial.keysDenied) context.fail(`${shown}; the ACL user may not use keys under ${prefix}`, aclAdvice)
  if (trial.failure !== undefined)
    context.fail(`${shown}; ${trial.failure.command}: ${trial.failure.error.message}`, adviceFor(trial.failure.error))
  if (trial.isRight) context.ok(`${shown}, a write, a read and a removal under ${prefix} work`)
  if (latencyMs > config.commandTimeoutMs / 2)
    context.warn(
      `${where} takes ${latencyMs.toFixed(0)} ms for one command; after ${config.commandTimeoutMs} ms it is a miss`,
      'bring it closer, or see what keeps it busy; redis.commandTimeout is the limit',
    )
  if (info === undefined)
    context.warn(`${where}: INFO is refused, so version and memory policy are unknown`, 'allow +info (docs/redis.md)')
  else judgeInfo(context, info, where)
}

type Commands = readonly (readonly [name: string, run: () => Promise<unknown>])[]

/** Runs every command once, and keeps which ones Redis refused, by name. */
class CommandTrial {
  readonly denied: string[] = []
  keysDenied = false
  failure: { readonly command: string; readonly error: RedisFailure } | undefined
  readonly #client: RedisClient
  readonly #key: string

  constructor(client: RedisClient, key: string) {
    this.#client = client
    this.#key = key
  }

  get isRight(): boolean {
    return this.denied.length === 0 && !this.keysDenied && this.failure === undefined
  }

  /** Milliseconds of one round trip, the middle of five. Uses GET: PING is none of the commands that the ACL user needs. */
  async latency(clock: Clock): Promise<number> {
    const times: number[] = []
    for (let count = 0; count < 5; count++) {
      const started = clock.monotonic()
      try {
        await this.#client.get(this.#key)
      } catch (error) {
        if (!isReply(redisFailure(error))) throw error
      }
      times.push(clock.monotonic() - started)
    }
    return times.toSorted((one, other) => one - other)[2] ?? 0
  }

  async run(): Promise<void> {
    for (const [name, command] of this.#commands()) {
      await this.#try(name, command)
      // The client leaves a replica that it took for the master: what comes after it would only say that it is gone.
      if (this.failure?.error.code === 'READONLY') return
    }
  }

  #commands(): Commands {
    const client = this.#client
    const [text, set, sorted] = [this.#key, `${this.#key}:s`, `${this.#key}:z`]
    const value = randomUUID()
    return [
      // Whatever happens after it, it is gone in a minute.
      ['set', () => client.set(text, value, 'PX', 60_000)],
      [
        'get',
        async () => {
          const found = await client.get(text)
          if (found !== value && !this.denied.includes('set') && !this.keysDenied)
            throw new RedisFailure('WRONG', 'what was written is not what is read: is it a replica that lags behind?')
        },
      ],
      ['sadd', () => client.sadd(set, 'a')],
      ['zadd', () => client.zadd(sorted, 1, 'a')],
      ['pexpire', () => Promise.all([set, sorted].map(key => client.pexpire(key, 60_000)))],
      ['pttl', () => client.pttl(text)],
      ['scard', () => client.scard(set)],
      ['srem', () => client.srem(set, 'a')],
      ['zrange', () => client.zrange(sorted, '0', '-1')],
      ['zremrangebyscore', () => client.zremrangebyscore(sorted, '-inf', 0)],
      ['zremrangebyrank', () => client.zremrangebyrank(sorted, 5, 6)],
      ['zrem', () => client.zrem(sorted, 'a')],
      ['time', () => client.time()],
      ['eval', () => client.eval("return redis.call('GET', KEYS[1])", 1, text)],
      // Each alone: in a cluster keys of several slots do not go together.
      ['del', () => Promise.all([text, set, sorted].map(key => client.del(key)))],
    ]
  }

  async #try(name: string, command: () => Promise<unknown>): Promise<void> {
    try {
      await command()
    } catch (error) {
      const failure = redisFailure(error)
      if (!isReply(failure)) throw failure
      if (failure.code !== 'NOPERM') this.failure ??= { command: name, error: failure }
      else if (isAboutKeys(error)) this.keysDenied = true
      else this.denied.push(name)
    }
  }
}

/** Redis 6: "access one of the keys used as arguments"; 7: "No permissions to access a key". */
const isAboutKeys = (error: unknown): boolean => error instanceof Error && /\baccess\b.*\bkeys?\b/i.test(error.message)

/** Undefined when it is refused. */
async function infoOf(client: RedisClient): Promise<ReadonlyMap<string, string> | undefined> {
  try {
    const lines = (await client.info()).split(/\r?\n/)
    return new Map(lines.filter(line => line.includes(':')).map(line => splitOnce(line)))
  } catch (error) {
    if (isReply(redisFailure(error))) return undefined
    throw error
  }
}

function splitOnce(line: string): [string, string] {
  const at = line.indexOf(':')
  return [line.slice(0, at), line.slice(at + 1)]
}

function judgeInfo(context: CheckContext, info: ReadonlyMap<string, string>, where: string): void {
  const major = Number.parseInt(info.get('redis_version') ?? '', 10)
  if (major < 6)
    context.fail(`${where}: Redis ${info.get('redis_version')} is too old`, 'use Redis 6 or newer, or Valkey')
  const maxMemory = Number(info.get('maxmemory') ?? 0)
  const policy = info.get('maxmemory_policy') ?? 'unknown'
  if (maxMemory === 0)
    context.warn(`${where}: no maxmemory, so it grows as long as the machine has memory`, memoryAdvice)
  else if (policy === 'noeviction')
    context.warn(
      `${where}: maxmemory ${formatSize(maxMemory)} with noeviction, so a full Redis keeps nothing new`,
      memoryAdvice,
    )
  else context.ok(`${where}: maxmemory ${formatSize(maxMemory)}, ${policy}, ${persistenceOf(info)}`)
  if (info.get('rdb_last_bgsave_status') === 'err')
    context.warn(
      `${where}: its last snapshot failed, so it may refuse writes (MISCONF)`,
      'give it disk space, or turn snapshots off: Layover does not need them',
    )
}

const persistenceOf = (info: ReadonlyMap<string, string>): string =>
  info.get('aof_enabled') === '1' ? 'append-only file on' : 'append-only file off (it is not needed)'

const memoryAdvice = 'set maxmemory, and maxmemory-policy allkeys-lru: the least used records go first (docs/redis.md)'
const masterAdvice = 'name the master, or the sentinels that know it'
const aclAdvice = 'docs/redis.md has the line for the ACL user'

function adviceFor({ code }: RedisFailure): string {
  return advices[code] ?? 'see that address, port and TLS setting are right and that no firewall is between'
}

const advices: Readonly<Record<string, string>> = {
  NOAUTH: 'set redis.passwordFile',
  WRONGPASS: 'see whether redis.username and redis.passwordFile are right',
  NOPERM: aclAdvice,
  OOM: memoryAdvice,
  READONLY: masterAdvice,
  MISCONF: 'give Redis disk space, or turn snapshots off: Layover does not need them',
  CLUSTERDOWN: 'see CLUSTER NODES: every slot needs a master that works',
  LOADING: 'wait until it has read its data, then run this again',
  WRONG: masterAdvice,
}

/** Host and port alone: a URL may hold a password. */
function describeEndpoint({ endpoint }: RedisConfig): string {
  if (endpoint.kind === 'url') {
    const { hostname, port } = new URL(endpoint.url)
    return `${hostname}:${port === '' ? 6379 : port}`
  }
  const nodes = endpoint.kind === 'sentinels' ? endpoint.sentinels : endpoint.nodes
  const addresses = nodes.map(formatAddress).join(', ')
  return endpoint.kind === 'sentinels' ? `${endpoint.name} of sentinels ${addresses}` : `cluster ${addresses}`
}
