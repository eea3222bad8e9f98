import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, test } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { pseudoRandomBytes } from '../fakes/image.ts'
import { startTestLayover } from '../fakes/layover.ts'
import { exchangeRaw, parseResponse, rawRequest } from '../fakes/raw-client.ts'
import { errorCode, get, head, openStream, untilStored, usingLayover } from './pulling.ts'

const room = usingLayover()
const size = 200_000

function blob(length = size, seed: number | string = 1): { bytes: Buffer; digest: string; path: string } {
  const bytes = pseudoRandomBytes(length, seed)
  const digest = room.registry.addBlobTo('app', bytes)
  return { bytes, digest, path: `/v2/app/blobs/${digest}` }
}

const blobGets = (): number => room.registry.count({ method: 'GET', path: /\/blobs\// })

describe('whole blobs', () => {
  test('P-49, P-62, T-29: cold and warm, the bytes and the headers are those of a blob and nothing else', async () => {
    const { bytes, digest, path } = blob()
    room.registry.settings.headers = { 'set-cookie': 'evil=1', 'x-upstream': 'shown' }
    for (const outcome of ['Layover; fwd=uri-miss', 'Layover; hit']) {
      const { status, headers, body } = await get(room.layover, path, { accept: 'text/html' })
      expect(status).toBe(200)
      expect(headers).toMatchObject({
        'content-length': String(size),
        'content-type': 'application/octet-stream',
        'docker-content-digest': digest,
        etag: `"${digest}"`,
        'accept-ranges': 'bytes',
        'cache-control': 'max-age=31536000, immutable',
        'x-content-type-options': 'nosniff',
        'content-security-policy': "default-src 'none'",
        'cache-status': `${outcome}; key="${digest}"`,
      })
      for (const foreign of [
        'set-cookie',
        'x-upstream',
        'content-encoding',
        'server',
        'www-authenticate',
        'transfer-encoding',
      ])
        expect(headers).not.toHaveProperty(foreign)
      expect(body.equals(bytes)).toBe(true)
      await untilStored(room.layover)
    }
    expect(blobGets()).toBe(1)
  })

  test('P-49: a hit needs no upstream', async () => {
    const { bytes, path } = blob()
    await get(room.layover, path)
    await untilStored(room.layover)
    await room.registry.stop()
    expect((await get(room.layover, path)).body.equals(bytes)).toBe(true)
  })

  test('P-73: the config blob is an ordinary blob', async () => {
    const { config } = room.registry.image('app', 'latest')
    const { status, headers, body } = await get(room.layover, `/v2/app/blobs/${config.digest}`, {
      accept: 'application/vnd.oci.image.config.v1+json, */*',
    })
    expect([status, headers['content-type'], body.equals(config.bytes)]).toEqual([
      200,
      'application/octet-stream',
      true,
    ])
  })

  test('P-71: bytes are bytes: gzip, zstd, wasm and HTML pass as they are', async () => {
    const kinds = [
      Buffer.from('1f8b0800', 'hex'),
      Buffer.from('28b52ffd', 'hex'),
      Buffer.from('\0asm'),
      Buffer.from('<script>alert(1)</script>'),
    ]
    for (const start of kinds) {
      const bytes = Buffer.concat([start, pseudoRandomBytes(500)])
      const digest = room.registry.addBlobTo('app', bytes)
      const { headers, body } = await get(room.layover, `/v2/app/blobs/${digest}`, {
        'accept-encoding': 'zstd;q=1.0, gzip;q=0.8, deflate;q=0.5',
      })
      expect([headers['content-type'], headers['content-encoding'], body.equals(bytes)]).toEqual([
        'application/octet-stream',
        undefined,
        true,
      ])
    }
  })

  test('P-61: an upstream that compresses what it was asked not to never makes a wrong blob', async () => {
    const { bytes, path } = blob()
    room.registry.fault({ path: /blobs/, times: 1000 }, { kind: 'gzip' })
    const broken = await get(room.layover, path)
    expect([broken.status, errorCode(broken)]).toEqual([502, 'UNAVAILABLE'])
    room.registry.clearFaults()
    expect((await get(room.layover, path)).body.equals(bytes)).toBe(true)
  })

  test('P-45: a blob that is not there is 404, with a body for GET and none for HEAD', async () => {
    room.registry.image('app', 'latest')
    const path = `/v2/app/blobs/${digestOf(Buffer.from('nowhere'))}`
    const answer = await get(room.layover, path)
    expect([answer.status, errorCode(answer)]).toEqual([404, 'BLOB_UNKNOWN'])
    const asked = await head(room.layover, path)
    expect([asked.status, asked.body.length]).toEqual([404, 0])
  })

  test('P-11, T-27: sha512 works, and is another key than the sha256 of the same bytes', async () => {
    const content = Buffer.from(
      JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [] }),
    )
    const by512 = room.registry.addManifest(
      'app',
      undefined,
      content,
      'application/vnd.oci.image.index.v1+json',
      'sha512',
    )
    const by256 = digestOf(content)
    const answer = await get(room.layover, `/v2/app/manifests/${by512}`)
    expect([answer.status, answer.headers['docker-content-digest'], answer.body.equals(content)]).toEqual([
      200,
      by512,
      true,
    ])
    // Upstream does not have it under this name, and the same bytes under another do not open it.
    expect((await get(room.layover, `/v2/app/manifests/${by256}`)).status).toBe(404)
    room.registry.addManifest('app', undefined, content, 'application/vnd.oci.image.index.v1+json')
    const wrong = await get(room.layover, `/v2/app/blobs/sha512:${by256.slice(7)}${by256.slice(7)}`)
    expect([wrong.status, errorCode(wrong)]).toEqual([404, 'BLOB_UNKNOWN'])
  })

  test('P-58: upstream without a length: chunked, whole and cached with its length', async () => {
    const { bytes, path } = blob()
    room.registry.fault({ method: 'GET', path: /blobs/ }, { kind: 'chunked' })
    const stream = await openStream(room.layover, path)
    expect([stream.response.headers['transfer-encoding'], stream.response.headers['content-length']]).toEqual([
      'chunked',
      undefined,
    ])
    expect((await stream.rest()).body.equals(bytes)).toBe(true)
    expect((await get(room.layover, path)).headers['content-length']).toBe(String(size))
  })

  test('P-58, P-113: upstream without a length: a manifest that names the size supplies it', async () => {
    const { layers } = room.registry.image('app', 'latest')
    await get(room.layover, '/v2/app/manifests/latest')
    room.registry.fault({ method: 'GET', path: /blobs/ }, { kind: 'chunked' })
    const { headers, body } = await get(room.layover, `/v2/app/blobs/${layers[0]?.digest}`)
    expect([headers['content-length'], body.equals(layers[0]?.bytes ?? body.subarray(1))]).toEqual([
      String(layers[0]?.size),
      true,
    ])
  })
})

describe('what everybody has', () => {
  test.each([
    ['nothing', ''],
    ['{}', '{}'],
  ])('P-66: the blob of %s is here while upstream is dead, by GET, HEAD and both algorithms', async (_name, text) => {
    await room.registry.stop()
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const digest = digestOf(Buffer.from(text), algorithm)
      const answer = await get(room.layover, `/v2/app/blobs/${digest}`)
      expect([answer.status, answer.headers['content-length'], answer.body.toString()]).toEqual([
        200,
        String(text.length),
        text,
      ])
      const asked = await head(room.layover, `/v2/app/blobs/${digest}`)
      expect([asked.status, asked.headers['content-length'], asked.body.length]).toEqual([200, String(text.length), 0])
    }
  })

  test('P-52, P-66: a range of the empty blob is the empty whole, and the connection stays in step', async () => {
    const path = `/v2/app/blobs/${digestOf(Buffer.from(''))}`
    const { bytes } = await exchangeRaw(
      room.layover.port,
      `GET ${path} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
    )
    const first = parseResponse(bytes)
    expect([first.status, first.headers['content-length']]).toEqual([200, '0'])
    expect(parseResponse(first.body).body.toString()).toBe('{}')
    const beyond = await get(room.layover, path, { range: 'bytes=1-' })
    expect([beyond.status, beyond.headers['content-range']]).toEqual([416, 'bytes */0'])
  })
})

describe('HEAD', () => {
  test('P-50: HEAD of a cold blob asks by HEAD, starts no download and redirects nobody', async () => {
    const { digest, path } = blob()
    const { status, headers, body } = await head(room.layover, path)
    expect([status, headers['content-length'], headers['docker-content-digest'], body.length]).toEqual([
      200,
      String(size),
      digest,
      0,
    ])
    expect(headers).not.toHaveProperty('location')
    expect(headers['cache-status']).toBe(`Layover; fwd=uri-miss; key="${digest}"`)
    expect(room.registry.requests.map(request => request.method)).toEqual(['HEAD'])
    expect(await room.layover.metric('layover_fills_running{upstream="fake.test"}')).toBe(0)
    expect(await room.layover.metric('layover_storage_blobs')).toBe(0)
  })

  test('P-50: where HEAD of a blob is refused, one byte is asked for instead', async () => {
    const { path } = blob()
    room.registry.settings.headStatus = 401
    const { status, headers } = await head(room.layover, path)
    expect([status, headers['content-length']]).toEqual([200, String(size)])
    expect(room.registry.bytes({ path: /blobs/ })).toBeLessThanOrEqual(1)
  })

  test('P-46: HEAD has the headers of GET on a hit, and ignores ranges (P-56)', async () => {
    const { path } = blob()
    await get(room.layover, path)
    await untilStored(room.layover)
    const { headers: ofGet } = await get(room.layover, path)
    const { status, headers: ofHead, body } = await head(room.layover, path, { range: 'bytes=0-1' })
    expect([status, body.length]).toEqual([200, 0])
    expect({ ...ofHead, date: '' }).toEqual({ ...ofGet, date: '' })
  })

  test('P-46: HEAD while the download runs knows the size and leaves no reader behind', async () => {
    const { path, bytes } = blob()
    const gate = room.registry.gate({ method: 'GET', path: /blobs/, afterBytes: size / 2 })
    const running = await openStream(room.layover, path)
    const { status, headers, body } = await head(room.layover, path)
    expect([status, headers['content-length'], body.length]).toEqual([200, String(size), 0])
    gate.release()
    expect((await running.rest()).body.equals(bytes)).toBe(true)
    expect(room.registry.count({ path: /blobs/ })).toBe(1)
  })
})

describe('conditional requests', () => {
  test('P-43: If-None-Match in each spelling is 304 without a body, and another tag is 200', async () => {
    const { digest, path } = blob()
    await get(room.layover, path)
    for (const value of [`"${digest}"`, digest, `W/"${digest}"`, `"other", "${digest}"`, '*'])
      for (const method of ['GET', 'HEAD']) {
        const { status, headers, body } = await rawRequest(room.layover.port, path, {
          method,
          headers: { 'if-none-match': value },
        })
        expect([value, method, status, body.length]).toEqual([value, method, 304, 0])
        expect(headers).toMatchObject({
          etag: `"${digest}"`,
          'docker-content-digest': digest,
          'cache-control': 'max-age=31536000, immutable',
        })
        expect(headers).not.toHaveProperty('content-length')
      }
    expect((await get(room.layover, path, { 'if-none-match': '"other"' })).status).toBe(200)
  })

  test('P-43, T-35: a cold conditional request asks whether it may know, and downloads nothing', async () => {
    const { digest, path } = blob()
    expect((await get(room.layover, path, { 'if-none-match': `"${digest}"` })).status).toBe(304)
    expect(room.registry.requests.map(request => request.method)).toEqual(['HEAD'])
  })
})

describe('kinds', () => {
  test('P-37, T-30: a manifest is no blob and a blob no manifest, cached or not', async () => {
    const image = room.registry.image('app', 'latest')
    await get(room.layover, '/v2/app/manifests/latest')
    await get(room.layover, `/v2/app/blobs/${image.config.digest}`)
    const asBlob = await get(room.layover, `/v2/app/blobs/${image.digest}`)
    expect([asBlob.status, errorCode(asBlob)]).toEqual([404, 'BLOB_UNKNOWN'])
    const asManifest = await get(room.layover, `/v2/app/manifests/${image.config.digest}`)
    expect([asManifest.status, errorCode(asManifest)]).toEqual([404, 'MANIFEST_UNKNOWN'])
  })

  test('P-37: where upstream serves a manifest as a blob it is an octet stream', async () => {
    const image = room.registry.image('app', 'latest')
    room.registry.addBlobTo('app', image.manifestBytes)
    const { status, headers, body } = await get(room.layover, `/v2/app/blobs/${image.digest}`)
    expect([status, headers['content-type'], body.equals(image.manifestBytes)]).toEqual([
      200,
      'application/octet-stream',
      true,
    ])
  })

  test('P-68, T-7: urls in a manifest are passed on and never fetched', async () => {
    const trap: string[] = []
    const server = createServer((req, res) => {
      trap.push(req.url ?? '')
      res.end()
    })
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    try {
      const foreign = digestOf(Buffer.from('foreign'))
      const manifest = {
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(Buffer.from('{}')), size: 2 },
        layers: [
          {
            mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar',
            digest: foreign,
            size: 7,
            urls: [`http://127.0.0.1:${(server.address() as AddressInfo).port}/layer`],
          },
        ],
      }
      const layover = await startTestLayover({ upstreams: { 'fake.test': room.registry }, config: { prefetch: 'all' } })
      try {
        room.registry.addManifest('app', 'windows', manifest, manifest.mediaType)
        const { body } = await get(layover, '/v2/app/manifests/windows')
        expect(JSON.parse(body.toString())).toEqual(manifest)
        const answer = await get(layover, `/v2/app/blobs/${foreign}`)
        expect([answer.status, errorCode(answer)]).toEqual([404, 'BLOB_UNKNOWN'])
        expect(trap).toEqual([])
      } finally {
        await layover.close()
      }
    } finally {
      server.close()
    }
  })
})
