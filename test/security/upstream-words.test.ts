import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { errorCode, eventually, get } from '../edge/pulling.ts'
import { FakeClock } from '../fakes/clock.ts'
import { ociManifestType, pseudoRandomBytes } from '../fakes/image.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { exchangeRaw, parseResponse } from '../fakes/raw-client.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'

let registry: FakeRegistry
let layover: TestLayover

beforeEach(async () => {
  registry = await startFakeRegistry()
  layover = await startTestLayover({ upstreams: { 'fake.test': registry }, clock: new FakeClock() })
})
afterEach(async () => {
  await layover.close()
  await registry.stop()
})

const manifest = Buffer.from('{"schemaVersion":2,"layers":[],"config":{}}')

/** A manifest answer written byte by byte. */
const answerWith = (...lines: string[]): string =>
  [
    'HTTP/1.1 200 OK',
    `Content-Length: ${manifest.length}`,
    'Connection: close',
    ...lines,
    '',
    manifest.toString(),
  ].join('\r\n')

describe('what upstream says reaches no client unread', () => {
  test.each([
    ['a bare CR in a warning', `Content-Type: ${ociManifestType}`, 'Warning: 299 - "a\rSet-Cookie: x=1"'],
    ['controls and Latin-1 in a warning', `Content-Type: ${ociManifestType}`, 'Warning: 299 - "\x0b\x1b[31m\xff\xe9"'],
    ['a warning of 20 KB', `Content-Type: ${ociManifestType}`, `Warning: 299 - "${'x'.repeat(20_000)}"`],
    ['a folded line', `Content-Type: ${ociManifestType}`, 'X-Folded: a\r\n Set-Cookie: x=1'],
    ['a media type with a folded line', 'Content-Type: application/vnd.x+json\r\n Set-Cookie: x=1'],
    ['a media type with Latin-1', 'Content-Type: application/vnd.\xe9\xff+json'],
    ['a media type with quotes', 'Content-Type: application/vnd."<script>"+json'],
    ['a digest with markup', `Content-Type: ${ociManifestType}`, 'Docker-Content-Digest: sha256:<script>'],
    ['two content types', `Content-Type: ${ociManifestType}`, 'Content-Type: text/html'],
    ['cookies, CORS and refresh', `Content-Type: ${ociManifestType}`, 'Set-Cookie: x=1', 'Refresh: 0;url=//evil.test'],
    ['a content encoding', `Content-Type: ${ociManifestType}`, 'Content-Encoding: gzip, gzip, gzip'],
    ['another location', `Content-Type: ${ociManifestType}`, 'Location: //evil.test', 'Link: <//evil.test>; rel=next'],
  ])('T-32, T-33: %s', async (_, ...lines) => {
    registry.fault({ path: /manifests/, times: 10 }, { kind: 'raw', bytes: answerWith(...lines) })
    const answer = await get(layover, '/v2/team/app/manifests/v1')
    const names = Object.keys(answer.headers)
    expect([200, 502]).toContain(answer.status)
    expect(names).toEqual(expect.arrayContaining(['x-content-type-options', 'content-security-policy']))
    for (const name of ['set-cookie', 'refresh', 'location', 'link', 'x-folded', 'content-encoding'])
      expect(names).not.toContain(name)
    expect(JSON.stringify(answer.headers)).not.toMatch(/[^\x20-\x7e]|script|evil|text\/html/)
    const said = answer.status === 200 ? answer.body.toString() : errorCode(answer)
    expect([manifest.toString(), 'MANIFEST_INVALID', 'UNAVAILABLE']).toContain(said)
  })

  test.each(['99999999999999999999', '-5', 'Fri, 31 Dec 9999 23:59:59 GMT', '1e9', '\x0b'])(
    'P-102, F-72: a Retry-After of %j keeps nobody out for long',
    async value => {
      registry.fault(
        { times: 10 },
        { kind: 'raw', bytes: `HTTP/1.1 429 X\r\nRetry-After: ${value}\r\nContent-Length: 0\r\n\r\n` },
      )
      const { status, headers } = await get(layover, '/v2/team/app/manifests/v1')
      expect([502, 503]).toContain(status)
      expect(Number(headers['retry-after'] ?? 0)).toBeLessThanOrEqual(300)
    },
  )
})

describe('a manifest made to hurt', () => {
  test('T-42, T-53: thousands of layers, deep and polluting keys are relayed or refused, and others are served meanwhile', async () => {
    registry.image('team/app', 'v1')
    await get(layover, '/v2/team/app/manifests/v1')
    const layers = Array.from({ length: 24_000 }, (_, index) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: digestOf(Buffer.from(String(index))),
      size: 1,
    }))
    for (let seed = 0; seed < 5; seed++)
      registry.addManifest('bombs/layers', `v${seed}`, { schemaVersion: 2, config: {}, seed, layers }, ociManifestType)
    const bombs = Array.from({ length: 5 }, (_, seed) => get(layover, `/v2/bombs/layers/manifests/v${seed}`))
    let slowest = 0
    const all = Promise.all(bombs).then(() => true)
    for (
      let done = false;
      !done;
      done = await Promise.race([all, new Promise<boolean>(next => setTimeout(next, 5, false))])
    ) {
      const asked = performance.now()
      await get(layover, '/v2/team/app/manifests/v1')
      slowest = Math.max(slowest, performance.now() - asked)
    }
    for (const bomb of await all.then(() => Promise.all(bombs))) expect(bomb.status).toBe(200)
    expect(slowest).toBeLessThan(15_000)
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  })
})

describe('requests made to hurt', () => {
  test.each([
    ['a namespace of 8 KB', `/v2/team/app/manifests/v1?ns=${'a.'.repeat(4_000)}b`],
    ['5,000 parameters', `/v2/team/app/tags/list?${'a&'.repeat(5_000)}`],
    ['5,000 namespaces', `/v2/team/app/manifests/v1?${'ns=a&'.repeat(3_000)}`],
    ['a name of 8,000 parts', `/v2/${'a/'.repeat(4_000)}manifests/v1`],
    ['percent signs', `/v2/${'%25'.repeat(4_000)}/manifests/v1`],
    ['a namespace with a line break', '/v2/team/app/manifests/v1?ns=fake.test%0d%0aSet-Cookie:%20x=1'],
    ['a page behind a line break', '/v2/team/app/tags/list?n=1&last=%0d%0aSet-Cookie:%20x=1'],
    ['an absolute target', 'http://169.254.169.254/latest/meta-data/'],
    ['another authority', '//169.254.169.254/v2/team/app/manifests/v1'],
    ['user info in the host prefix', '/user:pw@fake.test/v2/team/app/manifests/v1'],
  ])('T-4, T-24, T-33: %s is answered, quickly, and dials nobody else', async (_, target) => {
    registry.image('team/app', 'v1')
    const started = performance.now()
    const { bytes } = await exchangeRaw(layover.port, `GET ${target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n`)
    const { status, headers } = parseResponse(bytes)
    expect(status).toBeGreaterThanOrEqual(200)
    expect(status).toBeLessThan(500)
    expect(headers['set-cookie']).toBeUndefined()
    expect(performance.now() - started).toBeLessThan(15_000)
    for (const { path } of registry.requests) expect(path).toMatch(/^\/v2\/team\/app\//)
  })

  test('T-47, P-100: absent names leave nothing behind', async () => {
    const before = process.memoryUsage().heapUsed
    for (let round = 0; round < 20; round++)
      await Promise.all(
        Array.from({ length: 50 }, (_, index) =>
          get(layover, `/v2/none/r${round}-${index}/manifests/${'t'.repeat(100)}`),
        ),
      )
    const kept = await layover.metric('layover_storage_manifests')
    expect(kept).toBe(0)
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(200 * 1024 * 1024)
  })

  test('T-9, T-22: headers of a client reach neither upstream nor a log', async () => {
    registry.image('team/app', 'v1')
    const canary = 'canary-51c2'
    await get(layover, `/v2/team/app/manifests/v1?token=${canary}`, {
      authorization: `Bearer ${canary}`,
      cookie: canary,
      'proxy-authorization': canary,
      'x-forwarded-host': canary,
      'x-original-url': `/${canary}`,
      'x-http-method-override': canary,
      range: `bytes=${canary}`,
      'if-match': canary,
      referer: canary,
    })
    await eventually(() => (layover.lines().some(line => line.msg === 'request') ? true : undefined))
    for (const { url, headers } of registry.requests) expect(url + JSON.stringify(headers)).not.toContain(canary)
    expect(layover.logged() + (await layover.metrics())).not.toContain(canary)
  })
})

test('T-32: a blob that is longer or shorter than announced leaves no byte for the next answer', async () => {
  const bytes = pseudoRandomBytes(100_000, 'blob')
  const digest = registry.addBlobTo('team/app', bytes)
  for (const contentLength of [bytes.length + 1, bytes.length - 1]) {
    registry.fault({ method: 'GET', path: /blobs/, times: 50 }, { kind: 'lie', contentLength })
    const request = `GET /v2/team/app/blobs/${digest} HTTP/1.1\r\nhost: a\r\n\r\n`
    const next = 'GET /v2/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n'
    const { bytes: received } = await exchangeRaw(layover.port, request + next)
    const answer = parseResponse(received)
    expect([200, 502, 503]).toContain(answer.status)
    expect(answer.body.length).toBeLessThan(bytes.length)
    expect(received.indexOf('HTTP/1.1', 10)).toBe(-1)
    registry.clearFaults()
    layover = await layover.restart()
  }
})
