import { describe, expect, it, onTestFinished } from 'vitest'
import { makeAuthority } from '../fakes/certificates.ts'
import type { FaultMatch } from '../fakes/faults.ts'
import { upstreamConfig } from '../fakes/layover.ts'
import { rawRequest } from '../fakes/raw-client.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { digestOf } from '../../src/oci/digest.ts'
import {
  expectCleanAftermath,
  figure,
  expectNoSecrets,
  manifestPath,
  pull,
  pullImage,
  repository,
  startScene,
  upstreamName,
} from './scene.ts'

const blobs = { method: 'GET', path: /\/blobs\//, times: 99 } satisfies FaultMatch
const manifests = { path: /\/manifests\//, times: 99 } satisfies FaultMatch
const hour = 3_600_000

describe('an upstream that refuses or does not answer', () => {
  it('F-11: headers that never come end in 503 within the attempts, and the mirror helps when there is one', async () => {
    const scene = await startScene({ upstream: { headersTimeoutMs: 250 } })
    scene.registry.fault(blobs, { kind: 'hang' })
    const response = await pull(scene.layover, scene.digest)
    expect(response.status).toBe(503)
    await expectCleanAftermath(scene, { responses: [response], failures: ['timeout'] })

    const mirrored = await startScene({ upstream: { headersTimeoutMs: 250 }, mirror: true })
    mirrored.registry.fault(blobs, { kind: 'hang' })
    const helped = await pull(mirrored.layover, mirrored.digest)
    expect(helped.body.equals(mirrored.bytes)).toBe(true)
    await expectCleanAftermath(mirrored, { responses: [helped] })
  })

  it.each([
    ['F-11: an address that answers nothing', 'http://192.0.2.1:5000'],
    ['F-25: a name that does not resolve', 'http://registry.invalid:5000'],
  ])('%s: 503 for what is new, soon', async (_name, url) => {
    const scene = await startScene({ upstream: { url, connectTimeoutMs: 200 } })
    const response = await pull(scene.layover, scene.digest)
    expect(response.status).toBe(503)
    const line = scene.layover.lines().find(each => each.msg === 'download failed')
    expect(['timeout', 'connect', 'dns', 'network']).toContain(line?.reason)
    await expectNoSecrets(scene, [response])
  })

  it('F-25: a name that does not resolve any more: what is cached is served', async () => {
    const scene = await startScene()
    const { registry, layover } = scene
    const image = registry.image(repository, 'latest', { seed: 'F-25' })
    await pullImage(layover, 'latest', image)
    const gone = await layover.restart({
      upstreams: [upstreamConfig(upstreamName, { default: true, url: 'http://registry.invalid:5000' })],
    })
    onTestFinished(() => gone.close())
    scene.clock.advance(hour)
    await pullImage(gone, 'latest', image)
    expect((await pull(gone, digestOf(Buffer.from('new')))).status).toBe(503)
  })

  it('F-12: 503 to everything is 503 to the client, as a document', async () => {
    const scene = await startScene()
    scene.registry.fault({ path: blobs.path, times: 99 }, { kind: 'status', status: 503 })
    const response = await pull(scene.layover, scene.digest)
    expect(response.status).toBe(503)
    expect(JSON.parse(response.body.toString())).toMatchObject({ errors: [{ code: 'UNAVAILABLE' }] })
    await expectCleanAftermath(scene, { responses: [response], failures: ['http_503'] })
  })

  it('F-15: a blob that is gone is 404 for itself only, and not for ever', async () => {
    const scene = await startScene()
    const { registry, layover } = scene
    const image = registry.image(repository, 'latest', { seed: 'F-15' })
    await rawRequest(layover.port, manifestPath('latest'))
    registry.fault(blobs, { kind: 'status', status: 404 })
    const response = await pull(layover, image.config.digest)
    expect(response.status).toBe(404)
    expect(response.body.toString()).toContain('BLOB_UNKNOWN')
    expect((await rawRequest(layover.port, manifestPath('latest'))).status).toBe(200)
    const { digest, bytes } = image.config
    await expectCleanAftermath(scene, { responses: [response], failures: ['http_404'], digest, bytes })
  })

  it('F-16: 429 is 503 with Retry-After to the client, and upstream is left alone until then', async () => {
    const scene = await startScene()
    const { registry, layover, clock } = scene
    registry.fault(blobs, { kind: 'status', status: 429, headers: { 'retry-after': '30' } })
    const response = await pull(layover, scene.digest)
    expect(response.status).toBe(503)
    expect(Number(response.headers['retry-after'])).toBeGreaterThan(0)
    const asked = registry.requests.length
    registry.clearFaults()
    clock.advance(20_000)
    const meanwhile = await Promise.all([1, 2, 3].map(() => pull(layover, scene.digest)))
    expect(meanwhile.map(({ status }) => status)).toEqual([503, 503, 503])
    expect(registry.requests.length).toBe(asked)
    const lines = layover.lines().filter(each => each.msg === 'download failed')
    await expectCleanAftermath(scene, {
      responses: [response, ...meanwhile],
      failures: ['http_429', ...lines.slice(1).map(() => 'rate_limited')],
    })
  })

  it('F-16: limited for manifests, a cached tag is served meanwhile', async () => {
    const scene = await startScene()
    const { registry, layover, clock } = scene
    const image = registry.image(repository, 'latest', { seed: 'F-16' })
    await pullImage(layover, 'latest', image)
    clock.advance(hour)
    registry.fault(manifests, { kind: 'status', status: 429, headers: { 'retry-after': '60' } })
    await pullImage(layover, 'latest', image)
    const stale = await rawRequest(layover.port, manifestPath('latest'))
    expect(stale.headers['cache-status']).toContain('stale')
    await expectCleanAftermath(scene, { responses: [], backOffMs: 61_000 })
  })

  it('F-24: a redirect to a dead host is tried again at the registry, and told apart from it', async () => {
    const scene = await startScene()
    const { registry, layover, digest, bytes } = scene
    const dead = {
      kind: 'redirect',
      location: 'http://127.0.0.1:1/gone?X-Amz-Signature=presigned-canary-4f9d',
    } as const
    registry.fault({ ...blobs, times: 1 }, dead)
    const helped = await pull(layover, digest)
    expect(helped.body.equals(bytes)).toBe(true)
    await expectCleanAftermath(scene, { responses: [helped] })

    const lasting = await startScene()
    lasting.registry.fault(blobs, dead)
    const response = await pull(lasting.layover, lasting.digest)
    expect(response.status).toBe(503)
    expect(await figure(lasting.layover, 'layover_fills_failed_total', { reason: 'redirect_connect' })).toBe(1)
    expect(await lasting.layover.metric(`layover_upstream_state{upstream="${upstreamName}"}`)).toBe(0)
    await expectCleanAftermath(lasting, { responses: [response], failures: ['redirect_connect'] })
  })

  it('F-26: an expired certificate is refused, loudly, and what is cached is served', async () => {
    const authority = await makeAuthority()
    const good = await authority.issue('127.0.0.1')
    const expired = await authority.issue('127.0.0.1', { expired: true })
    const trusted = await startFakeRegistry({ tls: good })
    const image = trusted.image(repository, 'latest', { seed: 'F-26' })
    const refused = await startFakeRegistry({ tls: expired })
    onTestFinished(() => Promise.all([trusted.stop(), refused.stop()]).then(() => undefined))
    const at = ({ url }: FakeRegistry) => ({ url, insecure: false, ca: authority.caPem, credentials: undefined })
    const scene = await startScene({ upstream: at(trusted) })
    await pullImage(scene.layover, 'latest', image)
    const now = await scene.layover.restart({
      upstreams: [upstreamConfig(upstreamName, { default: true, ...at(refused) })],
    })
    onTestFinished(() => now.close())
    scene.clock.advance(hour)
    await pullImage(now, 'latest', image)
    const response = await pull(now, digestOf(Buffer.from('new')))
    expect(response.status).toBe(503)
    expect(refused.requests).toEqual([])
    const lines = now.lines().filter(each => each.msg === 'download failed')
    expect(lines.map(line => line.reason)).toEqual(['tls'])
    expect(await now.metric(`layover_fills_failed_total{upstream="${upstreamName}",reason="tls"}`)).toBe(1)
  })

  it('F-32: an upstream without HEAD is asked by GET', async () => {
    const scene = await startScene()
    const { registry, layover, clock } = scene
    registry.settings.headStatus = 405
    const image = registry.image(repository, 'latest', { seed: 'F-32' })
    const head = await rawRequest(layover.port, manifestPath('latest'), { method: 'HEAD' })
    expect(head.status).toBe(200)
    expect(head.headers['docker-content-digest']).toBe(image.digest)
    const size = await rawRequest(layover.port, `/v2/${repository}/blobs/${image.config.digest}`, { method: 'HEAD' })
    expect(size.headers['content-length']).toBe(String(image.config.size))
    await pullImage(layover, 'latest', image)
    clock.advance(hour)
    await pullImage(layover, 'latest', image)
    registry.settings.headStatus = undefined
    await expectCleanAftermath(scene, { responses: [] })
  })
})

describe('an outage of hours', () => {
  it('F-27, F-28: everything cached is served, readiness stays, and the return is not greeted by a herd', async () => {
    const scene = await startScene()
    const { registry, layover, clock } = scene
    const image = registry.image(repository, 'latest', { seed: 'F-27' })
    await pullImage(layover, 'latest', image)
    const list = await rawRequest(layover.port, `/v2/${repository}/tags/list`)
    expect(list.status).toBe(200)
    await registry.stop()
    for (let passed = 0; passed < 6; passed++) {
      clock.advance(hour)
      await pullImage(layover, 'latest', image)
      const stale = await rawRequest(layover.port, manifestPath('latest'))
      expect(stale.headers['cache-status']).toContain('stale')
      expect(stale.headers.warning).toContain('299')
      expect((await rawRequest(layover.port, manifestPath(image.digest))).status).toBe(200)
    }
    expect((await rawRequest(layover.port, `/v2/${repository}/tags/list`)).body.equals(list.body)).toBe(true)
    expect((await rawRequest(layover.port, '/v2/')).status).toBe(200)
    expect((await fetch(`${layover.adminUrl}/readyz`)).status).toBe(200)
    const unknown = await pull(layover, scene.digest)
    expect(unknown.status).toBe(503)

    await registry.restart()
    clock.advance(2 * 60_000)
    const before = registry.requests.length
    const back = await Promise.all(Array.from({ length: 30 }, () => rawRequest(layover.port, manifestPath('latest'))))
    expect(new Set(back.map(({ status }) => status))).toEqual(new Set([200]))
    const asked = registry.requests.slice(before).filter(({ path }) => path.includes('/manifests/'))
    expect(asked.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(await layover.metric(`layover_upstream_state{upstream="${upstreamName}"}`)).toBe(0)
    const lines = layover.lines().filter(line => line.msg === 'download failed')
    await expectCleanAftermath(scene, { responses: [unknown], failures: lines.map(line => String(line.reason)) })
    expect(lines).toHaveLength(1)
  })

  it('F-27: past maxStale a tag is not served any more, its digest still is', async () => {
    const scene = await startScene({ upstream: { maxStaleMs: hour } })
    const { registry, layover, clock } = scene
    const image = registry.image(repository, 'latest', { seed: 'F-27 old' })
    await pullImage(layover, 'latest', image)
    await registry.stop()
    clock.advance(2 * hour)
    expect((await rawRequest(layover.port, manifestPath('latest'))).status).toBe(503)
    expect((await rawRequest(layover.port, manifestPath(image.digest))).status).toBe(200)
    await registry.restart()
    await expectCleanAftermath(scene, { responses: [] })
  })
})

describe('what upstream says of a tag', () => {
  it('F-29: 404 ends it, 401 and 403 do not', async () => {
    const scene = await startScene()
    const { registry, layover, clock } = scene
    const image = registry.image(repository, 'latest', { seed: 'F-29' })
    await pullImage(layover, 'latest', image)
    for (const status of [401, 403]) {
      registry.fault(manifests, { kind: 'status', status })
      clock.advance(hour)
      await pullImage(layover, 'latest', image)
      registry.clearFaults()
    }
    registry.removeTag(repository, 'latest')
    clock.advance(2 * hour)
    const gone = await rawRequest(layover.port, manifestPath('latest'))
    expect(gone.status).toBe(404)
    expect(gone.body.toString()).toContain('MANIFEST_UNKNOWN')
    await expectCleanAftermath(scene, { responses: [gone] })
  })

  it('F-30: a tag that moves between HEAD and GET: what GET brought is served under its own digest', async () => {
    const scene = await startScene()
    const { registry, layover, clock } = scene
    const first = registry.image(repository, 'latest', { seed: 'F-30 a' })
    await pullImage(layover, 'latest', first)
    registry.image(repository, 'latest', { seed: 'F-30 b' })
    clock.advance(hour)
    const gate = registry.gate({ method: 'GET', path: /\/manifests\// })
    const asking = rawRequest(layover.port, manifestPath('latest'))
    await gate.reached
    const third = registry.image(repository, 'latest', { seed: 'F-30 c' })
    gate.release()
    const answer = await asking
    expect(answer.status).toBe(200)
    expect(answer.headers['docker-content-digest']).toBe(digestOf(answer.body))
    // HEAD told of the second image, GET may have been asked by that digest; by tag it brought the third.
    clock.advance(hour)
    await pullImage(layover, 'latest', third)
    await expectCleanAftermath(scene, { responses: [] })
  })

  it('T-21: a mirror does not decide what a tag means', async () => {
    const scene = await startScene({ mirror: true })
    const { registry, mirror, layover, clock } = scene
    const image = registry.image(repository, 'latest', { seed: 'T-21' })
    mirror?.image(repository, 'latest', { seed: 'T-21 forged' })
    await pullImage(layover, 'latest', image)
    await registry.stop()
    clock.advance(hour)
    await pullImage(layover, 'latest', image)
    await registry.restart()
    clock.advance(hour)
    await pullImage(layover, 'latest', image)
    expect(mirror?.requests.filter(({ path }) => path.endsWith('/manifests/latest'))).toEqual([])
    await expectCleanAftermath(scene, { responses: [] })
  })

  it('T-21, F-23: a mirror with other bytes under the digest is not believed, for manifests and in the middle of blobs', async () => {
    const scene = await startScene({ mirror: true })
    const { registry, mirror, layover, digest, bytes } = scene
    const wrong = Buffer.from(bytes).fill(0x61)
    mirror?.corrupt(digest, wrong)
    const gate = registry.gate({ method: 'GET', path: /\/blobs\//, afterBytes: 100_000 })
    const pulling = pull(layover, digest)
    await gate.reached
    await registry.stop()
    const response = await pulling
    expect(response.body.length).toBeLessThan(bytes.length)
    const image = registry.image(repository, 'latest', { seed: 'T-21 digest' })
    mirror?.addManifest(repository, undefined, image.manifestBytes, image.mediaType)
    mirror?.corrupt(image.digest, Buffer.from('{"schemaVersion":2,"layers":[]}'))
    const manifest = await rawRequest(layover.port, manifestPath(image.digest))
    expect(manifest.status).toBeGreaterThanOrEqual(500)
    await registry.restart()
    mirror?.corrupt(digest, bytes)
    await expectCleanAftermath(scene, { responses: [response], failures: ['digest_mismatch'] })
  })
})
