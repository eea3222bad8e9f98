import { describe, expect, test } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { pseudoRandomBytes } from '../fakes/image.ts'
import { startTestLayover } from '../fakes/layover.ts'
import { exchangeRaw, parseResponse } from '../fakes/raw-client.ts'
import { errorCode, eventually, get, openStream, untilStored, usingLayover } from './pulling.ts'

const room = usingLayover()
const size = 2_000_000
const bytes = pseudoRandomBytes(size)
const digest = digestOf(bytes)
const path = `/v2/app/blobs/${digest}`

const gets = (): number => room.registry.count({ method: 'GET', path: /blobs/ })
const running = 'layover_fills_running{upstream="fake.test"}'

describe('one download for all', () => {
  test('T-49: fifty clients of a cold blob are one request upstream, and each gets the right bytes', async () => {
    room.registry.addBlobTo('app', bytes)
    const answers = await Promise.all(Array.from({ length: 50 }, () => get(room.layover, path)))
    for (const { status, body } of answers) expect([status, digestOf(body)]).toEqual([200, digest])
    expect(gets()).toBe(1)
    expect(room.registry.bytes({ path: /blobs/ })).toBe(size)
  })

  test('F-17: the first client is killed at a tenth; fifty others notice nothing', async () => {
    room.registry.addBlobTo('app', bytes)
    const gate = room.registry.gate({ path: /blobs/, afterBytes: size / 2 })
    const leader = await openStream(room.layover, path)
    const followers = await Promise.all(Array.from({ length: 50 }, () => openStream(room.layover, path)))
    await leader.read(size / 10)
    leader.leave()
    gate.release()
    for (const { body, complete } of await Promise.all(followers.map(follower => follower.rest())))
      expect([complete, digestOf(body)]).toEqual([true, digest])
    expect(gets()).toBe(1)
    for (const { response } of followers) expect(response.headers['cache-status']).toContain('collapsed')
  })

  test('F-21: clients that come while it runs, when it is all but done and after it get the same', async () => {
    room.registry.addBlobTo('app', bytes)
    const gate = room.registry.gate({ path: /blobs/, afterBytes: size - 1 })
    const clients = [openStream(room.layover, path)]
    await gate.reached
    clients.push(openStream(room.layover, path))
    const joined = await Promise.all(clients)
    gate.release()
    clients.push(openStream(room.layover, path))
    for (const client of [...joined, await clients.at(-1)]) {
      const { body, complete } = (await client?.rest()) ?? { body: Buffer.alloc(0), complete: false }
      expect([complete, digestOf(body)]).toEqual([true, digest])
    }
    expect(gets()).toBe(1)
  })

  test('P-117: the first byte does not wait for the last', async () => {
    room.registry.addBlobTo('app', bytes)
    const gate = room.registry.gate({ path: /blobs/, afterBytes: 1_000 })
    const client = await openStream(room.layover, path)
    expect((await client.read(999)).length).toBeGreaterThanOrEqual(999)
    gate.release()
    expect(digestOf((await client.rest()).body)).toBe(digest)
  })

  test('P-59: a wrong blob is never whole, never kept, and counted', async () => {
    room.registry.addBlobTo('app', bytes)
    room.registry.fault({ path: /blobs/ }, { kind: 'flip', at: 10 })
    const { bytes: received } = await exchangeRaw(room.layover.port, `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
    expect(parseResponse(received).body.length).toBeLessThan(size)
    expect(await room.layover.metric('layover_storage_blobs')).toBe(0)
    expect(await room.layover.metric('layover_fills_failed_total{upstream="fake.test",reason="digest_mismatch"}')).toBe(
      1,
    )
  })

  test('F-20: a download that cannot be had fails for all alike, after one round of attempts', async () => {
    room.registry.addBlobTo('app', bytes)
    const gate = room.registry.gate({ path: /blobs/ })
    room.registry.fault({ path: /blobs/, times: 1000 }, { kind: 'status', status: 404 })
    const answers = Array.from({ length: 20 }, () => get(room.layover, path))
    await gate.reached
    gate.release()
    for (const answer of await Promise.all(answers))
      expect([answer.status, errorCode(answer)]).toEqual([404, 'BLOB_UNKNOWN'])
    expect(room.registry.count({ path: /blobs/ })).toBeLessThanOrEqual(2)
  })

  test('F-18, T-35: everybody leaves early: what is small or far enough along is finished', async () => {
    room.registry.addBlobTo('app', bytes)
    const gate = room.registry.gate({ path: /blobs/, afterBytes: size / 10 })
    const clients = await Promise.all(Array.from({ length: 5 }, () => openStream(room.layover, path)))
    for (const client of clients) client.leave()
    gate.release()
    await untilStored(room.layover)
    await room.registry.stop()
    expect(digestOf((await get(room.layover, path)).body)).toBe(digest)
  })

  test('F-18, T-35: ranges of large blobs that are left at once cost upstream a bounded part of them', async () => {
    const upstreams = { 'fake.test': room.registry }
    const fills = {
      finishWithinBytes: 100_000,
      finishFromShare: 0.5,
      abandonMs: 20,
      nearBytes: 1_000_000,
      maxSideReads: 4,
      maxAttempts: 5,
      earlyRanges: false,
    }
    const layover = await startTestLayover({ upstreams, config: { fills } })
    try {
      const digests = Array.from({ length: 10 }, (_, seed) =>
        room.registry.addBlobTo('app', pseudoRandomBytes(size, `large ${seed}`)),
      )
      room.registry.fault({ path: /blobs/, times: 1000 }, { kind: 'slow', bytesPerSecond: 400_000 })
      for (const each of digests) {
        const client = await openStream(layover, `/v2/app/blobs/${each}`, { range: 'bytes=0-0' })
        expect(client.response.statusCode).toBe(206)
        client.leave()
      }
      await eventually(async () => ((await layover.metric(running)) === 0 ? true : undefined))
      expect(await layover.metric('layover_fills_total{upstream="fake.test",outcome="cancelled"}')).toBe(10)
      expect(room.registry.bytes({ path: /blobs/ })).toBeLessThan((10 * size) / 4)
      room.registry.clearFaults()
      expect(digestOf((await get(layover, `/v2/app/blobs/${digests[0]}`)).body)).toBe(digests[0])
    } finally {
      await layover.close()
    }
  })

  test('T-49: fifty clients of a cold tag are one request upstream', async () => {
    const image = room.registry.image('app', 'latest')
    const answers = await Promise.all(Array.from({ length: 50 }, () => get(room.layover, '/v2/app/manifests/latest')))
    for (const { status, headers } of answers)
      expect([status, headers['docker-content-digest']]).toEqual([200, image.digest])
    expect(room.registry.count({ path: /manifests/ })).toBe(1)
    const outcomes = answers.map(({ headers }) =>
      headers['cache-status']?.includes('collapsed')
        ? 'joined'
        : headers['cache-status']?.includes('fwd=uri-miss')
          ? 'fill'
          : 'hit',
    )
    expect(outcomes.filter(outcome => outcome === 'fill')).toHaveLength(1)
  })
})

describe('an image between two readers of different speed', () => {
  test('F-19: one that stands still holds up nobody', async () => {
    room.registry.addBlobTo('app', bytes)
    const still = await openStream(room.layover, path)
    still.response.pause()
    const { body } = await get(room.layover, path)
    expect(digestOf(body)).toBe(digest)
    await eventually(async () => ((await room.layover.metric(running)) === 0 ? true : undefined))
    expect(digestOf((await still.rest()).body)).toBe(digest)
    expect(gets()).toBe(1)
  })
})
