import { describe, expect, test } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { ociIndexType, ociManifestType } from '../fakes/image.ts'
import { exchangeRaw, parseResponse, rawRequest } from '../fakes/raw-client.ts'
import { errorCode, get, head, untilStored, usingLayover } from './pulling.ts'

const room = usingLayover()
const dockerType = 'application/vnd.docker.distribution.manifest.v2+json'
const dockerListType = 'application/vnd.docker.distribution.manifest.list.v2+json'
const tagTtlMs = 300_000

const manifestRequests = (method: string): number => room.registry.count({ method, path: /\/manifests\// })

/** An index in a spelling that no serialiser would give: order, white space, CRLF, a number beyond 2^53, a final line break. */
function oddIndex(): Buffer {
  return Buffer.from(
    `{\r\n\t"manifests" : [ ] ,\r\n  "annotations":{"big":"9007199254740993","__proto__":"x"},\r\n "mediaType":"${ociIndexType}", "schemaVersion":  2 , "unknown": 9007199254740993 }\r\n\n`,
  )
}

describe('content', () => {
  test('P-29, P-38: the bytes are upstream’s own, by tag and by digest, cold and warm', async () => {
    const bytes = oddIndex()
    const digest = room.registry.addManifest('app', 'odd', bytes, ociIndexType)
    for (const reference of ['odd', digest, 'odd', digest]) {
      const { status, headers, body } = await get(room.layover, `/v2/app/manifests/${reference}`)
      expect([status, body.equals(bytes), headers['docker-content-digest']]).toEqual([200, true, digest])
    }
    expect(manifestRequests('GET')).toBe(1)
  })

  test('P-33, P-43, P-44: headers by tag and by digest', async () => {
    const { digest, manifestBytes } = room.registry.image('app', 'latest')
    const byTag = await get(room.layover, '/v2/app/manifests/latest')
    expect(byTag.headers).toMatchObject({
      'content-type': ociManifestType,
      'content-length': String(manifestBytes.length),
      'docker-content-digest': digest,
      etag: `"${digest}"`,
      'cache-control': 'no-cache',
      vary: 'Accept',
      'x-content-type-options': 'nosniff',
    })
    const byDigest = await get(room.layover, `/v2/app/manifests/${digest}`)
    expect(byDigest.headers).toMatchObject({
      'content-type': ociManifestType,
      'cache-control': 'max-age=31536000, immutable',
      etag: `"${digest}"`,
    })
    expect(byDigest.headers).not.toHaveProperty('set-cookie')
  })

  test('P-67: a data field is neither added nor removed', async () => {
    const config = Buffer.from('{"architecture":"amd64"}')
    const manifest = {
      schemaVersion: 2,
      mediaType: ociManifestType,
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        digest: digestOf(config),
        size: config.length,
        data: config.toString('base64'),
      },
      layers: [],
    }
    const digest = room.registry.addManifest('app', 'data', manifest, ociManifestType)
    const { headers, body } = await get(room.layover, '/v2/app/manifests/data')
    expect([headers['docker-content-digest'], digestOf(body), JSON.parse(body.toString())]).toEqual([
      digest,
      digest,
      manifest,
    ])
  })

  test('P-69: the absence of one platform is not that of the index', async () => {
    const here = room.registry.image('app', undefined, { seed: 'amd64' })
    const missing = digestOf(Buffer.from('arm64'))
    const entry = (digest: string) => ({ mediaType: ociManifestType, digest, size: 500 })
    room.registry.addManifest(
      'app',
      'multi',
      { schemaVersion: 2, mediaType: ociIndexType, manifests: [entry(here.digest), entry(missing)] },
      ociIndexType,
    )
    expect((await get(room.layover, '/v2/app/manifests/multi')).status).toBe(200)
    expect((await get(room.layover, `/v2/app/manifests/${missing}`)).status).toBe(404)
    expect((await get(room.layover, `/v2/app/manifests/${here.digest}`)).status).toBe(200)
    expect((await get(room.layover, '/v2/app/manifests/multi')).status).toBe(200)
  })

  test('P-35: a type that upstream does not say is read from the manifest', async () => {
    const { mediaType, manifestBytes } = room.registry.image('app', undefined)
    for (const [tag, sent] of [
      ['plain', 'text/plain; charset=utf-8'],
      ['json', 'application/json'],
      ['octets', 'application/octet-stream'],
    ] as const) {
      room.registry.addManifest('app', tag, manifestBytes, sent)
      const { status, headers } = await get(room.layover, `/v2/app/manifests/${tag}`)
      expect([tag, status, headers['content-type']]).toEqual([tag, 200, mediaType])
      // The next round must not be answered from this one's bytes.
      await room.layover.metric('layover_storage_manifests')
    }
  })

  test('P-39, T-20: bytes that do not have the digest asked for are 502 and not kept', async () => {
    const { digest, manifestBytes } = room.registry.image('app', 'latest')
    room.registry.corrupt(digest, Buffer.concat([manifestBytes, Buffer.from(' ')]))
    const answer = await get(room.layover, `/v2/app/manifests/${digest}`)
    expect([answer.status, errorCode(answer)]).toEqual([502, 'MANIFEST_INVALID'])
    room.registry.corrupt(digest, manifestBytes)
    expect((await get(room.layover, `/v2/app/manifests/${digest}`)).body.equals(manifestBytes)).toBe(true)
  })

  test('P-40: an upstream without Docker-Content-Digest', async () => {
    room.registry.settings.digestHeader = false
    const { digest } = room.registry.image('app', 'latest')
    for (const method of ['HEAD', 'GET']) {
      const { status, headers } = await rawRequest(room.layover.port, '/v2/app/manifests/latest', { method })
      expect([method, status, headers['docker-content-digest']]).toEqual([method, 200, digest])
    }
  })

  test('P-42: manifests have at most 4 MiB', async () => {
    const pad = (length: number) => {
      const text = JSON.stringify({
        schemaVersion: 2,
        mediaType: ociIndexType,
        manifests: [],
        annotations: { pad: '' },
      })
      return Buffer.from(text.replace('"pad":""', `"pad":"${'x'.repeat(length - text.length)}"`))
    }
    room.registry.addManifest('app', 'fits', pad(4 * 1024 * 1024), ociIndexType)
    room.registry.addManifest('app', 'large', pad(4 * 1024 * 1024 + 1), ociIndexType)
    const fits = await get(room.layover, '/v2/app/manifests/fits')
    expect([fits.status, fits.body.length]).toEqual([200, 4 * 1024 * 1024])
    const large = await get(room.layover, '/v2/app/manifests/large')
    expect([large.status, errorCode(large)]).toEqual([502, 'MANIFEST_INVALID'])
  })

  test('P-34, T-17: what is an image and an index at once, or another thing than its type says, is refused', async () => {
    const both = {
      schemaVersion: 2,
      mediaType: ociManifestType,
      config: { mediaType: 'a/b', digest: digestOf(Buffer.from('{}')), size: 2 },
      layers: [],
      manifests: [],
    }
    const index = { schemaVersion: 2, mediaType: ociIndexType, manifests: [] }
    room.registry.addManifest('app', 'both', both, ociManifestType)
    room.registry.addManifest('app', 'flipped', index, ociManifestType)
    for (const tag of ['both', 'flipped']) {
      const answer = await get(room.layover, `/v2/app/manifests/${tag}`)
      expect([tag, answer.status, errorCode(answer)]).toEqual([tag, 502, 'MANIFEST_INVALID'])
    }
    expect(await room.layover.metric('layover_storage_manifests')).toBe(0)
  })

  test('P-36: schema 1 is told as absence', async () => {
    const old = { schemaVersion: 1, name: 'app', tag: 'old', fsLayers: [], history: [], signatures: [] }
    room.registry.addManifest('app', 'old', old, 'application/vnd.docker.distribution.manifest.v1+prettyjws')
    const answer = await get(room.layover, '/v2/app/manifests/old')
    expect([answer.status, errorCode(answer)]).toEqual([404, 'MANIFEST_UNKNOWN'])
  })

  test('P-71: a manifest of a type that nobody has heard of passes', async () => {
    const manifest = {
      schemaVersion: 2,
      mediaType: 'application/vnd.example.thing.v7+json',
      artifactType: 'application/x-thing',
      config: { mediaType: 'application/vnd.oci.empty.v1+json', digest: digestOf(Buffer.from('{}')), size: 2 },
      layers: [],
    }
    const digest = room.registry.addManifest('app', 'thing', manifest, manifest.mediaType)
    const { status, headers } = await get(room.layover, '/v2/app/manifests/thing')
    expect([status, headers['content-type'], headers['docker-content-digest']]).toEqual([
      200,
      manifest.mediaType,
      digest,
    ])
  })

  test('P-115, F-31: a login page, an empty answer and JSON that is no manifest are not manifests', async () => {
    room.registry.image('app', 'latest')
    for (const fault of [
      { kind: 'html' },
      { kind: 'empty' },
      { kind: 'status', status: 200, headers: { 'content-type': 'application/json' }, body: '{"errors":[]}' },
    ] as const) {
      room.registry.fault({ method: 'GET', path: /manifests/ }, fault)
      const answer = await get(room.layover, '/v2/app/manifests/latest')
      expect([fault.kind, answer.status, errorCode(answer)]).toEqual([fault.kind, 502, 'MANIFEST_INVALID'])
    }
    expect((await get(room.layover, '/v2/app/manifests/latest')).status).toBe(200)
  })
})

describe('HEAD', () => {
  test('P-41: HEAD has the status and the headers of GET and no body, by tag and by digest', async () => {
    const { digest } = room.registry.image('app', 'latest')
    await get(room.layover, '/v2/app/manifests/latest')
    for (const reference of ['latest', digest]) {
      const { headers: ofGet } = await get(room.layover, `/v2/app/manifests/${reference}`)
      const { status, headers: ofHead, body, ending } = await head(room.layover, `/v2/app/manifests/${reference}`)
      expect([status, body.length, ending]).toEqual([200, 0, 'fin'])
      expect({ ...ofHead, date: '' }).toEqual({ ...ofGet, date: '' })
    }
  })

  test('P-41: a cold HEAD is complete as well', async () => {
    const { digest, manifestBytes } = room.registry.image('app', 'latest')
    const { status, headers, body } = await head(room.layover, '/v2/app/manifests/latest')
    expect([status, body.length]).toEqual([200, 0])
    expect(headers).toMatchObject({
      'docker-content-digest': digest,
      'content-length': String(manifestBytes.length),
      'content-type': ociManifestType,
    })
  })

  test('P-45: HEAD of what is not there is 404 without a body', async () => {
    const { status, headers, body } = await head(room.layover, '/v2/app/manifests/nope')
    expect([status, headers['content-type'], body.length]).toEqual([404, 'application/json', 0])
  })
})

describe('negotiation', () => {
  test.each([
    [ociManifestType, 200],
    ['*/*', 200],
    ['application/*', 200],
    [ociManifestType.toUpperCase(), 200],
    [`${dockerType}, ${ociManifestType};q=0.5`, 200],
    [`${ociManifestType}; charset=utf-8`, 200],
    ['text/html, application/*;q=0.1', 200],
    [dockerType, 404],
    [`${ociIndexType}, ${dockerListType}`, 404],
    [`*/*, ${ociManifestType};q=0`, 404],
    ['text/html', 404],
  ])('P-30: Accept: %s', async (accept, expected) => {
    room.registry.image('app', 'latest')
    const answer = await get(room.layover, '/v2/app/manifests/latest', { accept })
    const code = answer.status === 200 ? undefined : errorCode(answer)
    expect([answer.status, code]).toEqual([expected, expected === 200 ? undefined : 'MANIFEST_UNKNOWN'])
  })

  test('P-31: several Accept lines are one list', async () => {
    const { digest } = room.registry.image('app', 'latest')
    const request = `GET /v2/app/manifests/latest HTTP/1.1\r\nHost: x\r\nAccept: ${dockerType}\r\nAccept: ${ociIndexType}\r\nAccept: ${ociManifestType}\r\nConnection: close\r\n\r\n`
    const { status, headers } = parseResponse((await exchangeRaw(room.layover.port, request)).bytes)
    expect([status, headers['docker-content-digest']]).toEqual([200, digest])
  })

  test('P-30, P-32, T-22: an odd Accept first changes nothing for the next client, and an index is never rewritten', async () => {
    const digest = room.registry.addManifest(
      'app',
      'multi',
      { schemaVersion: 2, mediaType: ociIndexType, manifests: [] },
      ociIndexType,
    )
    expect((await get(room.layover, '/v2/app/manifests/multi', { accept: dockerType })).status).toBe(404)
    const answer = await get(room.layover, '/v2/app/manifests/multi', { accept: `${ociIndexType}, */*` })
    expect([answer.status, answer.headers['content-type'], answer.headers['docker-content-digest']]).toEqual([
      200,
      ociIndexType,
      digest,
    ])
    expect(manifestRequests('GET')).toBe(1)
    for (const { headers } of room.registry.requests)
      for (const type of [ociIndexType, ociManifestType, dockerListType, dockerType])
        expect(headers.accept).toContain(type)
  })

  test('T-22: headers that rewrite requests elsewhere do nothing here', async () => {
    const { digest } = room.registry.image('app', 'latest')
    const headers = {
      'x-forwarded-host': 'evil.test',
      'x-original-url': '/v2/app/manifests/other',
      'x-rewrite-url': '/v2/',
      'x-http-method-override': 'DELETE',
      'x-method-override': 'POST',
    }
    expect((await get(room.layover, '/v2/app/manifests/latest', headers)).headers['docker-content-digest']).toBe(digest)
    expect((await get(room.layover, '/v2/app/manifests/latest')).headers['docker-content-digest']).toBe(digest)
  })
})

describe('conditional requests', () => {
  test('P-43: If-None-Match in each spelling is 304 with the tag and no body', async () => {
    const { digest } = room.registry.image('app', 'latest')
    for (const reference of ['latest', digest])
      for (const value of [`"${digest}"`, digest, `W/"${digest}"`, `"other", "${digest}"`, '*'])
        for (const method of ['GET', 'HEAD']) {
          const { status, headers, body } = await rawRequest(room.layover.port, `/v2/app/manifests/${reference}`, {
            method,
            headers: { 'if-none-match': value },
          })
          expect([value, status, body.length]).toEqual([value, 304, 0])
          expect(headers).toMatchObject({ etag: `"${digest}"`, 'docker-content-digest': digest })
          expect(headers).toHaveProperty('cache-control')
          expect(headers).not.toHaveProperty('content-length')
        }
    expect((await get(room.layover, '/v2/app/manifests/latest', { 'if-none-match': '"other"' })).status).toBe(200)
  })
})

describe('freshness', () => {
  test('P-47, P-48, P-101: within its time a tag asks nobody; after it one HEAD; by digest never', async () => {
    const { digest } = room.registry.image('app', 'latest')
    const first = await get(room.layover, '/v2/app/manifests/latest')
    expect(first.headers['cache-status']).toBe(`Layover; fwd=uri-miss; ttl=300; key="${digest}"`)
    room.clock.advance(100_000)
    const second = await get(room.layover, '/v2/app/manifests/latest')
    expect([second.headers['cache-status'], second.headers.age]).toEqual([
      `Layover; hit; ttl=200; key="${digest}"`,
      '100',
    ])
    expect(room.registry.requests).toHaveLength(1)
    room.clock.advance(tagTtlMs)
    const third = await get(room.layover, '/v2/app/manifests/latest')
    expect([third.headers['cache-status'], third.headers.age]).toEqual([
      `Layover; fwd=stale; fwd-status=304; ttl=300; key="${digest}"`,
      '0',
    ])
    expect(room.registry.requests.map(request => request.method)).toEqual(['GET', 'HEAD'])
    room.clock.advance(365 * 86_400_000)
    const byDigest = await get(room.layover, `/v2/app/manifests/${digest}`)
    expect([byDigest.status, byDigest.headers['cache-status']]).toEqual([200, `Layover; hit; key="${digest}"`])
    expect(room.registry.requests).toHaveLength(2)
  })

  test('P-47: a tag that moved is fetched after its time', async () => {
    const before = room.registry.image('app', 'latest', { seed: 'before' })
    await get(room.layover, '/v2/app/manifests/latest')
    const after = room.registry.image('app', 'latest', { seed: 'after' })
    expect((await get(room.layover, '/v2/app/manifests/latest')).headers['docker-content-digest']).toBe(before.digest)
    room.clock.advance(tagTtlMs + 1)
    expect((await get(room.layover, '/v2/app/manifests/latest')).headers['docker-content-digest']).toBe(after.digest)
  })

  test('P-99, P-103, P-106, F-27: upstream is gone, the tag is past its time: stale, marked, and ready', async () => {
    const image = room.registry.image('app', 'latest')
    await get(room.layover, '/v2/app/manifests/latest')
    for (const { digest } of [image.config, ...image.layers]) await get(room.layover, `/v2/app/blobs/${digest}`)
    await untilStored(room.layover, 3)
    await room.registry.stop()
    room.clock.advance(tagTtlMs + 60_000)
    for (const method of ['GET', 'HEAD']) {
      const { status, headers } = await rawRequest(room.layover.port, '/v2/app/manifests/latest', { method })
      expect([status, headers['docker-content-digest'], headers.age]).toEqual([200, image.digest, '360'])
      expect(headers['cache-status']).toMatch(/^Layover; hit; .*detail="stale"$/)
      expect(headers.warning).toMatch(/^299 - "stale: fake\.test cannot be asked \([a-z_]+\), last checked 360 s ago"$/)
    }
    expect((await fetch(`${room.layover.adminUrl}/readyz`)).status).toBe(200)
    expect(
      await room.layover.metric('layover_requests_total{upstream="fake.test",kind="manifest_tag",outcome="stale"}'),
    ).toBe(2)
  })

  test('F-27: stale ends, and what was never here cannot be had: 503 with Retry-After', async () => {
    const { digest, config, layers } = room.registry.image('app', 'latest')
    await get(room.layover, '/v2/app/manifests/latest')
    for (const blob of [config, ...layers]) await get(room.layover, `/v2/app/blobs/${blob.digest}`)
    await untilStored(room.layover, 3)
    await room.registry.stop()
    room.clock.advance(8 * 86_400_000)
    for (const reference of ['latest', 'never']) {
      const answer = await get(room.layover, `/v2/app/manifests/${reference}`)
      expect([reference, answer.status, errorCode(answer)]).toEqual([reference, 503, 'UNAVAILABLE'])
      expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0)
    }
    expect((await get(room.layover, `/v2/app/manifests/${digest}`)).status).toBe(200)
  })

  test('P-99, F-29: 404 after its time means gone, 401 means nothing', async () => {
    const image = room.registry.image('app', 'latest')
    await get(room.layover, '/v2/app/manifests/latest')
    for (const { digest } of [image.config, ...image.layers]) await get(room.layover, `/v2/app/blobs/${digest}`)
    await untilStored(room.layover, 3)
    room.clock.advance(tagTtlMs + 1)
    room.registry.fault({ path: /manifests/, times: 20 }, { kind: 'status', status: 401 })
    expect((await get(room.layover, '/v2/app/manifests/latest')).headers['cache-status']).toContain('detail="stale"')
    room.registry.clearFaults()
    room.clock.advance(tagTtlMs + 1)
    room.registry.removeTag('app', 'latest')
    const gone = await get(room.layover, '/v2/app/manifests/latest')
    expect([gone.status, errorCode(gone)]).toEqual([404, 'MANIFEST_UNKNOWN'])
    expect((await get(room.layover, `/v2/app/manifests/${image.digest}`)).status).toBe(200)
  })

  test('P-100, T-23: absence is remembered for seconds and ends with success; other failures are not remembered as absence', async () => {
    room.registry.image('app', 'other')
    for (let asked = 0; asked < 5; asked++) expect((await get(room.layover, '/v2/app/manifests/new')).status).toBe(404)
    const negative = room.registry.count({ path: /manifests\/new/ })
    expect(negative).toBeLessThanOrEqual(2)
    room.registry.image('app', 'new')
    room.clock.advance(60_000)
    expect((await get(room.layover, '/v2/app/manifests/new')).status).toBe(200)
    room.registry.fault({ path: /manifests\/limited/ }, { kind: 'status', status: 403 })
    room.registry.image('app', 'limited')
    expect((await get(room.layover, '/v2/app/manifests/limited')).status).toBe(403)
    expect((await get(room.layover, '/v2/app/manifests/limited')).status).toBe(200)
  })

  test('P-103, T-33: warnings of upstream are passed on well-formed, others and overlong ones are not', async () => {
    room.registry.settings.headers = { warning: '299 - "use app:2 instead", 110 - "made up", 299 evil "no"' }
    room.registry.image('app', 'latest')
    expect((await get(room.layover, '/v2/app/manifests/latest')).headers.warning).toBe('299 - "use app:2 instead"')
    room.registry.settings.headers = { warning: `299 - "latin \u00e9 and a tab\t", 299 - "${'x'.repeat(8_000)}"` }
    room.registry.image('app', 'odd')
    const { status, headers } = await get(room.layover, '/v2/app/manifests/odd')
    expect(status).toBe(200)
    expect(headers.warning).toMatch(/^[\x20-\x7e]*$/)
    expect(Buffer.byteLength(headers.warning ?? '')).toBeLessThanOrEqual(4096)
  })
})
