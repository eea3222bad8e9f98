import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { describeStartError } from '../../src/cli/serve.ts'
import { loadConfig } from '../../src/config/load.ts'
import { fill, mayMount, smallDisk } from '../store/disk.ts'
import { layover, serve } from './process.ts'

const canary = 'hunter2Canary4711'
const anyPort = ['--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0']
let cwd = ''
beforeEach(() => {
  cwd = mkdtempSync(join(tmpdir(), 'layover-serve-'))
})
afterEach(() => rmSync(cwd, { recursive: true, force: true }))

describe('serve', () => {
  test('answers on both addresses, says where, and ends with 0 on SIGTERM', async () => {
    await using running = await serve(anyPort, { cwd })
    expect(running.ready).toMatchObject({
      level: 'info',
      dataDir: join(cwd, 'data'),
      maxBytes: 50 * 1024 ** 3,
      config: 'built-in',
    })
    const ping = await fetch(`${String(running.ready['registry'])}/v2/`)
    const live = await fetch(`${String(running.ready['admin'])}/livez`)
    expect([ping.status, live.status]).toEqual([200, 200])
    const health = await layover(['healthcheck', '--url', `${String(running.ready['admin'])}/livez`], { cwd })
    expect(health.code).toBe(0)
    running.signal('SIGTERM')
    expect(await running.ended).toBe(0)
    expect(running.lines.at(-1)).toMatchObject({ msg: 'stopped' })
  })

  test('says loudly what is risky, and no secret (T-10, T-11, T-38, T-56)', async () => {
    const yaml = `
admin: 0.0.0.0:0
storage: {maxBytes: 10MiB}
upstreams:
  quay.io: {username: u, password: ${canary}}
  plain.example.com: {url: "http://plain.example.com", insecure: true, username: u, password: ${canary}}
  unverified.example.com: {insecure: true}
`
    writeFileSync(join(cwd, 'layover.yaml'), yaml)
    await using running = await serve(['--listen', '127.0.0.1:0'], { cwd })
    running.signal('SIGINT')
    expect(await running.ended).toBe(0)
    expect(running.lines.filter(({ level }) => level === 'warn').map(({ msg }) => msg)).toEqual([
      'credentials are configured for quay.io, plain.example.com: everything that these credentials can read is readable by whoever reaches 127.0.0.1:0',
      expect.stringMatching(/^plain\.example\.com is insecure: plain http is used/),
      expect.stringMatching(/^unverified\.example\.com is insecure: certificates are not verified/),
      'the password for plain.example.com goes over plain http',
      expect.stringMatching(/^the admin listener 0\.0\.0\.0:0 is not on loopback/),
    ])
    expect(JSON.stringify(running.lines)).not.toContain(canary)
  })

  test('F-41: a second signal ends at once, with 0, although a response is running', async () => {
    const upstream = createServer(() => {}).listen(0, '127.0.0.1')
    await once(upstream, 'listening')
    const { port } = upstream.address() as AddressInfo
    const yaml = `upstreams: {silent.example.com: {default: true, url: "http://127.0.0.1:${port}", insecure: true}}\n`
    writeFileSync(join(cwd, 'layover.yaml'), yaml)
    await using running = await serve(anyPort, { cwd })
    const { hostname, port: registryPort } = new URL(String(running.ready['registry']))
    const client = connect(Number(registryPort), hostname)
    client.on('error', () => {})
    try {
      const asked = once(upstream, 'connection')
      client.write('GET /v2/a/manifests/latest HTTP/1.1\r\nHost: x\r\n\r\n')
      await asked
      running.signal('SIGTERM')
      await running.until(/^stopping/)
      running.signal('SIGTERM')
      expect(await running.ended).toBe(0)
      expect(running.lines.some(({ msg }) => msg === 'stopped')).toBe(false)
    } finally {
      client.destroy()
      upstream.close()
    }
  })

  test('an address in use is one line with the way out, exit code 1', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    const { port } = taken.address() as AddressInfo
    try {
      const registry = await layover(['serve', '--listen', `127.0.0.1:${port}`, '--admin', '127.0.0.1:0'], { cwd })
      expect(registry).toMatchObject({
        code: 1,
        err: `cannot start the registry: 127.0.0.1:${port} is in use by another program. Stop that, or choose another address with --listen.\n`,
      })
      const admin = await layover(['serve', '--admin', `127.0.0.1:${port}`, '--listen', '127.0.0.1:0'], { cwd })
      expect(admin).toMatchObject({
        code: 1,
        err: `cannot start the admin listener: 127.0.0.1:${port} is in use by another program. Stop that, or choose another address with --admin.\n`,
      })
    } finally {
      taken.close()
    }
  })

  test('a second one on the same data directory is one line with the way out', async () => {
    await using running = await serve(anyPort, { cwd })
    expect(running.ready).toBeDefined()
    const { code, err } = await layover(['serve', ...anyPort], { cwd })
    expect([code, err]).toEqual([
      2,
      expect.stringMatching(/^cannot start: dataDir \S+ is in use by another Layover: .*LAYOVER_DATA_DIR\)\n$/),
    ])
  })

  test('F-35: a data directory that cannot be written is one line with the way out, exit code 1', async () => {
    writeFileSync(join(cwd, 'file'), '')
    const { code, err, out } = await layover(['serve', ...anyPort, '--data-dir', 'file/data'], { cwd })
    expect([code, out]).toEqual([1, ''])
    expect(err).toMatch(/^cannot write to the data directory \S+\/file\/data: .*--data-dir or LAYOVER_DATA_DIR\.\n$/)
  })

  test.runIf(mayMount())('F-34: a disk that the own cache has filled starts, and makes room', async () => {
    const disk = smallDisk(4 * 1024 ** 2)
    const shard = join(disk, 'data', 'blobs', 'sha256', 'aa')
    mkdirSync(shard, { recursive: true })
    fill(join(shard, 'a'.repeat(64)))
    await using running = await serve([...anyPort, '--data-dir', join(disk, 'data')], { cwd })
    expect((await fetch(`${String(running.ready['admin'])}/readyz`)).status).toBe(200)
    expect(readdirSync(shard)).toEqual([])
    await running.until(/^storage\.maxBytes is 50GiB, but the file system of .* has only 4MiB/)
  })

  test.runIf(mayMount())('F-34: not even room for the index is one line with the way out, exit code 2', async () => {
    const disk = smallDisk(4 * 1024 ** 2)
    fill(join(disk, 'others'))
    const { code, err } = await layover(['serve', ...anyPort, '--data-dir', join(disk, 'data')], { cwd })
    expect(err).toMatch(/no room on \S+\/data: 0 bytes are free\. Free space .*smaller storage\.maxBytes/)
    expect([code, err.includes('write access')]).toEqual([2, false])
  })

  test('a wrong configuration is exit code 1, and nothing was started', async () => {
    const { code, err } = await layover(['serve', '--listen', 'nowhere'], { cwd })
    expect([code, err]).toEqual([
      1,
      '--listen: expected an address such as 127.0.0.1:5000, :5000 or [::1]:5000, got "nowhere"\n',
    ])
  })
})

describe('errors of listening', () => {
  const config = loadConfig({ readFile: () => 'listen: :80' })
  const failed = (code: string, port: number) =>
    new Error('wrapped', { cause: Object.assign(new Error(code), { code, port, syscall: 'listen' }) })

  test.each([
    [
      'EACCES',
      80,
      'cannot start the registry: this user may not listen on 0.0.0.0:80. Choose a port above 1023 with --listen.',
    ],
    [
      'EADDRNOTAVAIL',
      5001,
      'cannot start the admin listener: this machine has no address 127.0.0.1:5001. Choose one that it has, or 0.0.0.0 for all, with --admin.',
    ],
  ])('%s', (code, port, line) => expect(describeStartError(failed(code, port), config)).toBe(line))

  test('anything else is not explained away', () => {
    expect(describeStartError(new Error('x'), config)).toBeUndefined()
    expect(describeStartError(failed('EWEIRD', 80), config)).toBeUndefined()
  })
})
