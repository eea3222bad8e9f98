import { describe, expect, test } from 'vitest'
import { pseudoRandomBytes } from '../fakes/image.ts'
import type { RawResponse } from '../fakes/raw-client.ts'
import { get, untilStored, usingLayover } from './pulling.ts'

const room = usingLayover()

/** Everything of an answer but what says how it came to be. */
function essence({ status, headers, body }: RawResponse): object {
  const { date: _date, age: _age, warning: _warning, 'cache-status': _how, ...rest } = headers
  return { status, headers: rest, body: body.toString('base64') }
}

describe('however it was found', () => {
  test.each([
    {},
    { range: 'bytes=1000-1999' },
    { range: 'bytes=-10' },
    { 'if-none-match': '*' },
    { range: 'bytes=900000-' },
  ])('P-122: a blob is the same on a miss, joined and on a hit: %j', async headers => {
    const bytes = pseudoRandomBytes(500_000)
    const path = `/v2/app/blobs/${room.registry.addBlobTo('app', bytes)}`
    const gate = room.registry.gate({ method: 'GET', path: /blobs/, afterBytes: 250_000 })
    const miss = get(room.layover, path)
    await gate.reached
    const joined = get(room.layover, path, headers)
    gate.release()
    await untilStored(room.layover)
    const hit = await get(room.layover, path, headers)
    expect(hit.headers['cache-status'] ?? 'Layover; hit').toMatch(/^Layover; hit/)
    expect(essence(await joined)).toEqual(essence(hit))
    expect(essence(await miss)).toEqual(essence(await get(room.layover, path)))
    const restarted = await room.layover.restart()
    try {
      expect(essence(await get(restarted, path, headers))).toEqual(essence(hit))
    } finally {
      await restarted.close()
    }
  })

  test('P-122: a manifest is the same on a miss, joined, on a hit, revalidated, after a restart and stale', async () => {
    const image = room.registry.image('app', 'latest')
    const path = '/v2/app/manifests/latest'
    const gate = room.registry.gate({ path: /manifests/ })
    const first = [get(room.layover, path), get(room.layover, path)]
    await gate.reached
    gate.release()
    const answers = await Promise.all(first)
    answers.push(await get(room.layover, path))
    room.clock.advance(300_001)
    answers.push(await get(room.layover, path))
    for (const { digest } of [image.config, ...image.layers]) await get(room.layover, `/v2/app/blobs/${digest}`)
    await untilStored(room.layover, 3)
    const restarted = await room.layover.restart()
    try {
      answers.push(await get(restarted, path))
      await room.registry.stop()
      room.clock.advance(300_001)
      answers.push(await get(restarted, path))
      expect(answers.map(({ headers }) => headers['cache-status']?.replace(/; (ttl|key)=[^;]*/g, ''))).toEqual([
        'Layover; fwd=uri-miss',
        'Layover; fwd=uri-miss; collapsed',
        'Layover; hit',
        'Layover; fwd=stale; fwd-status=304',
        'Layover; hit',
        'Layover; hit; detail="stale"',
      ])
      for (const answer of answers) expect(essence(answer)).toEqual(essence(answers[0] ?? answer))
    } finally {
      await restarted.close()
    }
  })
})
