import type { RedisCommander } from 'ioredis'
import type { RedisConfig } from '../config/config.ts'
import type { Log } from '../log/log.ts'
import type { Observer } from '../log/observer.ts'
import { createRedisClient, passwordOf, type RedisClient } from './redis-client.ts'
import { isReply, redisFailure, RedisFailure, timedOut } from './redis-error.ts'

export type RedisConnectionOptions = {
  readonly config: RedisConfig
  readonly observer: Observer
  readonly log?: Pick<Log, 'info'> | undefined
}

/**
 * `removal` needs no memory: a Redis that is full refuses a `write` and takes a `removal`. `look` is what the status page asks: it may need permissions
 * that pulls do not.
 */
export type RedisWork = 'read' | 'write' | 'removal' | 'look'

export type RedisState = {
  /** False: nothing is asked of Redis until it answers again. */
  readonly isUp: boolean
  /** Kinds of work that Redis refuses, with its word: `write: OOM`. */
  readonly refusals: readonly string[]
}

/** Commands in a row that had no answer in time, after which nothing is asked until a probe has one. */
const timeoutsInRow = 3
const firstProbeMs = 250
const longestProbeMs = 5000

/**
 * The connection to Redis, whichever kind, with its breaker. While Redis is away every call fails at once; whether it is back is found out
 * beside, so that nobody waits for a probe. A change of state is told once: {@link Observer.storeFailed} when it goes, the log when it comes.
 */
export class RedisConnection {
  readonly #options: RedisConnectionOptions
  readonly #refusals = new Map<RedisWork, string>()
  #client: RedisClient
  #password: string | undefined
  #lastError: RedisFailure | undefined
  #state: 'connecting' | 'up' | 'down' = 'connecting'
  #timeouts = 0
  #probeMs = firstProbeMs
  #probe: NodeJS.Timeout | undefined
  #closed = false
  #settled: (() => void) | undefined

  constructor(options: RedisConnectionOptions) {
    this.#options = options
    this.#password = this.#readPassword()
    this.#client = this.#connect()
  }

  state(): RedisState {
    return {
      isUp: this.#state === 'up',
      refusals: [...this.#refusals].map(([work, code]) => `${work}: ${code}`),
    }
  }

  /** Resolves when it is known whether Redis answers, at the latest after `ms`. */
  async settled(ms: number): Promise<void> {
    if (this.#state !== 'connecting') return
    const settled = new Promise<void>(resolve => (this.#settled = resolve))
    const timer = setTimeout(() => {
      if (this.#state === 'connecting') this.#goDown(timedOut())
    }, ms)
    await settled
    clearTimeout(timer)
  }

  /** Does `work` within the command time-out. Rejects with a {@link RedisFailure}, at once while Redis is away. */
  async run<Result>(kind: RedisWork, work: (commands: RedisCommander) => Promise<Result>): Promise<Result> {
    if (this.#state !== 'up') throw this.#lastError ?? new RedisFailure('UNAVAILABLE', 'Redis is not connected yet')
    try {
      const result = await this.#inTime(work)
      this.#answered()
      this.#accepted(kind)
      return result
    } catch (error) {
      const failure = redisFailure(error)
      if (isReply(failure)) {
        this.#answered()
        this.#refused(kind, failure)
      } else if (failure.code === 'TIMEOUT') this.#missed(failure)
      throw failure
    }
  }

  /** Safe to repeat. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#probe)
    this.#client.disconnect()
    this.#settled?.()
  }

  async #inTime<Result>(work: (commands: RedisCommander) => Promise<Result>): Promise<Result> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      // Where it was this process that stood still, the answer is there to be read: it goes first.
      timer = setTimeout(() => setImmediate(() => reject(timedOut())), this.#options.config.commandTimeoutMs)
    })
    try {
      return await Promise.race([work(this.#client), late])
    } finally {
      clearTimeout(timer)
    }
  }

  #connect(): RedisClient {
    const client = createRedisClient(this.#options.config, this.#password)
    const isCurrent = (): boolean => client === this.#client && !this.#closed
    client.on('error', (error: unknown) => {
      if (!isCurrent()) return
      this.#lastError = redisFailure(error)
    })
    client.on('ready', () => {
      if (isCurrent()) this.#goUp()
    })
    client.on('close', () => {
      if (isCurrent()) this.#goDown(this.#lastError ?? new RedisFailure('UNAVAILABLE', 'Redis closed the connection'))
    })
    return client
  }

  #answered(): void {
    this.#timeouts = 0
  }

  #missed(failure: RedisFailure): void {
    this.#timeouts++
    if (this.#timeouts >= timeoutsInRow) this.#goDown(failure)
  }

  #goUp(): void {
    const before = this.#state
    this.#state = 'up'
    this.#timeouts = 0
    this.#probeMs = firstProbeMs
    this.#lastError = undefined
    clearTimeout(this.#probe)
    this.#probe = undefined
    this.#settled?.()
    if (before === 'down') this.#options.log?.info('redis answers again')
  }

  #goDown(failure: RedisFailure): void {
    if (this.#closed) return
    this.#lastError = failure
    this.#probe ??= setTimeout(() => void this.#look(), this.#probeMs).unref()
    if (this.#state === 'down') return
    this.#state = 'down'
    this.#settled?.()
    this.#options.observer.storeFailed('redis.unavailable', failure)
  }

  /** Never rejects. */
  async #look(): Promise<void> {
    this.#probe = undefined
    this.#probeMs = Math.min(this.#probeMs * 2, longestProbeMs)
    if (this.#closed) return
    const password = this.#readPassword()
    if (password !== this.#password || this.#client.status === 'end') {
      this.#password = password
      const old = this.#client
      this.#client = this.#connect()
      old.disconnect()
    }
    const client = this.#client
    try {
      if (client.status === 'ready') {
        // Any key will do: in a cluster PING would ask a random node.
        await this.#inTime(commands => commands.get(`${this.#options.config.keyPrefix}:1:probe`))
        if (client === this.#client && !this.#closed) return this.#goUp()
      }
    } catch (error) {
      const failure = redisFailure(error)
      if (isReply(failure)) return this.#goUp()
      this.#lastError = failure
    }
    if (this.#state === 'down' && !this.#closed)
      this.#probe ??= setTimeout(() => void this.#look(), this.#probeMs).unref()
  }

  #refused(kind: RedisWork, failure: RedisFailure): void {
    // What lies under one key says nothing about the others.
    if (failure.code === 'WRONGTYPE' || this.#refusals.get(kind) === failure.code) return
    this.#refusals.set(kind, failure.code)
    this.#options.observer.storeFailed(`redis.${kind}`, failure)
  }

  #accepted(kind: RedisWork): void {
    if (this.#refusals.delete(kind)) this.#options.log?.info({ kind }, 'redis takes this kind of work again')
  }

  #readPassword(): string | undefined {
    try {
      return passwordOf(this.#options.config)
    } catch (error) {
      this.#options.observer.storeFailed('redis.password', error)
      return this.#password
    }
  }
}
