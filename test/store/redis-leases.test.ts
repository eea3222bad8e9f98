import { setImmediate as turn } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { digestOf, type Digest } from '../../src/oci/digest.ts'
import { silentObserver } from '../../src/log/observer.ts'
import type { Lease, Leases } from '../../src/store/leases.ts'
import { LocalLeases } from '../../src/store/local-leases.ts'
import { RedisConnection } from '../../src/store/redis-connection.ts'
import { RedisLeases } from '../../src/store/redis-leases.ts'
import { FakeClock } from '../fakes/clock.ts'
import { redisConfig, RedisServer, until } from '../fakes/redis.ts'
import { startRedisLink } from '../fakes/redis-link.ts'

const one = { url: 'http://10.0.0.1:5002' }
const two = { url: 'http://10.0.0.2:5002' }
let digests = 0
const newDigest = (): Digest => digestOf(Buffer.from(`lease ${++digests}`))

function leaseOf(answer: Awaited<ReturnType<Leases['acquire']>>): Lease {
  if (answer === undefined || 'heldBy' in answer) throw new Error(`no lease but ${JSON.stringify(answer)}`)
  return answer
}

type Opened = {
  readonly first: Leases
  /** Those of another replica. */
  readonly second: Leases
  /** Lets the time to live pass. */
  readonly expire: (digest: Digest) => Promise<void>
}

/** What all leases must do. */
function describeLeases(name: string, open: () => Promise<Opened>): void {
  describe(`${name} as Leases`, () => {
    it('F-52: one has it, the others learn who', async () => {
      const { first, second } = await open()
      const digest = newDigest()
      leaseOf(await first.acquire(digest, one))
      expect(await second.acquire(digest, two)).toMatchObject({ heldBy: one.url })
      expect(await first.acquire(digest, one)).toMatchObject({ heldBy: one.url })
      leaseOf(await second.acquire(newDigest(), two))
    })

    it('F-52: of many at once exactly one has it', async () => {
      const { first, second } = await open()
      const digest = newDigest()
      const answers = await Promise.all(
        Array.from({ length: 50 }, (_, n) => (n % 2 ? first.acquire(digest, one) : second.acquire(digest, two))),
      )
      const leases = answers.filter(answer => answer && 'token' in answer)
      expect(leases).toHaveLength(1)
      expect(new Set(answers.map(answer => (answer && 'heldBy' in answer ? answer.heldBy : 'lease'))).size).toBe(2)
    })

    it('is free at once after its release, and a release twice takes nothing away', async () => {
      const { first, second } = await open()
      const digest = newDigest()
      const before = leaseOf(await first.acquire(digest, one))
      await before.release()
      const after = leaseOf(await second.acquire(digest, two))
      await before.release()
      expect(await before.renew(1)).toBe(false)
      expect(await after.renew(1)).toBe(true)
      expect(after.token).toBeGreaterThan(before.token)
    })

    it('F-53: ends without progress, and the next token is larger', async () => {
      const { first, second, expire } = await open()
      const digest = newDigest()
      const before = leaseOf(await first.acquire(digest, one))
      await expire(digest)
      const after = leaseOf(await second.acquire(digest, two))
      expect(after.token).toBeGreaterThan(before.token)
      expect(await before.renew(100)).toBe(false)
      expect(await first.acquire(digest, one)).toMatchObject({ heldBy: two.url })
    })
  })
}

describeLeases('this process', async () => {
  const clock = new FakeClock()
  const leases = new LocalLeases({ clock })
  return { first: leases, second: leases, expire: async () => clock.advance(10_000) }
})

describe('leases within this process', () => {
  it('F-53: go on with progress and with nothing else', async () => {
    const clock = new FakeClock()
    const leases = new LocalLeases({ clock })
    const digest = newDigest()
    const lease = leaseOf(await leases.acquire(digest, one))
    for (const progress of [1, 2, 3]) {
      clock.advance(9000)
      expect(await lease.renew(progress)).toBe(true)
    }
    clock.advance(9000)
    expect(await lease.renew(3)).toBe(true)
    clock.advance(1000)
    expect(await lease.renew(4)).toBe(false)
  })

  it('F-42: do not look at the wall clock', async () => {
    const clock = new FakeClock()
    const lease = leaseOf(await new LocalLeases({ clock }).acquire(newDigest(), one))
    clock.jump(24 * 60 * 60_000)
    expect(await lease.renew(0)).toBe(true)
  })
})

let server: RedisServer

beforeAll(async () => {
  server = await RedisServer.start()
}, 30_000)
afterAll(() => server?.stop())

type Replica = { readonly leases: RedisLeases; readonly connection: RedisConnection; readonly prefix: string }

async function replica(of: Pick<RedisServer, 'url'> = server, prefix?: string, patienceMs = 2_000): Promise<Replica> {
  const config = redisConfig(
    { kind: 'url', url: of.url },
    // Short, so that tests can show a lease that comes later than that.
    { commandTimeoutMs: 50, ...(prefix !== undefined && { keyPrefix: prefix }) },
  )
  const connection = new RedisConnection({ config, observer: silentObserver })
  onTestFinished(() => connection.close())
  await connection.settled(2000)
  const leases = new RedisLeases({ connection, keyPrefix: config.keyPrefix, patienceMs })
  return { leases, connection, prefix: config.keyPrefix }
}

const keyOf = ({ prefix }: Replica, digest: Digest): string => `${prefix}:1:o:{${digest}}`

describeLeases('Redis', async () => {
  const first = await replica()
  const second = await replica(server, first.prefix)
  return {
    first: first.leases,
    second: second.leases,
    expire: async digest => {
      // Redis' own time, made short.
      await server.admin.pexpire(keyOf(first, digest), 1)
      await until(async () => (await server.admin.exists(keyOf(first, digest))) === 0)
    },
  }
})

describe('leases in Redis', () => {
  it('F-53: live ten seconds, from anew with progress and not without', async () => {
    const first = await replica()
    const digest = newDigest()
    const lease = leaseOf(await first.leases.acquire(digest, one))
    const key = keyOf(first, digest)
    expect(await server.admin.pttl(key)).toBeGreaterThan(9000)
    await server.admin.pexpire(key, 3000)
    expect(await lease.renew(1)).toBe(true)
    expect(await server.admin.pttl(key)).toBeGreaterThan(9000)
    await server.admin.pexpire(key, 3000)
    expect(await lease.renew(1)).toBe(true)
    expect(await server.admin.pttl(key)).toBeLessThanOrEqual(3000)
  })

  it('a replica that was killed and is back takes over what it held', async () => {
    const killed = await replica()
    const digest = newDigest()
    const before = leaseOf(await killed.leases.acquire(digest, one))
    const back = await replica(server, killed.prefix)
    const after = leaseOf(await back.leases.acquire(digest, one))
    expect(after.token).toBeGreaterThan(before.token)
    expect(await before.renew(1)).toBe(false)
  })

  it('F-64: garbage is nobody: it is replaced, or deleted', async () => {
    const first = await replica()
    for (const garbage of ['', 'garbage', 'a b http://x', `life 1 file:///etc/passwd`]) {
      const digest = newDigest()
      await server.admin.set(keyOf(first, digest), garbage)
      const answer = await first.leases.acquire(digest, one)
      expect(answer && 'heldBy' in answer).not.toBe(true)
    }
    const digest = newDigest()
    await server.admin.lpush(keyOf(first, digest), 'a')
    expect(await first.leases.acquire(digest, one)).toBeUndefined()
    leaseOf(await first.leases.acquire(digest, one))
  })

  it('T-26: a holder with a user name, a query or another scheme is nobody to ask', async () => {
    const first = await replica()
    for (const url of ['http://u:p@10.0.0.9/', 'http://10.0.0.9/?x=1', 'gopher://10.0.0.9/', 'http://']) {
      const digest = newDigest()
      await server.admin.set(keyOf(first, digest), `other 5 ${url}`)
      expect(await first.leases.acquire(digest, one)).toBeUndefined()
    }
  })

  it('F-59: go alone while Redis is gone; nothing rejects', async () => {
    const gone = await RedisServer.start()
    onTestFinished(() => gone.stop())
    const first = await replica(gone)
    const lease = leaseOf(await first.leases.acquire(newDigest(), one))
    await gone.kill()
    expect(await first.leases.acquire(newDigest(), one)).toBeUndefined()
    expect(await lease.renew(1)).toBeUndefined()
    await lease.release()
    await gone.run()
    await until(() => first.connection.state().isUp)
    leaseOf(await first.leases.acquire(newDigest(), one))
  })

  it('F-60: a lease that comes late is waited for, also when records count as misses already', async () => {
    const slow = await RedisServer.start()
    onTestFinished(() => slow.stop())
    const first = await replica(slow)
    const [digest, other] = [newDigest(), newDigest()]
    const lease = leaseOf(await first.leases.acquire(other, one))
    slow.stand()
    const asking = first.leases.acquire(digest, one)
    const renewing = lease.renew(1)
    // Records give up meanwhile.
    for (let read = 0; read < 3; read++)
      await first.connection.run('read', commands => commands.get('x')).catch(() => {})
    expect(first.connection.state().isUp).toBe(false)
    const askingLater = first.leases.acquire(newDigest(), one)
    slow.goOn()
    leaseOf(await asking)
    leaseOf(await askingLater)
    expect(await renewing).toBe(true)
    await until(() => first.connection.state().isUp)
  })

  it('F-60: a Redis that is silent for longer is asked no more, and a lease that comes too late is given back', async () => {
    const slow = await RedisServer.start()
    onTestFinished(() => slow.stop())
    const first = await replica(slow, undefined, 300)
    const [digest, other] = [newDigest(), newDigest()]
    slow.stand()
    expect(await first.leases.acquire(digest, one)).toBeUndefined()
    expect(await first.leases.acquire(other, one)).toBeUndefined()
    slow.goOn()
    await until(async () => (await slow.admin.info('commandstats')).includes('cmdstat_eval:calls=2'))
    expect(await slow.admin.exists(keyOf(first, digest), keyOf(first, other))).toBe(0)
  })

  it('F-60: a Redis that is slower than a record may take, and stays so, is asked for leases all the time', async () => {
    const link = await startRedisLink(server.port, { delayMs: 150 })
    onTestFinished(() => link.stop())
    const first = await replica({ url: link.url })
    const read = (): Promise<unknown> =>
      first.connection.run('read', commands => commands.get('x')).catch(() => undefined)
    // For longer than leases wait, records are misses all the time.
    const end = performance.now() + 2_200
    while (performance.now() < end) {
      await read()
      await turn()
    }
    expect(first.connection.state().isUp).toBe(false)
    leaseOf(await first.leases.acquire(newDigest(), one))
  })

  it('F-59: a lease whose answer was lost with the connection is had by asking again', async () => {
    const link = await startRedisLink(server.port)
    onTestFinished(() => link.stop())
    const first = await replica({ url: link.url })
    const second = await replica(server, first.prefix)
    const digest = newDigest()
    link.loseNextAnswer()
    const lease = leaseOf(await first.leases.acquire(digest, one))
    expect(link.lost).toBe(1)
    expect(await second.leases.acquire(digest, two)).toMatchObject({ heldBy: one.url })
    expect(await lease.renew(1)).toBe(true)
    // Another download of this process is told that there is one.
    expect(await first.leases.acquire(digest, one)).toMatchObject({ heldBy: one.url })
  })

  it('says how long the holder has made no progress, by the clock of Redis', async () => {
    const first = await replica()
    const digest = newDigest()
    leaseOf(await first.leases.acquire(digest, one))
    await server.admin.pexpire(keyOf(first, digest), 4_000)
    const other = await replica(server, first.prefix)
    const held = await other.leases.acquire(digest, two)
    if (!held || !('heldBy' in held)) throw new Error('it is held')
    expect(held.idleMs).toBeGreaterThanOrEqual(6_000)
    expect(held.idleMs).toBeLessThanOrEqual(10_000)
  })
})
