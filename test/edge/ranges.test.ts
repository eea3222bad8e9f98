import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { pseudoRandomBytes } from '../fakes/image.ts'
import { startTestLayover } from '../fakes/layover.ts'
import type { RawResponse } from '../fakes/raw-client.ts'
import { errorCode, get, head, openStream, untilStored, usingLayover } from './pulling.ts'

const room = usingLayover()
const size = 1_000_000
const bytes = pseudoRandomBytes(size)
const digest = digestOf(bytes)
const path = `/v2/app/blobs/${digest}`

/** How a blob can be found when a range of it is asked for. */
type State = 'cold' | 'running' | 'hit'
const states: readonly State[] = ['cold', 'running', 'hit']

/** Brings the blob into a state; gives what lets a running download go on. */
async function bring(state: State): Promise<() => void> {
  room.registry.addBlobTo('app', bytes)
  if (state === 'cold') return () => undefined
  if (state === 'hit') {
    await get(room.layover, path)
    await untilStored(room.layover)
    await room.registry.stop()
    return () => undefined
  }
  const gate = room.registry.gate({ path: /blobs/, afterBytes: size / 4 })
  await openStream(room.layover, path)
  await gate.reached
  return () => gate.release()
}

async function ranged(state: State, range: string, headers: Record<string, string> = {}): Promise<RawResponse> {
  const go = await bring(state)
  const answer = get(room.layover, path, { range, ...headers })
  go()
  return await answer
}

const single: readonly [string, string, number, number][] = [
  ['stargz asks for the first two bytes', 'bytes=0-1', 0, 1],
  ['containerd asks from the start', 'bytes=0-', 0, size - 1],
  ['containerd resumes', `bytes=${size / 2}-`, size / 2, size - 1],
  ['a footer', 'bytes=-51', size - 51, size - 1],
  ['a suffix longer than the blob', `bytes=-${size * 2}`, 0, size - 1],
  ['an end beyond the blob', `bytes=999990-${size * 2}`, 999_990, size - 1],
  ['an end beyond 2^64 (T-36)', 'bytes=0-18446744073709551615', 0, size - 1],
  ['the last byte', `bytes=${size - 1}-`, size - 1, size - 1],
  ['one byte in the middle', 'bytes=500000-500000', 500_000, 500_000],
]

describe.each(states)('one range, %s', state => {
  test.each(single)('P-51, P-119: %s: %s', async (_who, range, start, end) => {
    const { status, headers, body } = await ranged(state, range)
    expect([status, headers['content-range'], headers['content-length']]).toEqual([
      206,
      `bytes ${start}-${end}/${size}`,
      String(end - start + 1),
    ])
    expect(headers).toMatchObject({
      'content-type': 'application/octet-stream',
      etag: `"${digest}"`,
      'accept-ranges': 'bytes',
      'docker-content-digest': digest,
    })
    expect(body.equals(bytes.subarray(start, end + 1))).toBe(true)
    expect(room.registry.count({ method: 'GET', path: /blobs/ })).toBe(1)
  })

  test('P-52: a range outside of the blob is 416 with its size', async () => {
    const answer = await ranged(state, `bytes=${size}-`)
    expect([answer.status, errorCode(answer), answer.headers['content-range']]).toEqual([
      416,
      'RANGE_INVALID',
      `bytes */${size}`,
    ])
  })

  test.each([
    'items=0-1',
    'bytes=5-2',
    'bytes=--1',
    'bytes= 0-1',
    'bytes=',
    'bytes=-',
    'bytes=a-b',
    'bytes',
    'bytes=0x10-',
    'bytes=1-2,x',
  ])('P-53: %s is ignored', async range => {
    const { status, headers, body } = await ranged(state, range)
    expect([status, headers['content-range'], body.equals(bytes)]).toEqual([200, undefined, true])
  })

  test.each([
    ['the strong tag', `"${digest}"`, 206],
    ['another tag', '"other"', 200],
    ['the weak tag', `W/"${digest}"`, 200],
    ['a date', 'Thu, 01 Jan 2026 00:00:00 GMT', 200],
  ])('P-55: If-Range with %s', async (_what, ifRange, expected) => {
    const { status, body } = await ranged(state, 'bytes=10-19', { 'if-range': ifRange })
    expect([status, body.length]).toEqual([expected, expected === 206 ? 10 : size])
  })

  test('P-54: several ranges are several parts, in the order asked', async () => {
    const wanted = [
      [500_000, 500_009],
      [0, 9],
      [size - 5, size - 1],
    ] as const
    const { status, headers, body } = await ranged(
      state,
      `bytes=${wanted.map(([start, end]) => `${start}-${end}`).join(', ')}`,
    )
    expect([status, headers['content-length'], headers['content-range']]).toEqual([206, String(body.length), undefined])
    const boundary = /^multipart\/byteranges; boundary=([a-zA-Z0-9-]+)$/.exec(headers['content-type'] ?? '')?.[1] ?? ''
    const parts = parse(body, boundary)
    expect(parts.map(part => part.range)).toEqual(wanted.map(([start, end]) => `bytes ${start}-${end}/${size}`))
    for (const [index, [start, end]] of wanted.entries())
      expect(parts[index]?.bytes.equals(bytes.subarray(start, end + 1))).toBe(true)
  })
})

describe('many ranges', () => {
  test('P-54, T-36: overlapping ranges are merged, more bytes than the blob has or too many ranges give the whole', async () => {
    await bring('hit')
    const merged = await get(room.layover, path, { range: 'bytes=0-10,5-20,1000-1001' })
    expect(
      parse(merged.body, merged.headers['content-type']?.split('boundary=')[1] ?? '').map(part => part.range),
    ).toEqual([`bytes 0-20/${size}`, `bytes 1000-1001/${size}`])
    const killer = `bytes=${Array.from({ length: 1300 }, (_, index) => `${index}-`).join(',')}`
    for (const range of [
      killer,
      'bytes=0-,0-,0-,0-',
      `bytes=${Array.from({ length: 1025 }, (_, index) => `${index * 4}-${index * 4}`).join(',')}`,
    ]) {
      const { status, body } = await get(room.layover, path, { range })
      expect([status, body.equals(bytes)]).toEqual([200, true])
    }
  })

  test('P-54: two Range headers are no range', async () => {
    await bring('hit')
    const { status, body } = await get(room.layover, path, { Range: 'bytes=0-1', range: 'bytes=2-3' })
    expect([status, body.equals(bytes)]).toEqual([200, true])
  })

  test('P-118, P-119, F-22: many ranges of a cold blob at once, out of order, are one download', async () => {
    room.registry.addBlobTo('app', bytes)
    const starts = Array.from({ length: 20 }, (_, index) => ((index * 7) % 20) * 50_000)
    const answers = await Promise.all(
      starts.map(start => get(room.layover, path, { range: `bytes=${start}-${start + 49_999}` })),
    )
    for (const [index, start] of starts.entries()) {
      expect(answers[index]?.status).toBe(206)
      expect(answers[index]?.body.equals(bytes.subarray(start, start + 50_000))).toBe(true)
    }
    expect(room.registry.count({ method: 'GET', path: /blobs/ })).toBe(1)
  })

  test('P-51, P-57: containerd opens bytes=N- many times and leaves each: still one download, and it completes', async () => {
    room.registry.addBlobTo('app', bytes)
    const gate = room.registry.gate({ path: /blobs/, afterBytes: size / 2 })
    for (let start = 0; start < size; start += 100_000) {
      const stream = await openStream(room.layover, path, { range: `bytes=${start}-` })
      expect([stream.response.statusCode, stream.response.headers['content-range']]).toEqual([
        206,
        `bytes ${start}-${size - 1}/${size}`,
      ])
      stream.leave()
    }
    gate.release()
    await untilStored(room.layover)
    expect(room.registry.count({ method: 'GET', path: /blobs/ })).toBe(1)
    await room.registry.stop()
    expect((await get(room.layover, path)).body.equals(bytes)).toBe(true)
  })

  test('P-57: a client that was cut off resumes while the download still runs', async () => {
    const go = await bring('running')
    const stream = await openStream(room.layover, path)
    const got = await stream.read(100_000)
    stream.leave()
    const rest = get(room.layover, path, { range: `bytes=${got.length}-`, 'if-range': `"${digest}"` })
    go()
    expect(Buffer.concat([got, (await rest).body]).equals(bytes)).toBe(true)
    expect(room.registry.count({ method: 'GET', path: /blobs/ })).toBe(1)
  })

  test('F-70: a client that was cut off resumes after a restart', async () => {
    await bring('hit')
    const restarted = await room.layover.restart()
    try {
      const { status, body } = await get(restarted, path, { range: 'bytes=400000-' })
      expect([status, body.equals(bytes.subarray(400_000))]).toEqual([206, true])
    } finally {
      await restarted.close()
    }
  })

  test('P-56: a range of a manifest is ignored, by GET and HEAD', async () => {
    const image = room.registry.image('app', 'latest')
    const { status, body } = await get(room.layover, '/v2/app/manifests/latest', { range: 'bytes=0-1' })
    expect([status, body.equals(image.manifestBytes)]).toEqual([200, true])
    const asked = await head(room.layover, '/v2/app/manifests/latest', { range: 'bytes=0-1' })
    expect([asked.status, asked.headers['content-length']]).toEqual([200, String(body.length)])
  })
})

describe('more than 32 bits', () => {
  const huge = 6 * 1024 ** 3
  let server: Server | undefined
  afterEach(() => {
    server?.closeAllConnections()
    server?.close()
  })

  /** Says the truth about six gigabytes and gives a megabyte of them; nobody here waits for the rest. */
  async function startHuge(): Promise<string> {
    server = createServer((req, res) => {
      const start = Number(/^bytes=(\d+)-/.exec(req.headers.range ?? '')?.[1] ?? 0)
      const end = Number(/-(\d+)$/.exec(req.headers.range ?? '')?.[1] ?? huge - 1)
      const length = end - start + 1
      res.writeHead(req.headers.range === undefined ? 200 : 206, {
        'content-type': 'application/octet-stream',
        'content-length': length,
        ...(req.headers.range !== undefined && { 'content-range': `bytes ${start}-${end}/${huge}` }),
      })
      if (req.method === 'HEAD') res.end()
      else res.write(Buffer.alloc(Math.min(length, 1024 * 1024)))
    })
    const listening = server
    await new Promise<void>(resolve => listening.listen(0, '127.0.0.1', resolve))
    return `http://127.0.0.1:${(listening.address() as AddressInfo).port}`
  }

  test('P-72: sizes and offsets beyond 2^32 are told exactly, by HEAD, GET and ranges', async () => {
    const layover = await startTestLayover({ upstreams: { 'fake.test': { url: await startHuge() } } })
    try {
      expect((await head(layover, path)).headers['content-length']).toBe('6442450944')
      const whole = await openStream(layover, path)
      expect(whole.response.headers['content-length']).toBe('6442450944')
      expect((await whole.read(1000)).length).toBeGreaterThanOrEqual(1000)
      for (const [range, contentRange, length] of [
        ['bytes=5000000000-5000000099', 'bytes 5000000000-5000000099/6442450944', '100'],
        ['bytes=4294967295-', 'bytes 4294967295-6442450943/6442450944', '2147483649'],
        ['bytes=-4294967297', 'bytes 2147483647-6442450943/6442450944', '4294967297'],
      ] as const) {
        const part = await openStream(layover, path, { range })
        expect([
          part.response.statusCode,
          part.response.headers['content-range'],
          part.response.headers['content-length'],
        ]).toEqual([206, contentRange, length])
        part.leave()
      }
      const beyond = await get(layover, path, { range: 'bytes=6442450944-' })
      expect([beyond.status, beyond.headers['content-range']]).toEqual([416, 'bytes */6442450944'])
      whole.leave()
    } finally {
      await layover.close()
    }
  })
})

type Part = { readonly range: string; readonly bytes: Buffer }

/** Parts of a multipart/byteranges body. https://www.rfc-editor.org/rfc/rfc9110#section-14.6 */
function parse(body: Buffer, boundary: string): Part[] {
  const text = body.toString('latin1')
  const pieces = `\r\n${text}`.split(`\r\n--${boundary}`)
  expect([pieces[0], pieces.at(-1)]).toEqual(['', '--\r\n'])
  return pieces.slice(1, -1).map(piece => {
    const end = piece.indexOf('\r\n\r\n')
    const headers = piece.slice(0, end)
    expect(headers).toContain('\r\nContent-Type: application/octet-stream')
    return {
      range: /content-range: (.+)/i.exec(headers)?.[1]?.trim() ?? '',
      bytes: Buffer.from(piece.slice(end + 4), 'latin1'),
    }
  })
}
