import { randomBytes } from 'node:crypto'
import type { RedisCommander } from 'ioredis'
import type { Digest } from '../oci/digest.ts'
import { type HeldLease, type Lease, type Leases, leaseTtlMs } from './leases.ts'
import type { RedisConnection } from './redis-connection.ts'
import { redisFailure } from './redis-error.ts'
import { redisKeys } from './redis-keys.ts'

export type RedisLeasesOptions = {
  readonly connection: RedisConnection
  readonly keyPrefix: string
  readonly ttlMs?: number
  /** How long an answer is waited for while there is a connection: waiting costs a moment, going alone a whole download (F-60). */
  readonly patienceMs?: number
}

/**
 * Gives `+` and the lease's value, or the value of who holds it and how long it lives on. The token is the time by Redis' clock in
 * microseconds: it grows from lease to lease without a key of its own that could be lost. A question that is put twice, because the answer to
 * the first was lost with its connection, gets what it was given then. ARGV: life, URL, TTL, number of the question.
 */
const acquireScript = `
local held = redis.call('GET', KEYS[1])
if held then
  local life, question, url = string.match(held, '^([^%s.]+)%.?(%d*) %d+ (%S+)$')
  if life and url == ARGV[2] and life == ARGV[1] and question == ARGV[4] then return '+' .. held end
  if life and (url ~= ARGV[2] or life == ARGV[1]) then return held .. ' ' .. redis.call('PTTL', KEYS[1]) end
end
local time = redis.call('TIME')
local value = string.format('%s.%s %.0f %s', ARGV[1], ARGV[4], time[1] * 1000000 + time[2], ARGV[2])
redis.call('SET', KEYS[1], value, 'PX', ARGV[3])
return '+' .. value`

const renewScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1`

const releaseScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`

/**
 * Leases that all replicas see. Their life is counted by Redis alone, so no replica's clock matters (F-42). A Redis that is away, full or
 * slow gives `undefined`: everybody goes alone, and some blobs are downloaded more than once.
 */
export class RedisLeases implements Leases {
  readonly #connection: RedisConnection
  readonly #ttlMs: number
  readonly #patienceMs: number
  readonly #keyOf: (digest: Digest) => string
  /** Tells this process from one that had the same URL before. */
  readonly #life = randomBytes(9).toString('base64url')
  #questions = 0

  constructor({ connection, keyPrefix, ttlMs = leaseTtlMs, patienceMs = defaultPatienceMs }: RedisLeasesOptions) {
    this.#connection = connection
    this.#ttlMs = ttlMs
    this.#patienceMs = patienceMs
    this.#keyOf = redisKeys(keyPrefix).lease
  }

  async acquire(digest: Digest, { url }: { readonly url: string }): Promise<Lease | HeldLease | undefined> {
    if (!isReplicaUrl(url)) return undefined
    const key = this.#keyOf(digest)
    const answer = await this.#acquire(key, url)
    if (answer === undefined) return undefined
    if (answer.startsWith('+')) return this.#lease(key, answer.slice(1))
    const [, , heldBy = '', livesOnMs = ''] = answer.split(' ')
    return isReplicaUrl(heldBy) ? { heldBy, idleMs: Math.max(0, this.#ttlMs - Number(livesOnMs)) } : undefined
  }

  async #acquire(key: string, url: string): Promise<string | undefined> {
    let asked: Promise<unknown> | undefined
    const question = ++this.#questions
    const ask = (commands: RedisCommander): Promise<unknown> => {
      asked = commands.eval(acquireScript, 1, key, this.#life, url, this.#ttlMs, question)
      return asked
    }
    try {
      const answer = await this.#connection.insist('write', ask, this.#patienceMs)
      return typeof answer === 'string' ? answer : undefined
    } catch (error) {
      if (redisFailure(error).code === 'WRONGTYPE') await this.#delete(key)
      // What comes after we have gone alone is a lease that nobody would renew.
      void asked?.then(
        async late => {
          if (typeof late === 'string' && late.startsWith('+')) await this.#release(key, late.slice(1))
        },
        () => {},
      )
      return undefined
    }
  }

  #lease(key: string, value: string): Lease {
    let furthest = 0
    return {
      token: Number(value.split(' ')[1]),
      renew: async progress => {
        const extendMs = progress > furthest ? this.#ttlMs : 0
        const renewed = (commands: RedisCommander): Promise<unknown> =>
          commands.eval(renewScript, 1, key, value, extendMs)
        const isHeld = await this.#connection.insist('removal', renewed, this.#patienceMs).catch(() => undefined)
        if (isHeld === undefined) return undefined
        if (isHeld === 1) furthest = Math.max(furthest, progress)
        return isHeld === 1
      },
      release: () => this.#release(key, value),
    }
  }

  /** Never rejects. */
  async #release(key: string, value: string): Promise<void> {
    await this.#run(commands => commands.eval(releaseScript, 1, key, value))
  }

  async #delete(key: string): Promise<void> {
    await this.#run(commands => commands.del(key))
  }

  async #run(work: Parameters<RedisConnection['run']>[1]): Promise<unknown> {
    // A full Redis lets a life be made longer and a key be removed.
    return this.#connection.run('removal', work).catch(() => undefined)
  }
}

const defaultPatienceMs = 2_000

/** What stands in Redis is dialled, so it must at least be what a replica would write: an origin and perhaps a path, no user name, no query. */
function isReplicaUrl(text: string): boolean {
  if (text.length > 2048 || /\s/.test(text) || !URL.canParse(text)) return false
  const { protocol, username, password, search, hash } = new URL(text)
  return /^https?:$/.test(protocol) && `${username}${password}${search}${hash}` === ''
}
