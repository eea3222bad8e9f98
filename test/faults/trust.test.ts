import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { FaultMatch } from '../fakes/faults.ts'
import { startTestLayover } from '../fakes/layover.ts'
import { rawRequest } from '../fakes/raw-client.ts'
import { startFakeRegistry } from '../fakes/registry.ts'
import {
  expectCleanAftermath,
  expectNoSecrets,
  failuresOf,
  manifestPath,
  password,
  pull,
  pullImage,
  repository,
  startScene,
  upstreamName,
} from './scene.ts'

const blobs = { method: 'GET', path: /\/blobs\//, times: 99 } satisfies FaultMatch

/** A server that must never hear anything. */
async function startTrap() {
  let connections = 0
  const server = createServer((_request, response) => void response.end('{"token":"stolen"}'))
  server.on('connection', () => connections++)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  return { port, connections: () => connections }
}

describe('where credentials may go', () => {
  it.each<[string, (own: number, trap: number) => string]>([
    ['link-local', () => 'http://169.254.169.254/token'],
    ['another domain', () => 'https://attacker.example/token'],
    ['another port', (_own, trap) => `http://127.0.0.1:${trap}/token`],
    ['another port with TLS', (_own, trap) => `https://127.0.0.1:${trap}/token`],
    ['another name of this host', (_own, trap) => `http://localhost:${trap}/token`],
    ['a number', (_own, trap) => `http://2130706433:${trap}/token`],
    ['its own host with a user', own => `http://robot@127.0.0.1:${own}/token`],
    ['its own host as a label of another', own => `http://127.0.0.1.evil.example:${own}/token`],
    ['a file', () => 'file:///etc/passwd'],
    ['nowhere', () => 'not a url'],
  ])('T-1: a realm at %s gets neither a connection nor a credential', async (_name, realm) => {
    const trap = await startTrap()
    const registry = await startFakeRegistry({ auth: 'bearer', username: 'robot', password })
    onTestFinished(() => registry.stop())
    const own = Number(new URL(registry.url).port)
    registry.settings.challenge = `Bearer realm="${realm(own, trap.port)}",service="x",scope="repository:${repository}:pull"`
    const credentials = { kind: 'password', username: 'robot', password } as const
    const layover = await startTestLayover({
      upstreams: { [upstreamName]: { url: registry.url, insecure: true, credentials } },
    })
    onTestFinished(() => layover.close())
    const image = registry.image(repository, 'latest')
    const responses = await Promise.all([
      rawRequest(layover.port, manifestPath('latest')),
      pull(layover, image.config.digest),
    ])
    for (const { status, headers } of responses) {
      expect(status).toBe(502)
      expect(headers['www-authenticate']).toBeUndefined()
    }
    expect(registry.tokenExchanges).toEqual([])
    expect(registry.requests.flatMap(({ headers }) => headers.authorization ?? [])).toEqual([])
    expect(trap.connections()).toBe(0)
    expect(failuresOf(layover)).toEqual(['realm'])
    await expectNoSecrets({ layover }, responses)
    // The same registry with its own realm is trusted with them.
    registry.settings.challenge = undefined
    await pullImage(layover, 'latest', image)
  })

  it('T-8: credentials do not follow a redirect to another origin, nor does anything the client sent', async () => {
    const scene = await startScene({ registry: { blobRedirect: 'absolute' } })
    const { registry, layover, digest, bytes } = scene
    const response = await pull(layover, digest, {
      headers: { authorization: 'Basic Y2xpZW50OmNsaWVudC1jYW5hcnk=', cookie: 'client-canary=1' },
    })
    expect(response.body.equals(bytes)).toBe(true)
    const away = registry.requests.filter(({ origin }) => origin === 'cdn')
    expect(away.length).toBeGreaterThan(0)
    for (const { headers } of away) {
      expect(headers.authorization).toBeUndefined()
      expect(headers.cookie).toBeUndefined()
      expect(headers['proxy-authorization']).toBeUndefined()
    }
    expect(JSON.stringify(registry.requests.map(({ headers }) => headers))).not.toMatch(/canary=1|Y2xpZW50/)
    expect(layover.logged()).not.toMatch(/canary=1|Y2xpZW50/)
    await expectCleanAftermath(scene, { responses: [response] })
  })
})

describe('where a redirect may lead', () => {
  it.each([
    'http://169.254.169.254/latest/meta-data/',
    'http://[::ffff:169.254.169.254]/',
    'http://0xa9fea9fe/',
    'http://2852039166/',
    'http://169.254.169.254./',
    'http://%E2%91%A0%E2%91%A5%E2%91%A8.254.169.254/',
    'http://[fd00:ec2::254]/',
    'http://0.0.0.0/',
    'http://224.0.0.1/',
    'http://user@127.0.0.1/',
    'ftp://127.0.0.1/',
    'file:///etc/passwd',
  ])('T-2: not to %s, for blobs, manifests and tokens', async location => {
    const scene = await startScene()
    const { registry, layover, digest } = scene
    const redirect = { kind: 'redirect', location } as const
    registry.fault(blobs, redirect)
    const startedAt = performance.now()
    const blob = await pull(layover, digest)
    expect(blob.status).toBe(502)
    expect(blob.headers['content-type']).toBe('application/json')
    registry.fault({ path: /\/manifests\//, times: 99 }, redirect)
    const manifest = await rawRequest(layover.port, manifestPath('latest'))
    expect(manifest.status).toBe(502)
    // Refused, not tried in vain.
    expect(performance.now() - startedAt).toBeLessThan(9_000)
    registry.revokeTokens()
    registry.fault({ path: /^\/token$/, times: 99 }, redirect)
    const token = await rawRequest(layover.port, manifestPath('other'))
    expect(token.status).toBeGreaterThanOrEqual(500)
    for (const { body } of [blob, manifest, token]) expect(body.toString()).not.toContain('169.254')
    await expectCleanAftermath(scene, {
      responses: [blob, manifest, token],
      failures: ['redirect'],
      backOffMs: 61_000,
    })
  })

  it('T-2: not in circles', async () => {
    const scene = await startScene()
    scene.registry.fault(blobs, { kind: 'redirect', location: `/v2/${repository}/blobs/${scene.digest}` })
    const response = await pull(scene.layover, scene.digest)
    expect(response.status).toBe(502)
    await expectCleanAftermath(scene, { responses: [response], failures: ['too_many_redirects'] })
  })
})

describe('T-10: secrets', () => {
  it('are in no output after all of these failures', async () => {
    const scene = await startScene({ registry: { blobRedirect: 'absolute' }, upstream: { idleTimeoutMs: 150 } })
    const { registry, layover, clock, digest } = scene
    const image = registry.image(repository, 'latest', { seed: 'T-10' })
    await pullImage(layover, 'latest', image)
    const faults = [
      { kind: 'reset' },
      { kind: 'status', status: 403, body: 'presigned-canary-4f9d password-canary-9c1e' },
      { kind: 'status', status: 500, body: 'X-Amz-Signature=presigned-canary-4f9d' },
      { kind: 'redirect', location: 'http://169.254.169.254/?X-Amz-Signature=presigned-canary-4f9d' },
      { kind: 'redirect', location: 'http://registry.invalid/?X-Amz-Signature=presigned-canary-4f9d' },
      { kind: 'cut', at: 10, how: 'rst' },
      { kind: 'stall', at: 10 },
      { kind: 'gzip' },
    ] as const
    const responses = []
    for (const fault of faults) {
      registry.fault({ origin: 'cdn', times: 99 }, fault)
      responses.push(await pull(layover, digest))
      registry.clearFaults()
      clock.advance(61_000)
    }
    registry.tokens.answer = { status: 500, headers: {}, body: Buffer.from('password-canary-9c1e') }
    registry.revokeTokens()
    responses.push(await rawRequest(layover.port, manifestPath('never')))
    registry.tokens.answer = undefined
    clock.advance(61_000)
    expect(responses.every(({ status }) => status >= 400 || status === 200)).toBe(true)
    expect(failuresOf(layover)).toHaveLength(faults.length)
    await expectNoSecrets(scene, responses)
  })
})
