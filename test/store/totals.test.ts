import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { Clock } from '../../src/clock.ts'
import type { RedisConfig } from '../../src/config/config.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { RedisConnection } from '../../src/store/redis-connection.ts'
import { RedisTotals } from '../../src/store/redis-totals.ts'
import type { Totals } from '../../src/store/totals.ts'
import { RedisServer, redisConfig, startRedisCluster } from '../fakes/redis.ts'
import { opened, temporaryDirectory } from './opened.ts'
import { documentedRules } from './redis-acl.ts'
import { describeTotals } from './totals.conformance.ts'

let single: RedisServer
let cluster: readonly RedisServer[] = []

beforeAll(async () => {
  ;[single, cluster] = await Promise.all([RedisServer.start(), startRedisCluster()])
}, 60_000)

afterAll(() => Promise.all([single, ...cluster].map(server => server?.stop())))

const clockAt = (now: () => number): Clock => ({ now, monotonic: now })
const at = Date.UTC(2026, 10, 28, 16, 20)
const batch = (number: number, amount: number) => ({ number, began: at, at, amounts: new Map([['a', amount]]) })

async function totalsOn(config: RedisConfig, now: () => number = () => at): Promise<Totals> {
  const connection = new RedisConnection({ config, observer: silentObserver })
  onTestFinished(() => connection.close())
  await connection.settled(10_000)
  return new RedisTotals({ connection, keyPrefix: config.keyPrefix, clock: clockAt(now) })
}

const onSingle = (rest: Partial<RedisConfig> = {}): RedisConfig =>
  redisConfig({ kind: 'url', url: single.url }, { commandTimeoutMs: 5_000, ...rest })

describeTotals('SQLite', async now => {
  const dataDir = temporaryDirectory()
  let close: (() => Promise<void>) | undefined
  return async () => {
    await close?.()
    const stores = await opened({ dataDir, clock: clockAt(now) })
    close = () => stores.close()
    return stores.totals
  }
})
describeTotals('Redis', async now => {
  const config = onSingle()
  return () => totalsOn(config, now)
})
describeTotals('Redis Cluster', async now => {
  const nodes = cluster.map(node => node.address)
  const config = redisConfig({ kind: 'cluster', nodes }, { commandTimeoutMs: 5_000 })
  return () => totalsOn(config, now)
})

describe('totals in SQLite', () => {
  it('forgets hours after days, and days after a year, and never months', async () => {
    const { totals } = await opened()
    const day = 86_400_000
    await totals.add({ number: 1, began: at, at: at - 500 * day, amounts: new Map([['a', 1]]) })
    await totals.add({ number: 2, began: at, at: at - 10 * day, amounts: new Map([['a', 2]]) })
    await totals.add({ number: 3, began: at, at, amounts: new Map([['a', 4]]) })
    const periods = async (span: 'hours' | 'days' | 'months') =>
      (await totals.read(span)).entries.map(({ period }) => period)
    expect(await periods('hours')).toEqual(['2026-11-28T16'])
    expect(await periods('days')).toEqual(['2026-11-18', '2026-11-28'])
    expect(await periods('months')).toEqual(['2025-07', '2026-11'])
  })
})

describe('totals in Redis', () => {
  it('adds up what replicas write at the same time', async () => {
    const config = onSingle()
    const replicas = await Promise.all([totalsOn(config), totalsOn(config), totalsOn(config)])
    await Promise.all(
      replicas.map(async totals => {
        for (let number = 1; number <= 20; number++) await totals.add(batch(number, number))
      }),
    )
    const [first] = replicas
    expect((await first?.read('months'))?.entries).toEqual([{ period: '2026-11', name: 'a', amount: 630 }])
  })

  it('one of the replicas counts what is counted once, and another when it is gone', async () => {
    const config = onSingle()
    const [first, second] = [await totalsOn(config), await totalsOn(config)]
    expect([await first.leads(), await second.leads(), await first.leads()]).toEqual([true, false, true])
    await single.admin.del(`${config.keyPrefix}:1:s:{totals}:leader`)
    expect([await second.leads(), await first.leads()]).toEqual([true, false])
  })

  it('F-62: an emptied Redis is told again what a replica has seen, and nothing is counted twice', async () => {
    const config = onSingle()
    const [first, second] = [await totalsOn(config), await totalsOn(config)]
    await first.add(batch(1, 100))
    for (const totals of [first, second]) await totals.read('months')
    for (const key of await single.admin.keys(`${config.keyPrefix}:*`)) await single.admin.del(key)
    await first.add(batch(2, 5))
    await second.add(batch(1, 1))
    await second.read('months')
    expect(await second.read('months')).toEqual({ began: at, entries: [{ period: '2026-11', name: 'a', amount: 106 }] })
  })

  it('F-64: what is no figure gives way to one', async () => {
    const config = onSingle()
    const totals = await totalsOn(config)
    await single.admin.set(`${config.keyPrefix}:1:s:{totals}`, 'garbage')
    await single.admin.hset(`${config.keyPrefix}:1:s:{totals}:2026-11`, '2026-11-28 a', 'garbage', 'x', 'y')
    await totals.add(batch(1, 3))
    expect((await totals.read('months')).entries).toEqual([{ period: '2026-11', name: 'a', amount: 3 }])
    expect((await totals.read('days')).entries).toEqual([{ period: '2026-11-28', name: 'a', amount: 3 }])
  })

  it('days and hours have a time to live, months have none', async () => {
    const config = onSingle()
    await (await totalsOn(config)).add(batch(1, 3))
    const keys = (await single.admin.keys(`${config.keyPrefix}:*`)).sort()
    const ttls = await Promise.all(
      keys.map(async key => [key.split('{totals}')[1], (await single.admin.pttl(key)) > 0]),
    )
    expect(ttls.map(([key, lives]) => [String(key).replace(/w:.*/, 'w:'), lives])).toEqual([
      ['', false],
      [':2026-11', true],
      [':2026-11-28', true],
      [':w:', true],
    ])
  })

  it('needs no more than the user of docs/redis.md may do', async () => {
    const access = { username: 'layover-totals', password: 'right', keyPrefix: 'layover' }
    await single.admin.call(
      'ACL',
      'SETUSER',
      access.username,
      'reset',
      'on',
      `>${access.password}`,
      ...documentedRules(),
    )
    const totals = await totalsOn(onSingle(access))
    await totals.add(batch(1, 3))
    expect((await totals.read('months')).entries).toEqual([{ period: '2026-11', name: 'a', amount: 3 }])
    expect((await totals.read('hours', at)).entries).toHaveLength(1)
    expect(await totals.leads()).toBe(true)
  })

  it('rejects while Redis is away, and can be given the same batch again', async () => {
    const own = await RedisServer.start()
    onTestFinished(() => own.stop())
    const totals = await totalsOn(redisConfig({ kind: 'url', url: own.url }, { commandTimeoutMs: 200 }))
    own.stand()
    await expect(totals.add(batch(1, 3))).rejects.toThrow(/Redis/)
    own.goOn()
    // What was asked while it stood may have been done after all.
    await expect
      .poll(
        () =>
          totals.add(batch(1, 3)).then(
            () => 'added',
            () => 'not yet',
          ),
        { timeout: 20_000 },
      )
      .toBe('added')
    await expect
      .poll(async () => (await totals.read('months')).entries, { timeout: 20_000 })
      .toEqual([{ period: '2026-11', name: 'a', amount: 3 }])
  })
})
