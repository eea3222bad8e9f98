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
  /** Since when what was asked has had no answer. */
  #silentSince: number | undefined
  #probeMs = firstProbeMs
  #probe: NodeJS.Timeout | undefined
  #closed = false
  #settled: (() => void) | undefined
  #back: (() => void)[] = []

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
    if (this.#state !== 'up') throw this.#whyNot()
    return this.#attempt(kind, work, this.#options.config.commandTimeoutMs)
  }

  /**
   * As {@link run}, for questions that are worth waiting for: going without the answer costs more than a slow one (F-60). As long as there is a
   * connection and Redis has not been silent for `withinMs`, it waits that long, also where records count as misses already; a connection that breaks under
   * the question is asked once more when it is back at once. A Redis that is known to be gone costs nothing here either.
   */
  async insist<Result>(
    kind: RedisWork,
    work: (commands: RedisCommander) => Promise<Result>,
    withinMs: number,
  ): Promise<Result> {
    if (!this.#mayAnswer(withinMs)) throw this.#whyNot()
    const deadline = performance.now() + withinMs
    try {
      return await this.#attempt(kind, work, withinMs)
    } catch (error) {
      const isBroken = error instanceof RedisFailure && (error.code === 'UNAVAILABLE' || error.code === 'READONLY')
      const remainingMs = deadline - performance.now()
      if (!isBroken || !(await this.#reconnected(remainingMs))) throw error
      return this.#attempt(kind, work, Math.max(1, deadline - performance.now()))
    }
  }

  /** Safe to repeat. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#probe)
    this.#client.disconnect()
    this.#settled?.()
    this.#tellBack()
  }

  async #attempt<Result>(
    kind: RedisWork,
    work: (commands: RedisCommander) => Promise<Result>,
    withinMs: number,
  ): Promise<Result> {
    const startedAt = performance.now()
    const tell = (outcome: string): void =>
      this.#options.observer.redisCommand(outcome, (performance.now() - startedAt) / 1000)
    try {
      const result = await this.#inTime(work, withinMs)
      tell('ok')
      this.#answered()
      this.#accepted(kind)
      return result
    } catch (error) {
      const failure = redisFailure(error)
      tell(failure.code.toLowerCase())
      if (isReply(failure)) {
        this.#answered()
        this.#refused(kind, failure)
      } else if (failure.code === 'TIMEOUT') this.#missed(failure, withinMs)
      throw failure
    }
  }

  #whyNot(): RedisFailure {
    return this.#lastError ?? new RedisFailure('UNAVAILABLE', 'Redis is not connected yet')
  }

  /** There is a connection, and Redis was not silent for that long. */
  #mayAnswer(withinMs: number): boolean {
    if (this.#closed || this.#state === 'connecting' || this.#client.status !== 'ready') return false
    return this.#silentSince === undefined || performance.now() - this.#silentSince < withinMs
  }

  /** Waits for the connection to be there again, at most until the first try to dial has failed. True: it is. */
  async #reconnected(withinMs: number): Promise<boolean> {
    const isBack = (): boolean => this.#state === 'up' && this.#client.status === 'ready' && !this.#closed
    if (isBack()) return true
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, withinMs)
    this.#back.push(resolve)
    await promise
    clearTimeout(timer)
    return isBack()
  }

  #tellBack(): void {
    for (const tell of this.#back.splice(0)) tell()
  }

  async #inTime<Result>(
    work: (commands: RedisCommander) => Promise<Result>,
    withinMs = this.#options.config.commandTimeoutMs,
  ): Promise<Result> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      // Where it was this process that stood still, the answer is there to be read: it goes first.
      timer = setTimeout(() => setImmediate(() => reject(timedOut())), withinMs)
    })
    try {
      const answer = work(this.#client)
      answer.then(this.#heard, (error: unknown) => isReply(redisFailure(error)) && this.#heard())
      return await Promise.race([answer, late])
    } finally {
      clearTimeout(timer)
    }
  }

  /** An answer, however late and whatever it says: Redis is not silent. */
  readonly #heard = (): void => {
    this.#silentSince = undefined
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
      if (!isCurrent()) return
      if (this.#state === 'down') this.#tellBack()
      this.#goDown(this.#lastError ?? new RedisFailure('UNAVAILABLE', 'Redis closed the connection'))
    })
    return client
  }

  #answered(): void {
    this.#timeouts = 0
  }

  #missed(failure: RedisFailure, afterMs: number): void {
    this.#silentSince ??= performance.now() - afterMs
    this.#timeouts++
    if (this.#timeouts >= timeoutsInRow) this.#goDown(failure)
  }

  #goUp(): void {
    const before = this.#state
    this.#state = 'up'
    this.#timeouts = 0
    this.#silentSince = undefined
    this.#probeMs = firstProbeMs
    this.#lastError = undefined
    clearTimeout(this.#probe)
    this.#probe = undefined
    this.#settled?.()
    this.#tellBack()
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
