import { request } from 'undici'
import { afterEach, describe, expect, test } from 'vitest'
import { type FakeRegistry, startFakeRegistry } from './registry.ts'

const running: FakeRegistry[] = []
async function start(...options: Parameters<typeof startFakeRegistry>): Promise<FakeRegistry> {
  const registry = await startFakeRegistry(...options)
  running.push(registry)
  return registry
}
afterEach(async () => {
  await Promise.all(running.splice(0).map(registry => registry.stop()))
})

const bytesOf = async (url: string, headers: Record<string, string> = {}): Promise<Buffer> => {
  const { body } = await request(url, { headers })
  return Buffer.from(await body.arrayBuffer())
}

describe('the fake registry', () => {
  test('serves an image: manifest by tag and digest, blobs whole and by range', async () => {
    const registry = await start()
    const image = registry.image('a/b', 'v1', { layers: 2, layerBytes: 200_000 })
    expect(await bytesOf(`${registry.url}/v2/a/b/manifests/v1`)).toEqual(image.manifestBytes)
    expect(await bytesOf(`${registry.url}/v2/a/b/manifests/${image.digest}`)).toEqual(image.manifestBytes)
    const layer = image.layers[0]
    expect(layer?.size).toBe(200_000)
    const url = `${registry.url}/v2/a/b/blobs/${layer?.digest}`
    expect(await bytesOf(url)).toEqual(layer?.bytes)
    expect(await bytesOf(url, { range: 'bytes=5-9' })).toEqual(layer?.bytes.subarray(5, 10))
    expect((await request(url, { headers: { range: 'bytes=200000-' } })).statusCode).toBe(416)
    expect(registry.bytes({ path: /blobs/ })).toBeGreaterThanOrEqual(200_005)
    expect(registry.count({ method: 'GET', path: /blobs/ })).toBe(3)
  })

  test('keeps a blob of one repository from another', async () => {
    const registry = await start()
    const digest = registry.addBlobTo('a/b', Buffer.from('secret'))
    registry.addBlobTo('c/d', Buffer.from('other'))
    expect((await request(`${registry.url}/v2/c/d/blobs/${digest}`)).statusCode).toBe(404)
  })

  test('cuts, flips, lies and resets when told to, each as often as told', async () => {
    const registry = await start()
    const bytes = Buffer.alloc(300_000, 7)
    const digest = registry.addBlobTo('a/b', bytes)
    const url = `${registry.url}/v2/a/b/blobs/${digest}`
    registry.fault({ path: /blobs/ }, { kind: 'cut', at: 1000, how: 'fin' })
    registry.fault({ path: /blobs/ }, { kind: 'cut', at: 1000, how: 'rst' })
    registry.fault({ path: /blobs/ }, { kind: 'reset' })
    registry.fault({ path: /blobs/ }, { kind: 'chunked', cutAt: 1000 })
    for (let attempt = 0; attempt < 4; attempt++)
      await expect(bytesOf(url)).rejects.toThrow(/closed|ECONNRESET|terminated|aborted/)
    registry.fault({ path: /blobs/ }, { kind: 'flip', at: 5 })
    expect((await bytesOf(url))[5]).toBe(6)
    registry.fault({ path: /blobs/ }, { kind: 'noLength', closeAt: 1000 })
    expect(await bytesOf(url)).toHaveLength(1000)
    registry.fault({ path: /blobs/ }, { kind: 'longer', extra: 10 })
    expect(await bytesOf(url)).toEqual(bytes)
    registry.fault({ path: /blobs/ }, { kind: 'ignoreRange' })
    expect(await bytesOf(url, { range: 'bytes=10-' })).toHaveLength(300_000)
    expect(await bytesOf(url)).toEqual(bytes)
  })

  test('holds a request at a gate until it is released, before the answer or inside the body', async () => {
    const registry = await start()
    const digest = registry.addBlobTo('a/b', Buffer.alloc(200_000, 1))
    const url = `${registry.url}/v2/a/b/blobs/${digest}`
    const before = registry.gate({ path: /blobs/ })
    const first = bytesOf(url)
    await before.reached
    expect(registry.requests[0]?.status).toBe(0)
    before.release()
    expect(await first).toHaveLength(200_000)
    const inside = registry.gate({ path: /blobs/, afterBytes: 70_000 })
    const second = bytesOf(url)
    await inside.reached
    expect(registry.requests[1]?.bodyBytes).toBe(70_000)
    inside.release()
    expect(await second).toHaveLength(200_000)
  })

  test('stays dead when stopped and comes back on the same port', async () => {
    const registry = await start()
    const url = registry.url
    await registry.stop()
    await expect(request(`${url}/v2/`)).rejects.toThrow('ECONNREFUSED')
    await registry.restart()
    expect(registry.url).toBe(url)
    expect((await request(`${url}/v2/`)).statusCode).toBe(200)
  })

  test('wants a token that opens the repository, and redirects blobs to a presigned URL that can expire', async () => {
    const registry = await start({ auth: 'bearer', blobRedirect: 'absolute' })
    const digest = registry.addBlobTo('a/b', Buffer.from('hello'))
    const url = `${registry.url}/v2/a/b/blobs/${digest}`
    const refused = await request(url)
    expect(refused.statusCode).toBe(401)
    expect(refused.headers['www-authenticate']).toContain('repository:a/b:pull')
    const answer = await request(`${registry.url}/token?service=x&scope=repository:a/b:pull`)
    const { token } = (await answer.body.json()) as { token: string }
    const redirect = await request(url, { headers: { authorization: `Bearer ${token}` } })
    expect(redirect.statusCode).toBe(307)
    const location = String(redirect.headers['location'])
    expect((await bytesOf(location)).toString()).toBe('hello')
    registry.expirePresigned()
    expect((await request(location)).statusCode).toBe(403)
  })
})
