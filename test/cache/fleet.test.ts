import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { createFleet, type Fleet, type FleetFill } from '../../src/cache/fleet.ts'
import { digestOf } from '../../src/oci/digest.ts'
import type { Leases } from '../../src/store/leases.ts'
import { type UpstreamBlob, UpstreamError } from '../../src/upstream/upstream.ts'
import { FakeClock } from '../fakes/clock.ts'
import { brokenBody, PuppetPeer } from '../fakes/puppet-peer.ts'
import { SharedLeases } from '../fakes/shared-leases.ts'

const digest = digestOf(Buffer.from('layer'))
const signal = new AbortController().signal
const urls = { a: 'http://10.0.0.1:5002', b: 'http://10.0.0.2:5002', c: 'http://10.0.0.3:5002' }

/** Three replicas on one set of leases; what they see of each other is in the test's hands. */
function setUp() {
  const clock = new FakeClock()
  const leases = new SharedLeases(clock)
  const told: string[] = []
  const peers: Record<string, PuppetPeer> = {
    [urls.a]: new PuppetPeer(),
    [urls.b]: new PuppetPeer(),
    [urls.c]: new PuppetPeer(),
  }
  const peer = (url: string): PuppetPeer => peers[url] ?? new PuppetPeer()
  const fleetOf = (url: string, own: Leases = leases.of(url)): Fleet =>
    createFleet({
      leases: own,
      ownUrl: url,
      peerAt: at => peers[at],
      clock,
      observer: { storeFailed: operation => told.push(operation) },
    })
  return { clock, leases, told, peer, fleetOf }
}

/** What opening gives: the blob, or the word why not. */
async function opened(member: FleetFill, offset = 0): Promise<UpstreamBlob | string> {
  try {
    return await member.origin.open(offset, signal)
  } catch (error) {
    return error instanceof UpstreamError ? `${error.failure}:${error.reason}` : String(error)
  }
}

async function following(member: FleetFill, offset = 0): Promise<UpstreamBlob> {
  const blob = await opened(member, offset)
  if (typeof blob === 'string') throw new Error(`it does not follow: ${blob}`)
  return blob
}

async function read(blob: UpstreamBlob): Promise<string> {
  let text = ''
  for await (const chunk of blob.body) text += String(chunk)
  return text
}

const onItsOwn = 'notFound:no_owner'

afterEach(() => {
  vi.useRealTimers()
})

describe('a fleet', () => {
  it('F-52: one downloads, the others read from it at the byte that they need', async () => {
    const { leases, peer, fleetOf } = setUp()
    const [a, b, c] = [urls.a, urls.b, urls.c].map(url => fleetOf(url).join(digest)) as [
      FleetFill,
      FleetFill,
      FleetFill,
    ]
    peer(urls.a).serve({ size: 5 })
    expect(await opened(a)).toBe(onItsOwn)
    const blob = await following(b)
    expect(blob).toMatchObject({ offset: 0, size: 5 })
    expect(await following(c, 3)).toMatchObject({ offset: 3, size: 5 })
    expect(peer(urls.a).asked).toEqual([0, 3])
    expect([a, b, c].map(({ standing }) => standing)).toEqual(['owner', 'follower', 'follower'])
    expect(leases.given).toEqual([urls.a])
    peer(urls.a).bodies[0]?.push('layer')
    peer(urls.a).bodies[0]?.push(null)
    expect(await read(blob)).toBe('layer')
  })

  it('who downloads stays who downloads: asked again after a failure of upstream, it follows nobody', async () => {
    const { leases, fleetOf } = setUp()
    const a = fleetOf(urls.a).join(digest)
    expect(await opened(a)).toBe(onItsOwn)
    leases.flush()
    const b = fleetOf(urls.b).join(digest)
    expect(await opened(b)).toBe(onItsOwn)
    expect(await opened(a, 7)).toBe(onItsOwn)
  })

  it('F-53: a dead owner is replaced by exactly one of those who wait, and the others follow that one', async () => {
    const { leases, peer, fleetOf } = setUp()
    expect(await opened(fleetOf(urls.a).join(digest))).toBe(onItsOwn)
    peer(urls.b).serve()
    peer(urls.c).serve()
    const [b, c] = [fleetOf(urls.b).join(digest), fleetOf(urls.c).join(digest)]
    const answers = await Promise.all([opened(b), opened(c)])
    expect([b.standing, c.standing].toSorted()).toEqual(['follower', 'owner'])
    expect(answers.filter(answer => answer === onItsOwn)).toHaveLength(1)
    expect(leases.holder(digest)).toBe(b.standing === 'owner' ? urls.b : urls.c)
  })

  it('F-53: an owner that dies in the middle is followed by the next one at the byte that is missing, within one body', async () => {
    const { peer, fleetOf } = setUp()
    expect(await opened(fleetOf(urls.a).join(digest))).toBe(onItsOwn)
    peer(urls.a).serve({ size: 5 })
    const [b, c] = [fleetOf(urls.b).join(digest), fleetOf(urls.c).join(digest)]
    const [atB, atC] = [await following(b), await following(c)]
    for (const body of peer(urls.a).bodies) body.push('la')
    const [readB, readC] = [read(atB), read(atC)].map(async text => await text.catch(() => 'broke'))
    await turn()
    peer(urls.b).serve({ size: 5 })
    peer(urls.c).serve({ size: 5 })
    peer(urls.a).die()
    await vi.waitFor(() => expect([b.standing, c.standing].toSorted()).toEqual(['follower', 'owner']))
    const owner = b.standing === 'owner' ? urls.b : urls.c
    await vi.waitFor(() => expect(peer(owner).asked).toEqual([2]))
    peer(owner).bodies[0]?.push('yer')
    peer(owner).bodies[0]?.push(null)
    expect(await Promise.all([readB, readC])).toEqual(owner === urls.b ? ['broke', 'layer'] : ['layer', 'broke'])
    expect(await opened(b.standing === 'owner' ? b : c, 2)).toBe(onItsOwn)
  })

  it('skips what the next replica gives again from byte 0', async () => {
    const { peer, fleetOf } = setUp()
    expect(await opened(fleetOf(urls.a).join(digest))).toBe(onItsOwn)
    peer(urls.a).serve()
    const blob = await following(fleetOf(urls.b).join(digest))
    const text = read(blob)
    peer(urls.a).bodies[0]?.push('lay')
    await turn()
    peer(urls.a).serve({ from: 0 })
    peer(urls.a).bodies[0]?.destroy(brokenBody())
    await vi.waitFor(() => expect(peer(urls.a).bodies).toHaveLength(2))
    for (const part of ['l', 'ay', 'er', null]) peer(urls.a).bodies[1]?.push(part)
    expect(await text).toBe('layer')
  })

  it('F-53: bytes that move keep the lease; an owner that stands still loses it, and may finish later', async () => {
    const { clock, leases, peer, fleetOf } = setUp()
    const a = fleetOf(urls.a).join(digest)
    await opened(a)
    for (let received = 1; received <= 5; received++) {
      clock.advance(4_000)
      a.progressed(received)
      await turn()
    }
    expect(leases.holder(digest)).toBe(urls.a)
    // The same number again is no progress.
    clock.advance(6_000)
    a.progressed(5)
    await turn()
    clock.advance(6_000)
    expect(leases.holder(digest)).toBeUndefined()
    peer(urls.a).serve()
    const b = fleetOf(urls.b).join(digest)
    expect(await opened(b)).toBe(onItsOwn)
    // Resumed: it finds the lease lost, takes nothing back, and goes on for itself.
    a.progressed(6)
    await turn()
    expect([a.standing, b.standing]).toEqual(['alone', 'owner'])
    a.end({ published: true })
    await turn()
    expect(leases.holder(digest)).toBe(urls.b)
  })

  it('asks Redis at most once in three seconds, however many chunks arrive', async () => {
    const { clock, leases, fleetOf } = setUp()
    const renewed: number[] = []
    const inner = leases.of(urls.a)
    const counting: Leases = {
      acquire: async (of, owner) => {
        const claim = await inner.acquire(of, owner)
        if (!claim || 'heldBy' in claim) return claim
        return { ...claim, renew: progress => (renewed.push(progress), claim.renew(progress)) }
      },
    }
    const a = fleetOf(urls.a, counting).join(digest)
    await opened(a)
    for (let received = 1; received <= 1_000; received++) {
      clock.advance(10)
      a.progressed(received)
      if (received % 50 === 0) await turn()
    }
    expect(renewed).toEqual([300, 600, 900])
  })

  it('F-63: a lease that went with the store is taken again at the next progress', async () => {
    const { clock, leases, fleetOf } = setUp()
    const a = fleetOf(urls.a).join(digest)
    await opened(a)
    leases.flush()
    clock.advance(3_000)
    a.progressed(1)
    await turn()
    expect(a.standing).toBe('owner')
    expect(leases.holder(digest)).toBe(urls.a)
  })

  it('F-53: while an owner that stands still has its lease, those who wait ask it again; then one of them downloads', async () => {
    const { clock, peer, fleetOf } = setUp()
    await opened(fleetOf(urls.a).join(digest))
    peer(urls.a).serve()
    const b = fleetOf(urls.b).join(digest)
    const text = read(await following(b)).catch((error: unknown) => error)
    clock.advance(5_000)
    peer(urls.a).bodies[0]?.destroy(brokenBody('timeout'))
    await vi.waitFor(() => expect(peer(urls.a).asked).toEqual([0, 0]))
    clock.advance(5_001)
    peer(urls.a).bodies[1]?.destroy(brokenBody('timeout'))
    expect(await text).toMatchObject({ reason: 'timeout' })
    expect(b.standing).toBe('owner')
  })

  it('an owner that gives no byte over several connections counts as gone, whatever its lease says', async () => {
    const { peer, leases, fleetOf } = setUp()
    await opened(fleetOf(urls.a).join(digest))
    peer(urls.a).serve()
    const b = fleetOf(urls.b).join(digest)
    const text = read(await following(b)).catch((error: unknown) => error)
    for (const connections of [2, 3]) {
      peer(urls.a).bodies.at(-1)?.destroy(brokenBody())
      await vi.waitFor(() => expect(peer(urls.a).bodies).toHaveLength(connections))
    }
    peer(urls.a).bodies.at(-1)?.destroy(brokenBody())
    expect(await text).toMatchObject({ reason: 'truncated' })
    expect(peer(urls.a).asked).toEqual([0, 0, 0])
    expect(leases.holder(digest)).toBe(urls.b)
  })

  it('F-66: without leases every replica goes alone', async () => {
    const { told, fleetOf } = setUp()
    const away = fleetOf(urls.a, { acquire: async () => undefined }).join(digest)
    expect(await opened(away)).toBe(onItsOwn)
    expect(away.standing).toBe('alone')
    const broken = fleetOf(urls.a, { acquire: () => Promise.reject(new Error('broken')) }).join(digest)
    expect(await opened(broken)).toBe(onItsOwn)
    expect(told).toEqual(['lease'])
  })

  it('goes alone where the lease names this replica itself, or an address that no replica has', async () => {
    const { fleetOf } = setUp()
    for (const heldBy of [urls.b, 'http://10.9.9.9:1']) {
      const b = fleetOf(urls.b, { acquire: async () => ({ heldBy, idleMs: 0 }) }).join(digest)
      expect(await opened(b)).toBe(onItsOwn)
      expect(b.standing).toBe('alone')
    }
  })

  it('goes alone past a replica that refuses its secret, takes no lease from it, and says so', async () => {
    const { leases, peer, told, fleetOf } = setUp()
    await opened(fleetOf(urls.a).join(digest))
    peer(urls.a).answer = () => {
      throw new UpstreamError('denied', 'peer', 'http_401', 'another secret')
    }
    const b = fleetOf(urls.b).join(digest)
    expect(await opened(b)).toBe(onItsOwn)
    expect([b.standing, leases.holder(digest), told]).toEqual(['alone', urls.a, ['peer']])
  })

  it('never asks without end: where every holder is dead and leases cannot be taken over, it goes alone', async () => {
    const { peer, fleetOf } = setUp()
    const b = fleetOf(urls.b, { acquire: async () => ({ heldBy: urls.a, idleMs: 0 }) }).join(digest)
    expect(await opened(b)).toBe(onItsOwn)
    expect(b.standing).toBe('alone')
    expect(peer(urls.a).asked.length).toBeLessThanOrEqual(8)
  })

  it('F-60: a late answer to a renewal does not lose the lease: it is asked for again, a second later', async () => {
    const { clock, leases, fleetOf } = setUp()
    const inner = leases.of(urls.a)
    const answers: (boolean | undefined)[] = [undefined, undefined]
    const asked: number[] = []
    const slow: Leases = {
      acquire: async (of, owner) => {
        const claim = await inner.acquire(of, owner)
        if (!claim || 'heldBy' in claim) return claim
        const renew = async (progress: number): Promise<boolean | undefined> => {
          asked.push(progress)
          return answers.length > 0 ? answers.pop() : claim.renew(progress)
        }
        return { ...claim, renew }
      },
    }
    const a = fleetOf(urls.a, slow).join(digest)
    await opened(a)
    for (let received = 1; received <= 6; received++) {
      clock.advance(1_000)
      a.progressed(received)
      await turn()
    }
    expect([asked, a.standing, leases.holder(digest)]).toEqual([[3, 4, 5], 'owner', urls.a])
    clock.advance(8_000)
    expect(leases.holder(digest)).toBe(urls.a)
  })

  it('F-59: who went alone, because nobody could be asked, takes the lease as soon as it can be had, so that the next ones follow', async () => {
    const { clock, leases, peer, fleetOf } = setUp()
    const inner = leases.of(urls.a)
    let isAway = true
    const away: Leases = { acquire: async (of, owner) => (isAway ? undefined : inner.acquire(of, owner)) }
    const a = fleetOf(urls.a, away).join(digest)
    expect(await opened(a)).toBe(onItsOwn)
    clock.advance(3_000)
    a.progressed(1)
    await turn()
    expect(a.standing).toBe('alone')
    isAway = false
    a.progressed(2)
    await turn()
    // Not at every chunk.
    expect(a.standing).toBe('alone')
    clock.advance(3_000)
    a.progressed(3)
    await turn()
    expect([a.standing, leases.holder(digest)]).toEqual(['owner', urls.a])
    peer(urls.a).serve()
    await following(fleetOf(urls.b).join(digest))
    expect(peer(urls.a).asked).toEqual([0])
  })

  it('F-53: a holder that keeps its lease and is too busy to answer is asked again, and read from', async () => {
    const { leases, peer, fleetOf } = setUp()
    await opened(fleetOf(urls.a).join(digest))
    let silences = 2
    peer(urls.a).serve()
    const serve = peer(urls.a).answer
    peer(urls.a).answer = offset => {
      if (silences-- > 0) throw brokenBody('timeout')
      return serve(offset)
    }
    const b = fleetOf(urls.b).join(digest)
    await following(b)
    expect([b.standing, peer(urls.a).asked, leases.given]).toEqual(['follower', [0, 0, 0], [urls.a]])
  })

  it('F-53: one that never answers and keeps its lease is left it; one that does not keep it loses it', async () => {
    const { clock, leases, peer, fleetOf } = setUp()
    await opened(fleetOf(urls.a).join(digest))
    peer(urls.a).answer = () => {
      throw brokenBody('timeout')
    }
    const b = fleetOf(urls.b).join(digest)
    expect(await opened(b)).toBe(onItsOwn)
    expect([b.standing, leases.holder(digest), peer(urls.a).asked.length]).toEqual(['alone', urls.a, 3])
    clock.advance(5_000)
    const c = fleetOf(urls.c).join(digest)
    expect(await opened(c)).toBe(onItsOwn)
    expect([c.standing, leases.holder(digest), peer(urls.a).asked.length]).toEqual(['owner', urls.c, 4])
  })

  it.each([1, -1])('F-42: a jump of the wall clock by %d day changes nothing', async days => {
    const { clock, leases, peer, fleetOf } = setUp()
    const a = fleetOf(urls.a).join(digest)
    await opened(a)
    peer(urls.a).serve()
    const b = fleetOf(urls.b).join(digest)
    await following(b)
    clock.jump(days * 24 * 60 * 60_000)
    // Neither lost, nor kept for ever.
    for (let received = 1; received <= 5; received++) {
      clock.advance(4_000)
      a.progressed(received)
      await turn()
    }
    expect([a.standing, b.standing, leases.holder(digest), leases.given]).toEqual([
      'owner',
      'follower',
      urls.a,
      [urls.a],
    ])
    clock.advance(10_001)
    expect(leases.holder(digest)).toBeUndefined()
  })

  it('P-119: a range beside the download is no matter of the fleet and takes no lease', async () => {
    const { leases, fleetOf } = setUp()
    const b = fleetOf(urls.b).join(digest)
    await expect(b.origin.open(10, signal, 20)).rejects.toMatchObject({ failure: 'notFound' })
    expect([leases.given, b.standing]).toEqual([[], 'undecided'])
  })

  it('F-17: who leaves while it waits takes no lease', async () => {
    const { leases, peer, fleetOf } = setUp()
    await opened(fleetOf(urls.a).join(digest))
    const leave = new AbortController()
    peer(urls.a).answer = () => {
      leave.abort(new Error('the client left'))
      throw brokenBody()
    }
    const b = fleetOf(urls.b).join(digest)
    await expect(b.origin.open(0, leave.signal)).rejects.toThrow('the client left')
    expect(leases.given).toEqual([urls.a])
  })

  it('lets the body of the other replica go when nobody reads it any more', async () => {
    const { leases, peer, fleetOf } = setUp()
    await opened(fleetOf(urls.a).join(digest))
    peer(urls.a).serve()
    const blob = await following(fleetOf(urls.b).join(digest))
    blob.body.destroy()
    await turn()
    expect(peer(urls.a).bodies[0]?.destroyed).toBe(true)
    expect([leases.given, peer(urls.a).asked]).toEqual([[urls.a], [0]])
  })
})

describe('the end of a download', () => {
  it('lets go of the lease at once after a failure', async () => {
    const { leases, fleetOf } = setUp()
    const a = fleetOf(urls.a).join(digest)
    await opened(a)
    a.end({ published: false })
    await turn()
    expect(leases.holder(digest)).toBeUndefined()
  })

  it('releases a lease that arrives after the end', async () => {
    const { leases, fleetOf } = setUp()
    const arriving = Promise.withResolvers<void>()
    const inner = leases.of(urls.a)
    const slow: Leases = { acquire: async (of, owner) => (await arriving.promise, inner.acquire(of, owner)) }
    const a = fleetOf(urls.a, slow).join(digest)
    const asking = opened(a)
    a.end({ published: false })
    arriving.resolve()
    await asking
    expect([leases.given, leases.holder(digest)]).toEqual([[urls.a], undefined])
  })

  it('keeps sending others here for ten seconds after publication', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    const { clock, leases, fleetOf } = setUp()
    const a = fleetOf(urls.a).join(digest)
    await opened(a)
    a.progressed(5)
    a.end({ published: true })
    const held: boolean[] = []
    for (let seconds = 3; seconds <= 15; seconds += 3) {
      clock.advance(3_000)
      await vi.advanceTimersByTimeAsync(3_000)
      held.push(leases.holder(digest) !== undefined)
    }
    expect(held).toEqual([true, true, true, false, false])
  })

  it('keeps sending others here until the upload is over, at most a minute', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    const { clock, leases, fleetOf } = setUp()
    const pass = async (seconds: number): Promise<void> => {
      for (let passed = 0; passed < seconds; passed += 3) {
        clock.advance(3_000)
        await vi.advanceTimersByTimeAsync(3_000)
      }
    }
    const upload = Promise.withResolvers<void>()
    const a = fleetOf(urls.a).join(digest)
    await opened(a)
    a.end({ published: true, until: upload.promise })
    await pass(30)
    expect(leases.holder(digest)).toBe(urls.a)
    upload.resolve()
    // Who did not find it there a moment before is still sent here.
    await vi.advanceTimersByTimeAsync(0)
    expect(leases.holder(digest)).toBe(urls.a)
    await pass(3)
    expect(leases.holder(digest)).toBeUndefined()

    const again = fleetOf(urls.b).join(digest)
    await opened(again)
    again.end({ published: true, until: new Promise(() => undefined) })
    await pass(57)
    expect(leases.holder(digest)).toBe(urls.b)
    await pass(6)
    expect(leases.holder(digest)).toBeUndefined()
  })

  it('F-59: sends others here too for what was downloaded while nobody could be asked', async () => {
    const { leases, fleetOf } = setUp()
    const inner = leases.of(urls.a)
    let isAway = true
    const away: Leases = { acquire: async (of, owner) => (isAway ? undefined : inner.acquire(of, owner)) }
    const fleet = fleetOf(urls.a, away)
    const a = fleet.join(digest)
    expect(await opened(a)).toBe(onItsOwn)
    isAway = false
    a.end({ published: true, until: new Promise(() => undefined) })
    await turn()
    expect(leases.holder(digest)).toBe(urls.a)
    await fleet.close()
    expect(leases.holder(digest)).toBeUndefined()
  })

  it('lets go of a lease that comes when the replica has stopped', async () => {
    const { leases, fleetOf } = setUp()
    const inner = leases.of(urls.a)
    const answers: (() => void)[] = []
    const slow: Leases = {
      acquire: async (of, owner) => {
        if (answers.length === 0) return void answers.push(() => {})
        await new Promise<void>(resolve => answers.push(resolve))
        return inner.acquire(of, owner)
      },
    }
    const fleet = fleetOf(urls.a, slow)
    const a = fleet.join(digest)
    expect(await opened(a)).toBe(onItsOwn)
    a.end({ published: true })
    await fleet.close()
    for (const answer of answers) answer()
    await turn()
    expect([leases.given, leases.holder(digest)]).toEqual([[urls.a], undefined])
  })

  it('lets go of everything when the replica stops', async () => {
    const { leases, fleetOf } = setUp()
    const fleet = fleetOf(urls.a)
    const [running, published] = [fleet.join(digest), fleet.join(digestOf(Buffer.from('other')))]
    await opened(running)
    await opened(published)
    published.end({ published: true })
    await fleet.close()
    await fleet.close()
    expect([leases.holder(digest), leases.holder(digestOf(Buffer.from('other')))]).toEqual([undefined, undefined])
  })
})
