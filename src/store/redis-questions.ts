import { randomBytes } from 'node:crypto'
import type { RedisCommander } from 'ioredis'
import { type Question, type Questions, questionTtlMs, type TakenQuestion, toldAbsentMs } from './questions.ts'
import type { RedisConnection } from './redis-connection.ts'
import { redisFailure } from './redis-error.ts'
import { redisKeys } from './redis-keys.ts'

export type RedisQuestionsOptions = {
  readonly connection: RedisConnection
  readonly keyPrefix: string
  /** How long Redis' answer is waited for while there is a connection. */
  readonly patienceMs?: number
}

/** The question that is under way, or `+`. What nobody would write, or what would stay for ever, is nothing (F-64). ARGV: token, TTL. */
const takeScript = `
local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^%?[%w_-]+$') and redis.call('PTTL', KEYS[1]) > 0 then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return '+'`

/** ARGV: token, how long it counts that there is none; 0: the records say what there is. */
const answerScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], 'absent', 'PX', ARGV[2])
return 1`

const absent = 'absent'

/** Questions that all replicas see, one key each, by Redis' clock alone. A Redis that is away, full or slow leaves everybody to ask. */
export class RedisQuestions implements Questions {
  readonly #connection: RedisConnection
  readonly #patienceMs: number
  readonly #keyOf: (question: Question) => string

  constructor({ connection, keyPrefix, patienceMs = 1_000 }: RedisQuestionsOptions) {
    this.#connection = connection
    this.#patienceMs = patienceMs
    this.#keyOf = redisKeys(keyPrefix).question
  }

  async take(question: Question): Promise<TakenQuestion | undefined> {
    const key = this.#keyOf(question)
    const token = `?${randomBytes(9).toString('base64url')}`
    const taking = (commands: RedisCommander): Promise<unknown> =>
      commands.eval(takeScript, 1, key, token, questionTtlMs)
    try {
      const held = await this.#connection.insist('write', taking, this.#patienceMs)
      // The second time an answer to the first was lost with its connection.
      if (held === '+' || held === token)
        return { state: 'yours', answered: answer => this.#answer(key, token, answer) }
      return { state: 'asked', look: () => this.#look(key, held) }
    } catch (error) {
      if (redisFailure(error).code === 'WRONGTYPE') await this.#tolerate(commands => commands.del(key))
      return undefined
    }
  }

  /** A question that another one followed is over. */
  async #look(key: string, asked: unknown): Promise<'asked' | 'over' | 'absent'> {
    const held = await this.#connection.run('read', commands => commands.get(key)).catch(() => null)
    if (held === absent) return absent
    return held === asked ? 'asked' : 'over'
  }

  #answer(key: string, token: string, answer: 'over' | 'absent'): Promise<void> {
    const absentMs = answer === absent ? toldAbsentMs : 0
    return this.#tolerate(commands => commands.eval(answerScript, 1, key, token, absentMs))
  }

  async #tolerate(work: (commands: RedisCommander) => Promise<unknown>): Promise<void> {
    await this.#connection.run('removal', work).catch(() => undefined)
  }
}
