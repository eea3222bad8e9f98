import { describe, expect, it } from 'vitest'
import type { Fault, FaultMatch } from '../fakes/faults.ts'
import { pseudoRandomBytes } from '../fakes/image.ts'
import { rawRequest } from '../fakes/raw-client.ts'
import {
  blobPath,
  completeBody,
  expectCleanAftermath,
  figure,
  kib,
  pull,
  pullImage,
  repository,
  startScene,
} from './scene.ts'

const blobs = { method: 'GET', path: /\/blobs\// } satisfies FaultMatch
const always = { ...blobs, times: 99 }
const half = 200 * kib

describe('a body that breaks once', () => {
  it.each<[string, Fault]>([
    ['F-1: reset in the middle', { kind: 'cut', at: half, how: 'rst' }],
    ['F-2: ended before its Content-Length', { kind: 'cut', at: half, how: 'fin' }],
    ['F-4: without a length and cut by FIN', { kind: 'noLength', closeAt: half, how: 'fin' }],
    ['F-4: without a length and cut by RST', { kind: 'noLength', closeAt: half, how: 'rst' }],
    ['F-5: chunked and without its last chunk', { kind: 'chunked', cutAt: half }],
    ['F-10: stalled', { kind: 'stall', at: half }],
  ])('%s: no client notices, and only what is missing is asked for', async (_name, fault) => {
    const scene = await startScene({ upstream: { idleTimeoutMs: 200 } })
    scene.registry.fault(blobs, fault)
    const response = await pull(scene.layover, scene.digest)
    expect(response.status).toBe(200)
    expect(completeBody(response)?.equals(scene.bytes)).toBe(true)
    const [, second, ...more] = asked(scene)
    const from = Number(/^bytes=(\d+)-$/.exec(String(second?.headers.range))?.[1])
    // A reset takes along what lay in the receiver's buffer.
    const isReset = 'how' in fault && fault.how === 'rst'
    expect(from).toBeLessThanOrEqual(half)
    expect(from).toBeGreaterThanOrEqual(isReset ? 0 : half)
    expect(more).toEqual([])
    expect(await figure(scene.layover, 'layover_fills_resumed_total')).toBe(1)
    await expectCleanAftermath(scene, { responses: [response] })
  })

  it('F-1, F-14: behind a redirect, the registry is asked for a new location', async () => {
    const scene = await startScene({ registry: { blobRedirect: 'absolute' } })
    const { registry, layover, digest, bytes } = scene
    registry.fault({ origin: 'cdn' }, { kind: 'cut', at: half, how: 'rst' })
    const gate = registry.gate({ origin: 'cdn', afterBytes: 100 * kib })
    const pulling = pull(layover, digest)
    await gate.reached
    registry.expirePresigned()
    gate.release()
    const response = await pulling
    expect(response.body.equals(bytes)).toBe(true)
    await expectCleanAftermath(scene, { responses: [response] })
  })

  it('F-13: a token that ended meanwhile is renewed for the rest', async () => {
    const scene = await startScene()
    const { registry, layover, digest, bytes } = scene
    registry.fault(blobs, { kind: 'cut', at: half, how: 'rst' })
    const gate = registry.gate({ ...blobs, afterBytes: 100 * kib })
    const pulling = pull(layover, digest)
    await gate.reached
    registry.revokeTokens()
    gate.release()
    const response = await pulling
    expect(response.status).toBe(200)
    expect(response.body.equals(bytes)).toBe(true)
    expect(registry.requests.some(request => request.status === 401 && request.headers.range !== undefined)).toBe(true)
    await expectCleanAftermath(scene, { responses: [response] })
  })

  it('F-12: answered by 503 before any byte, it is asked again', async () => {
    const scene = await startScene()
    scene.registry.fault(blobs, { kind: 'status', status: 503 })
    const response = await pull(scene.layover, scene.digest)
    expect(response.body.equals(scene.bytes)).toBe(true)
    await expectCleanAftermath(scene, { responses: [response] })
  })

  it('F-1: goes on at the mirror when the registry is gone in the middle', async () => {
    const scene = await startScene({ mirror: true })
    const { registry, mirror, layover, digest, bytes } = scene
    const gate = registry.gate({ ...blobs, afterBytes: half })
    const pulling = pull(layover, digest)
    await gate.reached
    await registry.stop()
    const response = await pulling
    expect(response.body.equals(bytes)).toBe(true)
    expect(mirror?.requests.findLast(({ path }) => path.includes('/blobs/'))?.headers.range).toBe(`bytes=${half}-`)
    await registry.restart()
    await expectCleanAftermath(scene, { responses: [response] })
  })
})

describe('a body that breaks every time', () => {
  it.each<[string, Fault, string]>([
    ['F-1: reset', { kind: 'cut', at: 100, how: 'rst' }, 'reset'],
    ['F-2: ended early', { kind: 'cut', at: 100, how: 'fin' }, 'truncated'],
    ['F-4: without a length', { kind: 'noLength', closeAt: 100 }, 'truncated'],
    ['F-5: without its last chunk', { kind: 'chunked', cutAt: 100 }, 'truncated'],
    ['F-10: stalled', { kind: 'stall', at: 100 }, 'timeout'],
  ])('%s: the client is cut, never completed', async (_name, fault, reason) => {
    const scene = await startScene({ upstream: { idleTimeoutMs: 200 } })
    scene.registry.fault(always, fault)
    const response = await pull(scene.layover, scene.digest)
    expect(response.status).toBe(200)
    expect(completeBody(response)).toBeUndefined()
    expect(response.ending).not.toBe('open')
    const failed = scene.layover.lines().find(line => line.msg === 'download failed')
    await expectCleanAftermath(scene, { responses: [response], failures: [String(failed?.reason)] })
    expect(failed?.reason).toBe(reason)
  })

  it.each<[string, Fault, string]>([
    ['F-7, T-20: a wrong first byte', { kind: 'flip', at: 0 }, 'digest_mismatch'],
    ['F-7, T-20: a wrong byte in the middle', { kind: 'flip', at: half }, 'digest_mismatch'],
    ['F-7, T-20: a wrong last byte', { kind: 'flip', at: 512 * kib - 1 }, 'digest_mismatch'],
    ['F-8: a Content-Length that says too little', { kind: 'lie', contentLength: 512 * kib - 10 }, 'digest_mismatch'],
  ])('%s: the last byte is withheld, nothing is stored', async (_name, fault, reason) => {
    const scene = await startScene()
    scene.registry.fault(always, fault)
    const response = await pull(scene.layover, scene.digest)
    expect(completeBody(response)).toBeUndefined()
    const before = scene.registry.count(blobs)
    // Quarantined: no loop gets hot.
    const again = await pull(scene.layover, scene.digest)
    expect(again.status).toBe(502)
    expect(scene.registry.count(blobs)).toBe(before)
    await expectCleanAftermath(scene, { responses: [response, again], failures: [reason, 'quarantined'] })
  })

  it('F-7, T-20: wrong bytes of the registry are made good by its mirror at the next pull', async () => {
    const scene = await startScene({ mirror: true })
    scene.registry.fault(always, { kind: 'flip', at: half })
    const first = await pull(scene.layover, scene.digest)
    expect(completeBody(first)).toBeUndefined()
    const second = await pull(scene.layover, scene.digest)
    expect(second.body.equals(scene.bytes)).toBe(true)
    await expectCleanAftermath(scene, { responses: [first, second], failures: ['digest_mismatch'] })
  })

  it('F-8: a Content-Length that says too much: cut at what there is', async () => {
    const scene = await startScene()
    scene.registry.fault(always, { kind: 'lie', contentLength: 512 * kib + 10 })
    const response = await pull(scene.layover, scene.digest)
    expect(completeBody(response)).toBeUndefined()
    const line = scene.layover.lines().find(each => each.msg === 'download failed')
    await expectCleanAftermath(scene, { responses: [response], failures: [String(line?.reason)] })
    expect(String(line?.reason)).not.toBe('unknown')
  })

  it('F-8: another size than the manifest says is refused before the first byte', async () => {
    const scene = await startScene()
    const { registry, layover } = scene
    const image = registry.image(repository, 'latest', { layers: 1, layerBytes: 100_000, seed: 'F-8' })
    const [layer] = image.layers
    if (!layer) throw new Error('an image has a layer')
    expect((await rawRequest(layover.port, `/v2/${repository}/manifests/latest`)).status).toBe(200)
    registry.fault(always, { kind: 'lie', contentLength: 99_000 })
    const response = await pull(layover, layer.digest)
    expect(response.status).toBe(502)
    expect(response.headers['content-type']).toBe('application/json')
    const { digest, bytes } = layer
    await expectCleanAftermath(scene, { responses: [response], failures: ['size_mismatch'], digest, bytes })
  })
})

describe('odd bodies', () => {
  it('F-4: a whole body without a length is served whole', async () => {
    const scene = await startScene()
    scene.registry.fault(always, { kind: 'noLength' })
    const response = await pull(scene.layover, scene.digest)
    expect(completeBody(response)?.equals(scene.bytes)).toBe(true)
    await expectCleanAftermath(scene, { responses: [response] })
  })

  it('F-6: bytes after the announced end reach nobody, and no other blob', async () => {
    const scene = await startScene()
    const { registry, layover, digest, bytes } = scene
    registry.fault(blobs, { kind: 'longer', extra: 5000 })
    const response = await pull(layover, digest)
    expect(response.body.equals(bytes)).toBe(true)
    const other = pseudoRandomBytes(50_000, 'after F-6')
    expect((await pull(layover, registry.addBlobTo(repository, other))).body.equals(other)).toBe(true)
    await expectCleanAftermath(scene, { responses: [response] })
  })

  it('F-9: a slow upstream that never falls silent is waited for, however long it takes', async () => {
    const bytes = pseudoRandomBytes(24 * kib, 'F-9')
    const scene = await startScene({ bytes, upstream: { idleTimeoutMs: 400 } })
    scene.registry.fault(blobs, { kind: 'slow', bytesPerSecond: 20 * kib })
    const startedAt = performance.now()
    const response = await pull(scene.layover, scene.digest)
    expect(performance.now() - startedAt).toBeGreaterThan(800)
    expect(response.body.equals(bytes)).toBe(true)
    expect(asked(scene)).toHaveLength(1)
    await expectCleanAftermath(scene, { responses: [response] })
  })

  it.each<[string, Fault, string]>([
    ['a web page', { kind: 'html' }, 'html'],
    ['nothing at all', { kind: 'empty' }, 'size_mismatch'],
    ['a compressed body', { kind: 'gzip' }, 'encoded'],
  ])('F-31, P-61: %s with 200 instead of a blob is refused', async (_name, fault, reason) => {
    const scene = await startScene()
    scene.registry.fault(always, fault)
    const response = await pull(scene.layover, scene.digest)
    expect(response.status).toBe(502)
    await expectCleanAftermath(scene, { responses: [response], failures: [reason] })
  })

  it.each<[string, Fault]>([
    ['a web page', { kind: 'html' }],
    ['nothing at all', { kind: 'empty' }],
  ])('F-31: %s with 200 instead of a manifest is refused, and a cached tag stands in', async (_name, fault) => {
    const scene = await startScene()
    const { registry, layover, clock } = scene
    const image = registry.image(repository, 'latest', { seed: 'F-31' })
    registry.image(repository, 'other', { seed: 'F-31 other' })
    const manifest = (tag: string) => rawRequest(layover.port, `/v2/${repository}/manifests/${tag}`)
    await pullImage(layover, 'latest', image)
    clock.advance(3_600_000)
    registry.fault({ path: /\/manifests\//, times: 99 }, fault)
    const refused = await manifest('other')
    expect(refused.status).toBeGreaterThanOrEqual(400)
    expect(refused.headers['content-type']).toBe('application/json')
    const stale = await manifest('latest')
    expect(stale.status).toBe(200)
    expect(stale.body.equals(image.manifestBytes)).toBe(true)
    await expectCleanAftermath(scene, { responses: [] })
  })
})

/** Blob GETs at the registry, of the scene's blob. */
function asked({ registry, digest }: Awaited<ReturnType<typeof startScene>>) {
  return registry.requests.filter(
    ({ method, path, status }) => method === 'GET' && path === blobPath(digest) && status !== 401,
  )
}
