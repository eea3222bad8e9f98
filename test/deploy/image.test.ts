import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { chown } from 'node:fs/promises'
import { join } from 'node:path'
import { request } from 'undici'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { freePorts } from '../fakes/ports.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { type Finished, type Running, run, scratch, start } from '../real/harness/process.ts'
import { buildContext, readDockerfile } from './dockerfile.ts'
import { buildRootFilesystem, type RootFilesystem } from './root-filesystem.ts'
import { configOf, read } from './settings.ts'

const text = read('Dockerfile')
const dockerfile = readDockerfile(text)

describe('the Dockerfile', () => {
  test('sets only variables that the configuration knows, and keeps its data in the volume', () => {
    const config = configOf(dockerfile.env)
    expect(config.dataDir).toBe('/data')
    expect(text).toContain(`VOLUME ${config.dataDir}\n`)
    expect(text).toContain(`EXPOSE ${config.listen.port} ${config.admin.port}\n`)
  })

  test('does not open the admin listener by itself', () => {
    expect(configOf(dockerfile.env).admin.host).toBe('127.0.0.1')
  })

  test('needs no shell, runs as nobody in particular, and no script of a dependency runs while it is built', () => {
    expect(dockerfile.user).toBe('65532:65532')
    for (const exec of [dockerfile.entrypoint, dockerfile.healthcheck]) expect(exec[0]).toBe('node')
    expect(dockerfile.runs).toEqual([expect.stringContaining('npm ci --omit=dev --ignore-scripts')])
    // The stage that is kept runs nothing.
    expect(text.slice(text.lastIndexOf('FROM '))).not.toMatch(/^RUN /m)
  })

  test('either base can be another one', () => {
    expect(text).toMatch(/^ARG BUILD_BASE=\S+\nARG BASE=\S+\n/m)
    expect(text.match(/^FROM .*$/gm)).toEqual(['FROM ${BUILD_BASE} AS dependencies', 'FROM ${BASE}'])
  })

  test('what it copies is in the build context, and nothing else is', () => {
    const copied = dockerfile.copies.flat().filter(({ from }) => from === undefined)
    expect(new Set(buildContext())).toEqual(new Set(copied.flatMap(({ sources }) => sources)))
  })
})

describe('its files, in a place of their own: read-only, no shell, no entry in /etc/passwd, not root', () => {
  let image: RootFilesystem
  let upstream: FakeRegistry
  let running: Running
  let variables: Record<string, string>
  let [url, adminUrl] = ['', '']

  const inside = (args: readonly string[]): Promise<Finished> => {
    const { command, args: all } = image.command(args, variables)
    return run(command, all)
  }

  beforeAll(async () => {
    image = await buildRootFilesystem(dockerfile)
    upstream = await startFakeRegistry()
    const [listen, admin] = (await freePorts(2)).map(port => `127.0.0.1:${port}`)
    if (listen === undefined || admin === undefined) throw new Error('two ports are needed')
    ;[url, adminUrl] = [`http://${listen}`, `http://${admin}`]
    variables = {
      ...dockerfile.env,
      LAYOVER_LISTEN: listen,
      LAYOVER_ADMIN: admin,
      LAYOVER_UPSTREAMS_FAKE_NAME: 'fake.test',
      LAYOVER_UPSTREAMS_FAKE_URL: upstream.url,
      LAYOVER_UPSTREAMS_FAKE_INSECURE: 'true',
    }
    running = await start({
      ...image.command([...dockerfile.entrypoint, ...dockerfile.command], variables),
      ready: async () => (await statusOf(`${adminUrl}/readyz`)) === 200,
    })
  }, 180_000)

  afterAll(async () => {
    await running?.end()
    await upstream?.[Symbol.asyncDispose]()
    await image?.remove()
  })

  test('the place is what it says it is: nothing but /data can be written, and there is no shell', async () => {
    const script = `
      const { writeFileSync, existsSync } = require('node:fs')
      const attempt = path => { try { writeFileSync(path, ''); return 'written' } catch (error) { return error.code } }
      console.log(JSON.stringify([process.getuid(), process.getgroups(), attempt('/app/x'), attempt('/x'), attempt('/data/x'), existsSync('/bin/sh')]))`
    const { stdout } = await inside(['node', '-e', script])
    expect(JSON.parse(stdout)).toEqual([65532, [65532], 'EROFS', 'EROFS', 'written', false])
  })

  test('it serves: a pull goes through it, to the digest, and is there again without its upstream', async () => {
    const { manifestBytes, mediaType, layers } = upstream.image('team/app', '1', { layers: 2, layerBytes: 200_000 })
    const pull = async (): Promise<void> => {
      const manifest = await get(`${url}/v2/team/app/manifests/1?ns=fake.test`, { accept: mediaType })
      expect(manifest.equals(manifestBytes)).toBe(true)
      for (const { digest } of layers) {
        const blob = await get(`${url}/v2/team/app/blobs/${digest}?ns=fake.test`)
        expect(`sha256:${createHash('sha256').update(blob).digest('hex')}`).toBe(digest)
      }
    }
    await pull()
    await upstream.stop()
    await pull()
    expect(readdirSync(join(image.path, 'data'))).toContain('index.sqlite')
  })

  test('what the admin listener shows is in it too', async () => {
    for (const path of ['/status', '/metrics']) expect(await statusOf(`${adminUrl}${path}`)).toBe(200)
  })

  test('HEALTHCHECK as it is written: 0 while it runs, 1 afterwards; SIGTERM ends it', async () => {
    expect(await inside(dockerfile.healthcheck)).toMatchObject({ code: 0, stderr: '' })
    await running.end()
    expect(running.output()).not.toMatch(/"level":"(error|fatal)"/)
    expect(await inside(dockerfile.healthcheck)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('not healthy'),
    })
  })

  test('the other commands are in it', async () => {
    const said = await inside([...dockerfile.entrypoint, 'node', 'install', '--url', url, '--root', '/data/certs.d'])
    expect(said).toMatchObject({ code: 0, stdout: expect.stringContaining('wrote /data/certs.d/_default/hosts.toml') })
    expect(await inside([...dockerfile.entrypoint, 'config', 'check'])).toMatchObject({ code: 0 })
  })

  test('as root without rights, with certs.d of a node as all that it can write: what the DaemonSet does works', async () => {
    const certs = await scratch('certs')
    try {
      const args = [...dockerfile.entrypoint, 'node', 'install', '--url', url]
      const way = { user: '0:0', writable: [certs.path, '/etc/containerd/certs.d'] } as const
      const { command, args: all } = image.command(args, dockerfile.env, way)
      expect(await run(command, all)).toMatchObject({ code: 0, stderr: '' })
      expect(readdirSync(certs.path)).toEqual(['_default'])
      // Of another user's directory it says that it may not: there is no capability that would let root pass.
      await chown(certs.path, 1000, 1000)
      const other = image.command([...args, '--air-gapped', '--upstream', 'quay.io'], dockerfile.env, way)
      expect(await run(other.command, other.args)).toMatchObject({ code: 2, stderr: expect.stringContaining('EACCES') })
    } finally {
      await certs.remove()
    }
  })

  test('no package is in it that only the tests need', () => {
    const packages = readdirSync(join(image.path, 'app/node_modules'))
    expect(packages).toEqual(expect.arrayContaining(['hono', 'undici']))
    for (const name of ['vitest', 'typescript', 'node', 'kubernetes-models']) expect(packages).not.toContain(name)
  })
})

async function get(from: string, headers: Record<string, string> = {}): Promise<Buffer> {
  const { statusCode, body } = await request(from, { headers })
  const bytes = Buffer.from(await body.arrayBuffer())
  if (statusCode !== 200) throw new Error(`${from}: ${statusCode} ${bytes.toString()}`)
  return bytes
}

async function statusOf(from: string): Promise<number | undefined> {
  const answer = await request(from).catch(() => undefined)
  await answer?.body.dump()
  return answer?.statusCode
}
