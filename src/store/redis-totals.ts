import { randomBytes } from 'node:crypto'
import type { Clock } from '../clock.ts'
import type { RedisConnection } from './redis-connection.ts'
import { redisKeys } from './redis-keys.ts'
import {
  keptMs,
  periodsOf,
  type Span,
  startOf,
  type Totals,
  type TotalsBatch,
  type TotalsEntry,
  type TotalsRead,
} from './totals.ts'

export type RedisTotalsOptions = {
  readonly connection: RedisConnection
  readonly keyPrefix: string
  readonly clock: Clock
}

const dayMs = 86_400_000
/** How long a batch that may have arrived can be given again without counting twice. */
const writerTtlMs = 30 * dayMs
/** How long one that went away without a word keeps others from counting what is counted once. */
const leaderTtlMs = 15_000
/** What is in a hash besides figures. */
const beganField = 'began'

/**
 * All keys have one hash tag, so they lie in one slot. KEYS: months, days, hours, last batch of this writer.
 * ARGV: number, when counting began, month, day, hour, TTL of days, of hours, of the writer, then names and amounts.
 * Whatever else lies under a key is no figure and goes. Gives -1, and adds nothing, when the months are gone and `ARGV[9]` asks to be told.
 */
const addScript = `
local last = tonumber(redis.call('GET', KEYS[4]) or '')
if last and last >= tonumber(ARGV[1]) then return 0 end
for i = 1, 3 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[i]) end
end
if ARGV[9] == '1' and redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
redis.call('HSETNX', KEYS[1], '${beganField}', ARGV[2])
for i = 10, #ARGV, 2 do
  for j = 1, 3 do
    local field = ARGV[2 + j] .. ' ' .. ARGV[i]
    local done = redis.pcall('HINCRBYFLOAT', KEYS[j], field, ARGV[i + 1])
    if type(done) == 'table' and done.err then redis.call('HSET', KEYS[j], field, ARGV[i + 1]) end
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('PEXPIRE', KEYS[3], ARGV[7])
redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[8])
return 1`

/** Raises what is lower than what a replica has seen: figures only grow, so that was lost. ARGV: began, then fields and amounts. */
const restoreScript = `
local began = tonumber(redis.call('HGET', KEYS[1], '${beganField}') or '')
if not began or began > tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], '${beganField}', ARGV[1]) end
for i = 2, #ARGV, 2 do
  local there = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '')
  if not there or there < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1`

const leadScript = `
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`

/**
 * Totals that replicas share, in Redis. A Redis that forgot everything is told again by the first replica that sees it: each remembers what it
 * last read, so of the months nothing is lost but what other replicas added in the seconds before.
 */
export class RedisTotals implements Totals {
  readonly #connection: RedisConnection
  readonly #clock: Clock
  readonly #keys: ReturnType<typeof redisKeys>['totals']
  readonly #life = randomBytes(9).toString('base64url')
  #seen: TotalsRead = { began: undefined, entries: [] }

  constructor({ connection, keyPrefix, clock }: RedisTotalsOptions) {
    this.#connection = connection
    this.#clock = clock
    this.#keys = redisKeys(keyPrefix).totals
  }

  async add(batch: TotalsBatch): Promise<void> {
    if ((await this.#add(batch, this.#seen.began !== undefined)) !== -1) return
    await this.#restore()
    await this.#add(batch, false)
  }

  async read(span: Span, since = 0): Promise<TotalsRead> {
    const now = this.#clock.now()
    const first = span === 'months' ? now : Math.max(since, now - keptMs[span])
    const keys = span === 'months' ? [this.#keys.months] : this.#keysFrom(span, first, now)
    const hashes = await this.#connection.run('read', commands =>
      Promise.all([commands.hget(this.#keys.months, beganField), ...keys.map(key => commands.hgetall(key))]),
    )
    const [beganText, ...fields] = hashes
    const from = periodsOf(since)[span]
    const all = fields.flatMap(entriesOf)
    const result = { began: numberOf(beganText), entries: all.filter(({ period }) => period >= from) }
    if (span === 'months') await this.#compare({ ...result, entries: all })
    return result
  }

  async leads(): Promise<boolean> {
    try {
      const key = this.#keys.leader
      return (await this.#connection.run('write', c => c.eval(leadScript, 1, key, this.#life, leaderTtlMs))) === 1
    } catch {
      return false
    }
  }

  #add({ number, began, at, amounts }: TotalsBatch, tellWhenGone: boolean): Promise<unknown> {
    const { hours, days, months } = periodsOf(at)
    const keys = [this.#keys.months, this.#keys.days(months), this.#keys.hours(days), this.#keys.writer(this.#life)]
    const ttls = [keptMs.days + 31 * dayMs, keptMs.hours + dayMs, writerTtlMs]
    const pairs = [...amounts].flatMap(([name, amount]) => [name, exact(amount)])
    return this.#connection.run('write', commands =>
      commands.eval(addScript, 4, ...keys, number, began, months, days, hours, ...ttls, tellWhenGone ? 1 : 0, ...pairs),
    )
  }

  /** What was seen before and is less or gone now was lost. */
  async #compare(read: TotalsRead): Promise<void> {
    const there = new Map(read.entries.map(entry => [fieldOf(entry), entry.amount]))
    const isLost = this.#seen.entries.some(entry => (there.get(fieldOf(entry)) ?? 0) < entry.amount)
    if (isLost) await this.#restore()
    else this.#seen = read
  }

  async #restore(): Promise<void> {
    const { began = this.#clock.now(), entries } = this.#seen
    const pairs = entries.flatMap(entry => [fieldOf(entry), exact(entry.amount)])
    await this.#connection.run('write', c => c.eval(restoreScript, 1, this.#keys.months, began, ...pairs))
  }

  /** The days of a month are in one hash, the hours of a day in another. */
  #keysFrom(span: 'hours' | 'days', first: number, now: number): string[] {
    const of = span === 'days' ? this.#keys.days : this.#keys.hours
    const bucket = (at: number): string => (span === 'days' ? periodsOf(at).months : periodsOf(at).days)
    const buckets = new Set<string>()
    for (let at = startOf(periodsOf(first).days); at <= now; at += dayMs) buckets.add(bucket(at))
    return [...buckets, bucket(now)].filter((key, index, all) => all.indexOf(key) === index).map(of)
  }
}

const fieldOf = ({ period, name }: TotalsEntry): string => `${period} ${name}`

function entriesOf(hash: Readonly<Record<string, string>>): TotalsEntry[] {
  return Object.entries(hash).flatMap(([field, text]) => {
    const [, period, name] = /^(\S{7,13}) (.+)$/.exec(field) ?? []
    const amount = numberOf(text)
    return period === undefined || name === undefined || amount === undefined ? [] : [{ period, name, amount }]
  })
}

function numberOf(text: string | null | undefined): number | undefined {
  const value = text === null || text === undefined || text === '' ? Number.NaN : Number(text)
  return Number.isFinite(value) ? value : undefined
}

/** Redis reads no exponents that JavaScript writes for large numbers with certainty: digits alone. */
const exact = (amount: number): string => (Number.isInteger(amount) ? BigInt(amount).toString() : amount.toFixed(9))
