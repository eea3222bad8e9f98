import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { silentObserver } from '../../src/log/observer.ts'
import type { TakenQuestion } from '../../src/store/questions.ts'
import { RedisConnection } from '../../src/store/redis-connection.ts'
import { RedisQuestions } from '../../src/store/redis-questions.ts'
import { redisConfig, RedisServer, startRedisSentinel, until } from '../fakes/redis.ts'

let server: RedisServer

beforeAll(async () => {
  server = await RedisServer.start()
}, 30_000)
afterAll(() => server?.stop())

let references = 0
const newQuestion = () => ({ upstream: 'docker.io', repository: 'library/alpine', reference: `v${++references}` })
const keyOf = (prefix: string, reference: string): string => `${prefix}:1:q:{docker.io library/alpine}:${reference}`

type Replica = { readonly questions: RedisQuestions; readonly prefix: string }

async function replica(config = redisConfig({ kind: 'url', url: server.url })): Promise<Replica> {
  const connection = new RedisConnection({ config, observer: silentObserver })
  onTestFinished(() => connection.close())
  await connection.settled(2_000)
  return { questions: new RedisQuestions({ connection, keyPrefix: config.keyPrefix }), prefix: config.keyPrefix }
}

const another = ({ prefix }: Replica): Promise<Replica> =>
  replica(redisConfig({ kind: 'url', url: server.url }, { keyPrefix: prefix }))

type Yours = Extract<TakenQuestion, { state: 'yours' }>
type Asked = Extract<TakenQuestion, { state: 'asked' }>

function yours(taken: TakenQuestion | undefined): Yours {
  if (taken?.state !== 'yours') throw new Error(`not ours but ${taken?.state}`)
  return taken
}

function asked(taken: TakenQuestion | undefined): Asked {
  if (taken?.state !== 'asked') throw new Error(`not asked but ${taken?.state}`)
  return taken
}

describe('questions in Redis', () => {
  it('P-47: one asks, the others wait for it, and are told when it is over', async () => {
    const first = await replica()
    const second = await another(first)
    const question = newQuestion()
    const mine = yours(await first.questions.take(question))
    const theirs = asked(await second.questions.take(question))
    expect(await theirs.look()).toBe('asked')
    // Another tag is another question.
    yours(await second.questions.take(newQuestion()))
    await mine.answered('over')
    expect(await theirs.look()).toBe('over')
    yours(await second.questions.take(question))
  })

  it('of many at once exactly one asks', async () => {
    const first = await replica()
    const second = await another(first)
    const question = newQuestion()
    const all = Array.from({ length: 40 }, (_, n) => (n % 2 ? first : second).questions.take(question))
    const states = (await Promise.all(all)).map(taken => taken?.state)
    expect(states.filter(state => state === 'yours')).toHaveLength(1)
    expect(states.filter(state => state === 'asked')).toHaveLength(39)
  })

  it('P-100: that there is none is told to those who wait, for a second, and stops nobody from asking', async () => {
    const first = await replica()
    const second = await another(first)
    const question = newQuestion()
    const mine = yours(await first.questions.take(question))
    const theirs = asked(await second.questions.take(question))
    await mine.answered('absent')
    expect(await theirs.look()).toBe('absent')
    const ttl = await server.admin.pttl(keyOf(first.prefix, question.reference))
    expect(ttl).toBeGreaterThan(0)
    expect(ttl).toBeLessThanOrEqual(1_000)
    yours(await second.questions.take(question))
    // For those who waited before, that is another question.
    expect(await theirs.look()).toBe('over')
  })

  it('F-53: the question of one that died ends by itself, and its late answer changes nothing', async () => {
    const first = await replica()
    const second = await another(first)
    const question = newQuestion()
    const key = keyOf(first.prefix, question.reference)
    const mine = yours(await first.questions.take(question))
    const ttl = await server.admin.pttl(key)
    expect(ttl).toBeGreaterThan(0)
    expect(ttl).toBeLessThanOrEqual(5_000)
    const theirs = asked(await second.questions.take(question))
    // Redis' own time, made short.
    await server.admin.pexpire(key, 1)
    await until(async () => (await server.admin.exists(key)) === 0)
    expect(await theirs.look()).toBe('over')
    const next = yours(await second.questions.take(question))
    await mine.answered('absent')
    expect(await server.admin.get(key)).not.toBe('absent')
    await next.answered('over')
    expect(await server.admin.exists(key)).toBe(0)
  })

  it('F-63: FLUSHALL ends every question', async () => {
    const own = await RedisServer.start()
    onTestFinished(() => own.stop())
    const { questions } = await replica(redisConfig({ kind: 'url', url: own.url }))
    const question = newQuestion()
    const mine = yours(await questions.take(question))
    const theirs = asked(await questions.take(question))
    await own.admin.flushall()
    expect(await theirs.look()).toBe('over')
    await mine.answered('absent')
    expect(await own.admin.dbsize()).toBe(0)
    yours(await questions.take(question))
  })

  it('F-64: garbage, and what has no end, stops nobody', async () => {
    const first = await replica()
    for (const [garbage, ...life] of [[''], ['garbage', 'PX', 9_000], ['?token'], ['absent', 'PX', 9_000]] as const) {
      const question = newQuestion()
      const key = keyOf(first.prefix, question.reference)
      await (life.length > 0 ? server.admin.set(key, garbage, 'PX', 9_000) : server.admin.set(key, garbage))
      yours(await first.questions.take(question))
    }
    const question = newQuestion()
    await server.admin.lpush(keyOf(first.prefix, question.reference), 'a')
    expect(await first.questions.take(question)).toBeUndefined()
    yours(await first.questions.take(question))
  })

  it('F-59: without Redis nobody can tell; nothing rejects', async () => {
    const gone = await RedisServer.start()
    onTestFinished(() => gone.stop())
    const { questions } = await replica(redisConfig({ kind: 'url', url: gone.url }))
    const question = newQuestion()
    const mine = yours(await questions.take(question))
    const theirs = asked(await questions.take(question))
    await gone.kill()
    expect(await theirs.look()).toBe('over')
    await mine.answered('over')
    expect(await questions.take(question)).toBeUndefined()
  })

  it('F-61: after a failover by Sentinel they are asked and told at the new master', async () => {
    const { master, replica: standby, sentinel } = await startRedisSentinel()
    onTestFinished(async () => {
      await Promise.all([sentinel.stop(), standby.stop(), master.stop()])
    })
    const { questions } = await replica(
      redisConfig({ kind: 'sentinels', sentinels: [sentinel.address], name: 'cache' }),
    )
    yours(await questions.take(newQuestion()))
    await master.kill()
    await until(async () => (await questions.take(newQuestion()))?.state === 'yours')
    const question = newQuestion()
    const mine = yours(await questions.take(question))
    const theirs = asked(await questions.take(question))
    await mine.answered('absent')
    expect(await theirs.look()).toBe('absent')
  })
})
