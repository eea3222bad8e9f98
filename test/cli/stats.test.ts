import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { stats } from '../../src/cli/stats.ts'
import { bytesText, moneyText, statsTable } from '../../src/cli/stats-table.ts'
import type { SavingsStats } from '../../src/metrics/savings.ts'
import { layover, serve } from './process.ts'

const gibibyte = 1024 ** 3
const report: SavingsStats = {
  since: Date.UTC(2026, 10, 1),
  until: Date.UTC(2026, 10, 28, 16, 5),
  currency: 'USD',
  servedBytes: 110 * gibibyte,
  upstreamBytes: 20 * gibibyte,
  savedBytes: 90 * gibibyte,
  pullsAvoided: 950,
  money: { gross: 4.5, cost: 0.25, net: 4.25 },
  upstreams: [
    {
      upstream: 'docker.io',
      link: 'aws-nat',
      servedBytes: 110 * gibibyte,
      upstreamBytes: 10 * gibibyte,
      savedBytes: 100 * gibibyte,
      pullsAvoided: 960,
      gross: 4.5,
      requests: 2000,
      hits: 1900,
    },
    {
      upstream: 'quay.io',
      link: undefined,
      servedBytes: 0,
      upstreamBytes: 10 * gibibyte,
      savedBytes: -10 * gibibyte,
      pullsAvoided: -10,
      gross: undefined,
      requests: 0,
      hits: 0,
    },
    {
      upstream: 'ghcr.io',
      link: undefined,
      servedBytes: 0,
      upstreamBytes: 0,
      savedBytes: 0,
      pullsAvoided: 0,
      gross: undefined,
      requests: 0,
      hits: 0,
    },
  ],
}

test('the table has each upstream that was used, all together, and the money', () => {
  expect(statsTable(report)).toBe(
    [
      '2026-11-01 00:00 to 2026-11-28 16:05 (UTC)',
      '',
      'upstream   requests  hit rate      served    fetched       saved     money  pulls avoided',
      '-----------------------------------------------------------------------------------------',
      'docker.io      2000    95.0 %  110.00 GiB  10.00 GiB  100.00 GiB  4.50 USD            960',
      'quay.io           0         -         0 B  10.00 GiB  -10.00 GiB         -            -10',
      '-----------------------------------------------------------------------------------------',
      'all            2000    95.0 %  110.00 GiB  20.00 GiB   90.00 GiB  4.50 USD            950',
      '',
      '4.50 USD saved on the links - 0.25 USD that the cache costs = 4.25 USD',
      '',
    ].join('\n'),
  )
  const unpriced = statsTable({ ...report, money: undefined })
  expect(unpriced).not.toContain('  money')
  expect(unpriced).toContain('No link has a price')
})

test('bytes have the unit that fits, also below zero', () => {
  expect([0, 1023, 1024, -3 * 1024 ** 2, 2 ** 52].map(bytesText)).toEqual([
    '0 B',
    '1023 B',
    '1.00 KiB',
    '-3.00 MiB',
    '4.00 PiB',
  ])
})

test('little money is not nothing', () => {
  expect([0, 0.0034, -0.05, 0.1, 1234.567].map(amount => moneyText(amount, 'EUR'))).toEqual([
    '0.00 EUR',
    '0.0034 EUR',
    '-0.0500 EUR',
    '0.10 EUR',
    '1234.57 EUR',
  ])
})

/** What is written, and what the command ends with. */
async function asked(options: Parameters<typeof stats>[0], now?: number) {
  const written = { out: '', err: '' }
  const terminal = {
    env: {},
    cwd: '/',
    interactive: false,
    out: (text: string) => void (written.out += text),
    err: (text: string) => void (written.err += text),
  }
  return { code: await stats(options, terminal, now), ...written }
}

async function answering(status: number, body: string): Promise<{ url: string; paths: string[] }> {
  const paths: string[] = []
  const server = createServer((req, res) => {
    paths.push(req.url ?? '')
    res.writeHead(status)
    res.end(body)
  }).listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, paths }
}

describe('what it asks', () => {
  test('the whole time, a time since, the last hours', async () => {
    const { url, paths } = await answering(200, JSON.stringify(report))
    expect((await asked({ url })).code).toBe(0)
    expect((await asked({ url: `${url}/`, since: '2026-11-01' })).code).toBe(0)
    expect((await asked({ url, last: '24h' }, Date.UTC(2026, 10, 28))).code).toBe(0)
    expect(paths.map(path => decodeURIComponent(path))).toEqual([
      '/savings',
      '/savings?since=2026-11-01T00:00:00.000Z',
      '/savings?since=2026-11-27T00:00:00.000Z',
    ])
    expect(JSON.parse((await asked({ url, json: true })).out)).toEqual(JSON.parse(JSON.stringify(report)))
  })

  test.each([
    [{ url: '127.0.0.1:5001' }, /--url: expected a URL such as/],
    [{ url: 'https://127.0.0.1:5001' }, /--url: expected a URL such as/],
    [{ url: 'http://127.0.0.1:1', last: 'yesterday' }, /--last: expected a duration such as 24h/],
    [{ url: 'http://127.0.0.1:1', since: 'May' }, /--since: expected a date such as/],
    [{ url: 'http://127.0.0.1:1', since: '2999-01-01' }, /--since: is in the future/],
    [{ url: 'http://127.0.0.1:1', since: '2026-01-01', last: '1d' }, /only one of --since and --last/],
  ])('%j is exit code 1 and says what is wrong', async (options, message) => {
    const { code, err } = await asked(options)
    expect([code, err]).toEqual([1, expect.stringMatching(message)])
  })

  test('says what to do when nobody listens, when something else does, when it cannot tell', async () => {
    const gone = await answering(200, '')
    const refused = await asked({ url: 'http://127.0.0.1:1' })
    expect([refused.code, refused.err]).toEqual([2, expect.stringContaining('Is Layover running?')])
    for (const answer of [gone, await answering(404, '{}'), await answering(200, '{}'), await answering(200, '<html>')])
      expect((await asked({ url: answer.url })).err).toContain('no admin listener of a Layover')
    expect((await asked({ url: (await answering(500, '')).url })).err).toContain('it answered 500')
    const busy = await answering(503, JSON.stringify({ error: 'the figures of this period cannot be read now' }))
    expect((await asked({ url: busy.url, last: '1d' })).err).toContain('cannot be read now')
  })
})

test('layover stats asks the Layover of the configuration', async () => {
  const cwd = mkdtempSync(join(tmpdir(), 'layover-stats-'))
  onTestFinished(() => rmSync(cwd, { recursive: true, force: true }))
  await using server = await serve(['--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0', '--data-dir', cwd], { cwd })
  const admin = String(server.ready['admin'])
  writeFileSync(join(cwd, 'layover.yaml'), `admin: ${admin.replace('http://', '')}\n`)
  const told = await layover(['stats'], { cwd })
  expect([told.code, told.err]).toEqual([0, ''])
  expect(told.out).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d to .* \(UTC\)\n\nNothing was pulled in this time\.\n$/)
  expect((await layover(['stats', '--last', '30d'], { cwd })).code).toBe(0)
  const json = await layover(['stats', '--since', '2026-11-01', '--json'], { cwd })
  expect(JSON.parse(json.out)).toMatchObject({ servedBytes: 0, currency: 'USD' })
})
