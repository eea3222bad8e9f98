import { describe, expect, test } from 'vitest'
import { exchangeRaw } from '../fakes/raw-client.ts'
import { pseudoRandomBytes } from '../fakes/image.ts'
import { accessLines, get, head, openStream, untilStored, usingLayover } from './pulling.ts'

const room = usingLayover()

const series = (name: string, labels: Record<string, string>): string =>
  `${name}{${Object.entries(labels)
    .map(([key, value]) => `${key}="${value}"`)
    .join(',')}}`

describe('the access log', () => {
  test('T-51: one line for each request, with what was asked, how it was answered and how many bytes left', async () => {
    const { digest, manifestBytes, layers } = room.registry.image('app', 'latest')
    const layer = layers[0]
    await get(room.layover, '/v2/')
    await get(room.layover, '/v2/app/manifests/latest?ns=fake.test', { 'user-agent': 'containerd/2.1' })
    await head(room.layover, `/v2/app/manifests/${digest}`)
    await get(room.layover, `/v2/app/blobs/${layer?.digest}`)
    await untilStored(room.layover)
    await get(room.layover, `/v2/app/blobs/${layer?.digest}`, { range: 'bytes=0-99' })
    const multi = await get(room.layover, `/v2/app/blobs/${layer?.digest}`, { range: 'bytes=0-9,20-29' })
    await get(room.layover, `/v2/app/blobs/${layer?.digest}`, { 'if-none-match': '*' })
    await get(room.layover, '/v2/app/manifests/nope')
    await get(room.layover, '/v2/A/manifests/latest')
    await get(room.layover, '/elsewhere')
    const lines = await accessLines(room.layover, 10)
    expect(
      lines.map(({ method, path, status, outcome, upstream, bytes }) => [
        method,
        path,
        status,
        outcome,
        upstream,
        bytes,
      ]),
    ).toEqual([
      ['GET', '/v2/', 200, 'hit', 'none', 2],
      ['GET', '/v2/app/manifests/latest', 200, 'fill', 'fake.test', manifestBytes.length],
      ['HEAD', `/v2/app/manifests/${digest}`, 200, 'hit', 'fake.test', 0],
      ['GET', `/v2/app/blobs/${layer?.digest}`, 200, 'fill', 'fake.test', layer?.size],
      ['GET', `/v2/app/blobs/${layer?.digest}`, 206, 'hit', 'fake.test', 100],
      ['GET', `/v2/app/blobs/${layer?.digest}`, 206, 'hit', 'fake.test', multi.body.length],
      ['GET', `/v2/app/blobs/${layer?.digest}`, 304, 'hit', 'fake.test', 0],
      ['GET', '/v2/app/manifests/nope', 404, 'error', 'fake.test', expect.any(Number)],
      ['GET', '/v2/A/manifests/latest', 400, 'error', 'none', expect.any(Number)],
      ['GET', '/elsewhere', 404, 'error', 'none', expect.any(Number)],
    ])
    expect(lines[1]).toMatchObject({
      level: 'info',
      repository: 'app',
      reference: 'latest',
      agent: 'containerd/2.1',
      client: '127.0.0.1',
    })
    expect(lines[1]?.ms).toBeGreaterThanOrEqual(0)
  })

  test('T-51: line breaks, ANSI and JSON in a path, a name or an agent stay inside of their line', async () => {
    const nasty = [
      '/v2/app/manifests/%0a{"level":"fatal"}',
      '/v2/%1b[31m/manifests/x',
      '/v2/"},{"level":"fatal"/manifests/x',
      `/v2/${'a'.repeat(5_000)}/manifests/x`,
      '/v2/app/manifests/x?q="}\\n{"level":"fatal"}',
    ]
    for (const target of nasty)
      await exchangeRaw(
        room.layover.port,
        `GET ${target} HTTP/1.1\r\nHost: x\r\nUser-Agent: a"}\t\u00e9 {"level":"fatal"} ${'u'.repeat(5_000)}\r\nConnection: close\r\n\r\n`,
      )
    const lines = await accessLines(room.layover, nasty.length)
    expect(lines).toHaveLength(nasty.length)
    const raw = room.layover.logged()
    // Each piece of text between line breaks is one object, and none became another's level.
    for (const line of raw.trim().split('\n'))
      expect(['info', 'warn', 'debug']).toContain((JSON.parse(line) as { level: string }).level)
    for (const line of raw.split('\n')) expect(line.length).toBeLessThan(4_000)
    expect(raw).not.toMatch(/[\x00-\x09\x0b-\x1f]/)
  })

  test('T-40, T-61: the client is whose connection it is, whatever its headers say', async () => {
    const claims = {
      'x-forwarded-for': '203.0.113.9',
      'x-real-ip': '203.0.113.9',
      forwarded: 'for=203.0.113.9',
      'x-request-id': 'claimed-id',
      traceparent: '00-claimed-id-01',
    }
    await get(room.layover, '/v2/', claims)
    const [line] = await accessLines(room.layover, 1)
    expect(line?.client).toBe('127.0.0.1')
    expect(room.layover.logged()).not.toMatch(/203\.0\.113|claimed-id/)
  })

  test('P-120, F-1: a cut answer is a warning with its reason, and no success', async () => {
    const bytes = pseudoRandomBytes(300_000)
    const digest = room.registry.addBlobTo('app', bytes)
    room.registry.fault({ path: /blobs/ }, { kind: 'flip', at: 5 })
    await get(room.layover, `/v2/app/blobs/${digest}`)
    const [line] = await accessLines(room.layover, 1)
    expect(line).toMatchObject({ level: 'warn', cut: true, status: 200, outcome: 'fill' })
    expect(line?.error).toMatch(/hash to sha256:/)
  })
})

describe('figures', () => {
  test('design §6: served bytes are those written to clients, upstream bytes those that upstream wrote', async () => {
    const { manifestBytes, config, layers } = room.registry.image('app', 'latest', { layerBytes: 150_000 })
    let blobBytes = 0
    let manifests = 0
    for (let pull = 0; pull < 3; pull++) {
      manifests += (await get(room.layover, '/v2/app/manifests/latest')).body.length
      for (const { digest } of [config, ...layers])
        blobBytes += (await get(room.layover, `/v2/app/blobs/${digest}`)).body.length
    }
    await accessLines(room.layover, 12)
    const served = (kind: string, source: string) =>
      room.layover.metric(series('layover_served_bytes_total', { upstream: 'fake.test', kind, source }))
    const fetched = (kind: string) =>
      room.layover.metric(series('layover_upstream_bytes_total', { upstream: 'fake.test', kind }))
    const size = config.size + 300_000
    expect([manifests, blobBytes]).toEqual([3 * manifestBytes.length, 3 * size])
    expect([await served('manifest_tag', 'fill'), await served('manifest_tag', 'memory')]).toEqual([
      manifestBytes.length,
      2 * manifestBytes.length,
    ])
    // Who asks before the download was published reads from it.
    expect((await served('blob', 'fill')) + (await served('blob', 'disk'))).toBe(3 * size)
    expect(await served('blob', 'fill')).toBeGreaterThanOrEqual(size)
    expect(await fetched('blob')).toBe(room.registry.bytes({ path: /blobs/ }))
    expect(await fetched('manifest')).toBe(room.registry.bytes({ path: /manifests/ }))
  })

  test('design §6: what is fetched again after a break counts as fetched, and once as served', async () => {
    const bytes = pseudoRandomBytes(400_000)
    const digest = room.registry.addBlobTo('app', bytes)
    room.registry.fault({ path: /blobs/ }, { kind: 'cut', at: 200_000, how: 'fin' })
    room.registry.fault({ path: /blobs/ }, { kind: 'ignoreRange' })
    expect((await get(room.layover, `/v2/app/blobs/${digest}`)).body.equals(bytes)).toBe(true)
    await accessLines(room.layover, 1)
    expect(
      await room.layover.metric(series('layover_upstream_bytes_total', { upstream: 'fake.test', kind: 'blob' })),
    ).toBe(600_000)
    expect(
      await room.layover.metric(
        series('layover_served_bytes_total', { upstream: 'fake.test', kind: 'blob', source: 'fill' }),
      ),
    ).toBe(400_000)
  })

  test('T-50: requests are counted by upstream, kind and outcome, whatever a client calls them', async () => {
    room.registry.image('app', 'latest')
    await get(room.layover, '/v2/app/manifests/latest')
    await get(room.layover, '/v2/app/manifests/latest')
    const countSeries = async (): Promise<number> =>
      (await room.layover.metrics()).split('\n').filter(line => line.startsWith('layover_')).length
    await get(room.layover, '/v2/first/manifests/x')
    const before = await countSeries()
    for (let index = 0; index < 50; index++)
      await get(room.layover, `/v2/name-${index}/manifests/tag-${index}`, { 'user-agent': `agent-${index}` })
    expect(await countSeries()).toBe(before)
    const requests = (outcome: string) =>
      room.layover.metric(series('layover_requests_total', { upstream: 'fake.test', kind: 'manifest_tag', outcome }))
    expect([await requests('fill'), await requests('hit'), await requests('error')]).toEqual([1, 1, 51])
  })

  test('P-120: bytes of a client that left are those it could have got', async () => {
    const bytes = pseudoRandomBytes(600_000)
    const digest = room.registry.addBlobTo('app', bytes)
    const gate = room.registry.gate({ path: /blobs/, afterBytes: 100_000 })
    const leaving = await openStream(room.layover, `/v2/app/blobs/${digest}`)
    await leaving.read(90_000)
    leaving.leave()
    const [line] = await accessLines(room.layover, 1)
    gate.release()
    expect(line?.bytes).toBeGreaterThanOrEqual(90_000)
    expect(line?.bytes).toBeLessThanOrEqual(100_000)
  })
})
