import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { FakeClock } from '../fakes/clock.ts'
import type { FakeImage } from '../fakes/image.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { exchangeRaw, rawRequest } from '../fakes/raw-client.ts'
import { type FakeRegistry, presignedSecret, startFakeRegistry } from '../fakes/registry.ts'
import { dumpShared } from '../fakes/shared-services.ts'
import { accessLines, errorCode, get, openStream, untilStored } from './pulling.ts'

let upstream: FakeRegistry
let other: FakeRegistry
let layover: TestLayover

beforeEach(async () => {
  upstream = await startFakeRegistry({
    auth: 'bearer',
    username: 'ci',
    password: 'canary-password',
    private: ['secret/app'],
  })
  other = await startFakeRegistry()
  layover = await startTestLayover({
    upstreams: {
      'fake.test': {
        url: upstream.url,
        credentials: { kind: 'password', username: 'ci', password: 'canary-password' },
      },
      'other.test': other,
    },
  })
})
afterEach(async () => {
  await layover.close()
  await upstream.stop()
  await other.stop()
})

async function pullAll(repository: string): Promise<FakeImage> {
  const image = upstream.image(repository, 'latest')
  expect((await get(layover, `/v2/${repository}/manifests/latest`)).status).toBe(200)
  for (const { digest } of [image.config, ...image.layers])
    expect((await get(layover, `/v2/${repository}/blobs/${digest}`)).status).toBe(200)
  await untilStored(layover, 3)
  return image
}

/** Asks for a digest in every way; gives the answers that do not look as if it did not exist. */
async function shown(base: string, kind: 'blobs' | 'manifests', digest: string): Promise<string[]> {
  const ways: readonly [string, Record<string, string>][] = [
    ['GET', {}],
    ['HEAD', {}],
    ['GET', { range: 'bytes=0-0' }],
    ['GET', { range: 'bytes=99999999-' }],
    ['GET', { 'if-none-match': `"${digest}"` }],
    ['HEAD', { 'if-none-match': '*' }],
    ['GET', { 'if-range': `"${digest}"`, range: 'bytes=0-1' }],
  ]
  const telling: string[] = []
  for (const [method, headers] of ways) {
    const answer = await rawRequest(layover.port, `${base}/${kind}/${digest}`, { method, headers })
    const code = method === 'GET' ? errorCode(answer) : absence[kind]
    const names = ['etag', 'docker-content-digest', 'content-range', 'accept-ranges'].filter(
      name => name in answer.headers,
    )
    if (answer.status !== 404 || code !== absence[kind] || names.length > 0)
      telling.push(`${method} ${base} ${JSON.stringify(headers)}: ${answer.status} ${code} ${names.join(' ')}`)
  }
  return telling
}

const absence = { blobs: 'BLOB_UNKNOWN', manifests: 'MANIFEST_UNKNOWN' }

describe('what one repository opened', () => {
  test('P-70, T-11: another repository of the same upstream, and another upstream, do not see it', async () => {
    const image = await pullAll('secret/app')
    upstream.image('public/app', 'latest', { seed: 'public' })
    other.image('public/app', 'latest', { seed: 'public' })
    for (const base of ['/v2/public/app', '/v2/other.test/public/app', '/v2/other.test/secret/app']) {
      for (const { digest } of [image.config, ...image.layers]) expect(await shown(base, 'blobs', digest)).toEqual([])
      expect(await shown(base, 'manifests', image.digest)).toEqual([])
    }
  })

  test('T-11, T-12: nor while it is being downloaded', async () => {
    const { layers } = upstream.image('secret/app', 'latest', { layerBytes: 500_000 })
    upstream.image('public/app', 'latest', { seed: 'public' })
    const digest = layers[0]?.digest ?? ''
    await get(layover, '/v2/secret/app/manifests/latest')
    const gate = upstream.gate({ method: 'GET', path: new RegExp(`secret/app/blobs/${digest}`), afterBytes: 250_000 })
    const running = await openStream(layover, `/v2/secret/app/blobs/${digest}`)
    await running.read(1)
    expect(await shown('/v2/public/app', 'blobs', digest)).toEqual([])
    expect(await shown('/v2/other.test/secret/app', 'blobs', digest)).toEqual([])
    gate.release()
    expect((await running.rest()).complete).toBe(true)
  })

  test('P-70: a repository that has it as well gets it from here, after its registry said so', async () => {
    const image = await pullAll('secret/app')
    const bytes = image.layers[0]?.bytes ?? Buffer.alloc(0)
    const digest = upstream.addBlobTo('public/mirror', bytes)
    const before = upstream.bytes({ method: 'GET', path: /blobs/ })
    expect((await get(layover, `/v2/public/mirror/blobs/${digest}`)).body.equals(bytes)).toBe(true)
    expect(upstream.count({ method: 'HEAD', path: /public\/mirror\/blobs/ })).toBe(1)
    expect(upstream.bytes({ method: 'GET', path: /blobs/ })).toBe(before)
  })

  test('T-11: naming a digest in a manifest of one’s own does not open it', async () => {
    const image = await pullAll('secret/app')
    const stolen = image.layers[0]
    const manifest = {
      schemaVersion: 2,
      mediaType: image.mediaType,
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        digest: image.config.digest,
        size: image.config.size,
      },
      layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: stolen?.digest, size: stolen?.size }],
    }
    other.addManifest('evil/app', 'latest', manifest, image.mediaType)
    for (const { digest } of [image.config, ...image.layers]) other.removeBlob('evil/app', digest)
    expect((await get(layover, '/v2/other.test/evil/app/manifests/latest')).status).toBe(200)
    for (const { digest } of [image.config, ...image.layers.slice(0, 1)])
      expect(await shown('/v2/other.test/evil/app', 'blobs', digest)).toEqual([])
  })
})

describe('credentials', () => {
  test('P-4, P-97: upstream’s challenge stays between upstream and us: no answer asks the client for credentials', async () => {
    upstream.fault(
      { path: /private/, times: 100 },
      {
        kind: 'status',
        status: 401,
        headers: { 'www-authenticate': `Bearer realm="${upstream.url}/token",service="hub"` },
      },
    )
    for (const tail of [
      'manifests/latest',
      'tags/list',
      `blobs/sha256:${'a'.repeat(64)}`,
      `referrers/sha256:${'a'.repeat(64)}`,
    ]) {
      const answer = await get(layover, `/v2/private/app/${tail}`)
      expect([tail, answer.status, errorCode(answer)]).toEqual([tail, 403, 'DENIED'])
      expect(answer.headers).not.toHaveProperty('www-authenticate')
    }
    expect((await get(layover, '/v2/')).status).toBe(200)
  })

  test('T-9, T-10: what a client sends and what we keep secret reaches no upstream, log, metric, answer or file', async () => {
    const image = await pullAll('secret/app')
    upstream.settings.blobRedirect = 'relative'
    const cold = upstream.image('secret/app', 'cold', { seed: 'cold' })
    const canaries = {
      authorization: `Basic ${Buffer.from('user:canary-client').toString('base64')}`,
      cookie: 'session=canary-cookie',
      'proxy-authorization': 'Bearer canary-proxy',
      'x-registry-auth': 'canary-header',
    }
    const secrets = [
      'canary',
      Buffer.from('user:canary-client').toString('base64'),
      Buffer.from('ci:canary-password').toString('base64'),
      presignedSecret,
    ]
    const targets = [
      '/v2/',
      '/v2/_catalog',
      '/nowhere?token=canary-query',
      '/v2/secret/app/manifests/latest?token=canary-query',
      '/v2/secret/app/manifests/cold',
      '/v2/secret/app/manifests/nope?access_token=canary-query',
      `/v2/secret/app/manifests/${image.digest}`,
      `/v2/secret/app/blobs/${cold.layers[0]?.digest}`,
      `/v2/secret/app/blobs/${image.config.digest}`,
      `/v2/secret/app/blobs/sha256:${'b'.repeat(64)}`,
      '/v2/secret/app/tags/list?n=1',
      `/v2/secret/app/referrers/${image.digest}`,
      '/v2/Bad%2FName/manifests/latest?q=canary-query',
      '/v2/other.test/none/manifests/x',
      '/v2/secret/app/blobs/uploads/?canary-query',
    ]
    let answers = ''
    for (const target of targets)
      for (const method of ['GET', 'HEAD', 'POST', 'PUT']) {
        const request = `${method} ${target} HTTP/1.1\r\nHost: x\r\n${Object.entries(canaries)
          .map(([name, value]) => `${name}: ${value}\r\n`)
          .join('')}Connection: close\r\n\r\n`
        answers += (await exchangeRaw(layover.port, request)).bytes.toString('latin1')
      }
    upstream.fault({ path: /blobs/, times: 100 }, { kind: 'cut', at: 10, how: 'rst' })
    const broken = upstream.image('secret/app', 'broken', { seed: 'broken' })
    answers += (await get(layover, `/v2/secret/app/blobs/${broken.layers[0]?.digest}`, canaries)).body.toString(
      'latin1',
    )
    await accessLines(layover, targets.length * 4)
    const status = await (await fetch(`${layover.adminUrl}/status`)).text()
    const outputs = {
      log: layover.logged(),
      metrics: await layover.metrics(),
      status,
      answers,
      files: await allFiles(layover.dataDir),
      'Redis and the bucket': await dumpShared(),
      'requests to upstream': JSON.stringify(
        [...upstream.requests, ...other.requests].map(({ url, headers: { authorization: _own, ...headers } }) => ({
          url: url.replace(presignedSecret, ''),
          headers,
        })),
      ),
    }
    for (const [where, text] of Object.entries(outputs))
      for (const secret of secrets) expect([where, secret, text.includes(secret)]).toEqual([where, secret, false])
    const authorizations = upstream.requests
      .map(({ headers }) => headers.authorization ?? '')
      .filter(value => value !== '')
    expect(authorizations.some(value => value.startsWith('Bearer '))).toBe(true)
    for (const value of authorizations) expect(value).not.toBe(canaries.authorization)
    expect(other.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true)
  })
})

async function allFiles(directory: string): Promise<string> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const files = entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
  const contents = await Promise.all(files.map(file => readFile(file, 'latin1')))
  return [...files, ...contents].join('\n')
}

describe('rights that were withdrawn', () => {
  const maxAgeMs = 3_600_000

  async function room({ tagTtlMs = 60_000 } = {}) {
    const clock = new FakeClock()
    const credentials = { kind: 'password', username: 'ci', password: 'canary-password' } as const
    const cache = await startTestLayover({
      upstreams: { 'fake.test': { url: upstream.url, credentials, tagTtlMs } },
      config: { rights: { maxAgeMs } },
      clock,
    })
    onTestFinished(() => cache.close())
    const image = upstream.image('secret/app', 'latest')
    const blobs = [image.config, ...image.layers].map(({ digest }) => `/v2/secret/app/blobs/${digest}`)
    const all = ['/v2/secret/app/manifests/latest', `/v2/secret/app/manifests/${image.digest}`, ...blobs]
    const pull = async () => {
      const statuses: number[] = []
      for (const path of all) statuses.push((await get(cache, path)).status)
      return statuses
    }
    expect(await pull()).toEqual(all.map(() => 200))
    await untilStored(cache, blobs.length)
    return { clock, cache, all, pull, asked: () => upstream.requests.length }
  }

  test('T-16: end after rights.maxAge, by tag, by digest and for blobs', async () => {
    const { clock, all, pull } = await room()
    upstream.revokeTokens()
    upstream.tokens.answer = { status: 403, headers: {}, body: Buffer.from('{}') }
    clock.advance(maxAgeMs - 30_000)
    // The tag is old: upstream refuses, and what it last said is served.
    expect(await pull()).toEqual(all.map(() => 200))
    clock.advance(60_000)
    expect(await pull()).toEqual(all.map(() => 403))
  })

  test('T-16: end after rights.maxAge also for a tag that would be fresh for longer', async () => {
    const { clock, all, pull } = await room({ tagTtlMs: 100 * maxAgeMs })
    upstream.revokeTokens()
    upstream.tokens.answer = { status: 403, headers: {}, body: Buffer.from('{}') }
    clock.advance(maxAgeMs)
    expect(await pull()).toEqual(all.map(() => 403))
  })

  test('T-16: are good again when upstream says so, with one question for the repository', async () => {
    const { clock, all, pull, asked } = await room()
    clock.advance(maxAgeMs)
    const before = asked()
    // The tag is asked for anyway, and its answer counts for the rest.
    expect(await pull()).toEqual(all.map(() => 200))
    expect(asked() - before).toBeLessThanOrEqual(2)
  })

  test('T-16: stay while upstream is away', async () => {
    const { clock, all, pull } = await room()
    await upstream.stop()
    clock.advance(2 * maxAgeMs)
    expect(await pull()).toEqual(all.map(() => 200))
  })
})
