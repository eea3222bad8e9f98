import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Clock, systemClock } from '../../src/clock.ts'
import { type DoctorOptions, doctor } from '../../src/cli/doctor.ts'
import type { Finding } from '../../src/cli/doctor/check.ts'
import { builtinUpstreams } from '../../src/config/builtin.ts'
import { createReplicaListener } from '../../src/edge/replica-listener.ts'
import { WriteWatch } from '../../src/edge/send-bytes.ts'
import { readReplicaSecret } from '../../src/upstream/replica-signature.ts'
import { freePorts } from '../fakes/ports.ts'
import { RedisServer, startRedisCluster } from '../fakes/redis.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { accessKeyId, FakeS3, type S3Options, secretAccessKey } from '../fakes/s3.ts'
import { makeAuthority } from '../fakes/certificates.ts'
import { layover, serve } from './process.ts'
import { documentedRules } from '../store/redis-acl.ts'

const password = 'hunter2Canary4711'
const canaries = [password, Buffer.from(`ci:${password}`).toString('base64'), secretAccessKey, accessKeyId, 'X-Amz-']

let cwd = ''
let addresses: { readonly listen: string; readonly admin: string }
const closing: (() => unknown)[] = []

beforeEach(async () => {
  cwd = mkdtempSync(join(tmpdir(), 'layover-doctor-'))
  const [listen, admin] = await freePorts(2)
  addresses = { listen: `127.0.0.1:${listen}`, admin: `127.0.0.1:${admin}` }
  vi.stubEnv('AWS_ACCESS_KEY_ID', accessKeyId)
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', secretAccessKey)
  vi.stubEnv('AWS_SESSION_TOKEN', undefined)
  for (const name of ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY']) vi.stubEnv(name, undefined)
})

afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
  vi.unstubAllEnvs()
  rmSync(cwd, { recursive: true, force: true })
})

type Examined = {
  readonly code: number
  readonly text: string
  readonly findings: readonly Finding[]
  readonly of: (check: string) => readonly Finding[]
}

/** Writes the configuration and runs the doctor on it, as JSON. What it says holds no canary, whatever it is about (T-10). */
async function examine(config: object, options: DoctorOptions = {}): Promise<Examined> {
  const { code, out } = await run(config, { json: true, ...options })
  const findings = out.startsWith('{') ? (JSON.parse(out) as { findings: Finding[] }).findings : []
  return { code, text: out, findings, of: name => findings.filter(({ check }) => check === name) }
}

async function run(
  config: object,
  options: DoctorOptions,
  env: Readonly<Record<string, string>> = {},
): Promise<{ code: number; out: string; err: string }> {
  const all = { ...addresses, dataDir: join(cwd, 'data'), storage: { maxBytes: '1MiB' }, offline: true, ...config }
  writeFileSync(join(cwd, 'layover.yaml'), stringify(all))
  let [out, err] = ['', '']
  const terminal = {
    env,
    cwd,
    interactive: false,
    out: (text: string) => void (out += text),
    err: (text: string) => void (err += text),
  }
  const code = await doctor(options, terminal)
  for (const canary of canaries) expect(out + err).not.toContain(canary)
  return { code, out, err }
}

/** These, and none of those that are built in. */
const only = (upstreams: Readonly<Record<string, object>>): object => ({
  ...Object.fromEntries(Object.keys(builtinUpstreams).map(name => [name, false])),
  ...upstreams,
})

const verdicts = (findings: readonly Finding[]): string[] => findings.map(({ verdict }) => verdict)
const foundOf = (findings: readonly Finding[]): string => findings.map(({ found }) => found).join('\n')
const aheadBy = (ms: number): Clock => ({ ...systemClock, now: () => Date.now() + ms })

async function registry(options: Parameters<typeof startFakeRegistry>[0] = {}): Promise<FakeRegistry> {
  const started = await startFakeRegistry(options)
  closing.push(() => started.stop())
  return started
}

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

describe('the report', () => {
  test('is aligned lines for people, and nothing is left behind', async () => {
    const { code, out } = await run({}, {})
    expect(code).toBe(0)
    expect(out).toMatch(/^ok    data directory    \S+: writable, /)
    expect(out).toContain(`ok    registry address  ${addresses.listen} is free\n`)
    expect(out).toContain(`ok    admin address     ${addresses.admin} is free\n`)
    expect(out).toContain('ok    upstreams         offline: none is dialled, what is not cached is 404\n')
    expect(out).toMatch(/\n\n\d ok, \d warn, 0 FAIL\n$/)
    expect(readdirSync(cwd)).toEqual(['layover.yaml'])
  })

  test('is coloured on a terminal, unless NO_COLOR is set', async () => {
    const escape = '\u001B['
    expect((await run({}, { isTerminal: true })).out).toContain(`${escape}32mok${escape}0m    registry address`)
    expect((await run({}, { isTerminal: true }, { NO_COLOR: '1' })).out).not.toContain(escape)
    expect((await run({}, {})).out).not.toContain(escape)
  })

  test('says every problem of a configuration that serve would refuse, exit code 1', async () => {
    const { code, out, err } = await run({ redis: { sentinelName: 'x' } }, {})
    expect([code, out]).toEqual([1, ''])
    expect(err).toContain('redis')
  })

  test('goes on after a check that failed, and each check has its own time', async () => {
    const silent = await listening(createServer(() => {}))
    const { code, of } = await examine(
      {
        offline: false,
        dataDir: '/proc/nothing-here',
        upstreams: only({ 'silent.test': { url: `http://127.0.0.1:${silent}`, insecure: true } }),
      },
      { timeBoxMs: 300 },
    )
    expect(code).toBe(3)
    expect(verdicts(of('data directory'))).toEqual(['FAIL'])
    expect(verdicts(of('admin address'))).toEqual(['ok'])
    expect(of('silent.test')).toMatchObject([
      { verdict: 'FAIL', found: `no answer within 0.3 s: GET /v2/ of 127.0.0.1:${silent}` },
    ])
  })
})

describe('the command', () => {
  test('knows a Layover that runs there already, and ends with 0; --help names it', async () => {
    const args = ['--offline', '--listen', addresses.listen, '--admin', addresses.admin, '--max-bytes', '1MiB']
    await using running = await serve(args, { cwd })
    expect(running.ready).toMatchObject({ msg: 'ready' })
    const { code, out, err } = await layover(['doctor', '--json', ...args], { cwd })
    expect([code, err]).toEqual([0, ''])
    const { ok, findings } = JSON.parse(out) as { ok: boolean; findings: readonly Finding[] }
    expect(ok).toBe(true)
    expect(findings.filter(({ found }) => found.endsWith('a Layover runs here already'))).toHaveLength(2)
    expect((await layover(['--help'], { cwd })).out).toMatch(/^ {2}doctor /m)
  })

  test('what is to be done about several things in a row is said once', async () => {
    const url = 'http://127.0.0.1:1'
    const { out } = await run(
      { offline: false, upstreams: only({ 'one.test': { url, insecure: true }, 'two.test': { url, insecure: true } }) },
      {},
    )
    expect(out).toMatch(/FAIL {2}one\.test .*ECONNREFUSED\)\nFAIL {2}two\.test .*ECONNREFUSED\)\n +→ see that address/)
  })
})

describe('addresses and disk', () => {
  test('an address in use by another program is a FAIL with the flag that changes it', async () => {
    const port = await listening(createServer((_, response) => response.end('something else')))
    const { code, of } = await examine({ listen: `127.0.0.1:${port}` })
    expect(code).toBe(3)
    expect(of('registry address')).toEqual([
      {
        check: 'registry address',
        verdict: 'FAIL',
        found: `127.0.0.1:${port} is in use by another program`,
        advice: 'stop that program, or choose another address with --listen',
      },
    ])
  })

  test('addresses of a Layover that runs there already are no problem', async () => {
    const registryPort = await listening(createServer())
    const adminPort = await listening(createServer((_, response) => response.end('Layover\n\n/metrics\n')))
    const { code, of } = await examine({ listen: `127.0.0.1:${registryPort}`, admin: `127.0.0.1:${adminPort}` })
    expect(code).toBe(0)
    expect(foundOf(of('registry address'))).toContain('a Layover runs here already')
    expect(foundOf(of('admin address'))).toContain('a Layover runs here already')
  })

  test('a budget that the file system cannot hold is a FAIL that names the key', async () => {
    const { code, of } = await examine({ storage: { maxBytes: '8000TiB' } })
    expect([code, verdicts(of('data directory'))]).toEqual([3, expect.arrayContaining(['FAIL'])])
    expect(of('data directory')[0]?.advice).toContain('storage.maxBytes')
    const tier = await examine({
      s3: { bucket: 'b', endpoint: 'http://127.0.0.1:1' },
      hotTier: { maxBytes: '8000TiB' },
    })
    expect(tier.of('data directory')[0]?.advice).toContain('hotTier.maxBytes')
  })
})

describe('upstreams', () => {
  const upstream = (url: string, rest: object = {}) => ({
    offline: false,
    upstreams: only({ 'registry.test': { url, insecure: true, ...rest } }),
  })

  test('offline: nobody is dialled', async () => {
    const { requests, connections, url } = await registry()
    const { code } = await examine({ ...upstream(url), offline: true })
    expect([code, requests.length, connections]).toEqual([0, 0, 0])
  })

  test('an open registry is ok', async () => {
    const { url, host } = await registry()
    const { code, of } = await examine(upstream(url))
    expect(code).toBe(0)
    expect(foundOf(of('registry.test'))).toMatch(new RegExp(`^${host}: answers in \\d+ ms, asks for no credentials$`))
  })

  test('T-10: a token with the configured credentials is ok, and a wrong password is a FAIL; neither is shown', async () => {
    const { url, host, tokenExchanges } = await registry({ auth: 'bearer', username: 'ci', password })
    const right = await examine(upstream(url, { username: 'ci', password }))
    expect(right.code).toBe(0)
    expect(foundOf(right.of('registry.test'))).toContain(`token from ${host} with the configured credentials`)
    expect(tokenExchanges.map(({ status }) => status)).toEqual([200])
    const wrong = await examine(upstream(url, { username: 'ci', password: `${password}x` }))
    expect(wrong.code).toBe(3)
    expect(wrong.of('registry.test')).toMatchObject([
      {
        verdict: 'FAIL',
        found: expect.stringContaining('refused the configured credentials'),
        advice: 'see whether user and password are right and not expired',
      },
    ])
  })

  test('basic credentials are tried', async () => {
    const { url } = await registry({ auth: 'basic', username: 'ci', password })
    expect((await examine(upstream(url, { username: 'ci', password }))).code).toBe(0)
    expect((await examine(upstream(url, { username: 'ci', password: 'wrong' }))).code).toBe(3)
    expect((await examine(upstream(url))).code).toBe(3)
  })

  test('T-10: a password for a token server that echoes it, or refuses the token it gave, is not shown', async () => {
    const { url, tokens } = await registry({ auth: 'bearer', username: 'ci', password })
    tokens.answer = { status: 500, headers: {}, body: Buffer.from(`password=${password}`) }
    const echo = await examine(upstream(url, { username: 'ci', password }))
    expect(foundOf(echo.of('registry.test'))).toContain('the token server answered 500')
    tokens.answer = { status: 200, headers: {}, body: Buffer.from(JSON.stringify({ token: password })) }
    const port = await listening(
      createServer((_, response) =>
        response
          .writeHead(401, { 'www-authenticate': `Bearer realm="${url}/token"`, 'x-echo': password })
          .end(password),
      ),
    )
    const { code, of } = await examine(
      upstream(`http://127.0.0.1:${port}`, { username: 'ci', password, realmHosts: ['127.0.0.1'] }),
    )
    expect([code, verdicts(of('registry.test'))]).toEqual([0, ['warn']])
    expect(foundOf(of('registry.test'))).toContain('but it answers 401 to it')
  })

  test('T-38: a certificate of an authority that nobody named is a FAIL that says how to name it', async () => {
    const authority = await makeAuthority()
    const { url } = await registry({ tls: await authority.issue('127.0.0.1') })
    const { code, of } = await examine(upstream(url, { insecure: false }))
    expect(code).toBe(3)
    expect(of('registry.test')).toMatchObject([
      { found: expect.stringContaining('TLS certificate'), advice: expect.stringContaining('with ca') },
    ])
    writeFileSync(join(cwd, 'ca.pem'), authority.caPem)
    expect((await examine(upstream(url, { insecure: false, ca: 'ca.pem' }))).code).toBe(0)
  })

  test('P-88: a mirror is a check of its own, and is not shown the credentials', async () => {
    const own = await registry({ auth: 'basic', username: 'ci', password })
    const mirror = await registry()
    const { code, of } = await examine(
      upstream(own.url, { username: 'ci', password, mirrors: [mirror.url, 'http://127.0.0.1:1'] }),
    )
    expect(code).toBe(3)
    expect(verdicts(of('registry.test'))).toEqual(['ok'])
    expect(verdicts(of('registry.test mirror'))).toEqual(['ok', 'FAIL'])
    expect(foundOf(of('registry.test mirror'))).toContain('ECONNREFUSED')
    expect(mirror.requests.map(({ headers }) => headers.authorization)).toEqual([undefined])
  })

  test('T-1: a realm on another host is named and not asked', async () => {
    const { url, settings, requests } = await registry({ auth: 'bearer' })
    settings.challenge = `Bearer realm="https://tokens.example.net/t?secret=${password}",service="x"`
    const { code, of } = await examine(upstream(url))
    expect(code).toBe(3)
    expect(of('registry.test')[0]).toMatchObject({
      found: expect.stringContaining('a token server that is not allowed: tokens.example.net (host)'),
      advice: expect.stringContaining('realmHosts'),
    })
    expect(requests).toHaveLength(1)
  })

  test('P-101: Docker Hub is asked how many pulls are left, by a HEAD that does not count', async () => {
    const hub = await registry({ auth: 'bearer' })
    hub.image('ratelimitpreview/test', 'latest')
    hub.settings.headers = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600' }
    const config = { offline: false, upstreams: only({ 'docker.io': { url: hub.url, insecure: true } }) }
    expect(foundOf((await examine(config)).of('docker.io'))).toContain('76 of 100 pulls left')
    expect(hub.requests.filter(({ path }) => path.includes('manifests')).map(({ method }) => method)).toEqual(['HEAD'])
    hub.settings.headers = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '0;w=21600' }
    const { code, of } = await examine(config)
    expect([code, verdicts(of('docker.io'))]).toEqual([0, ['warn']])
  })

  test('a clock that is off by more than 30 s is told', async () => {
    const { url } = await registry()
    const { of } = await examine(upstream(url), { clock: aheadBy(45_000) })
    expect(foundOf(of('registry.test'))).toMatch(/the clock of this machine is 4[4-6] s ahead of that of/)
    const fine = await examine(upstream(url), { clock: aheadBy(20_000) })
    expect(verdicts(fine.of('registry.test'))).toEqual(['ok'])
  })

  test('what is no registry is a FAIL that says what it answered', async () => {
    const port = await listening(createServer((_, response) => response.writeHead(404).end()))
    const { of } = await examine(upstream(`http://127.0.0.1:${port}`))
    expect(of('registry.test')).toMatchObject([{ verdict: 'FAIL', found: `127.0.0.1:${port}: answers 404 to /v2/` }])
  })
})

describe('redis', () => {
  async function redis(...options: readonly (readonly string[])[]): Promise<RedisServer> {
    const server = await RedisServer.start(...options)
    closing.push(() => server.stop())
    return server
  }

  test('every command is tried under our prefix, and nothing stays', async () => {
    const server = await redis(['maxmemory', '64mb'], ['maxmemory-policy', 'allkeys-lru'])
    const { code, of } = await examine({ redis: { url: server.url } })
    expect([code, verdicts(of('redis'))]).toEqual([0, ['ok', 'ok']])
    expect(foundOf(of('redis'))).toMatch(
      /Redis \d+\.\d+\.\d+, \d+\.\d ms, a write, a read and a removal under layover:1: work/,
    )
    expect(foundOf(of('redis'))).toContain('maxmemory 64MiB, allkeys-lru, append-only file off')
    expect(await server.admin.dbsize()).toBe(0)
  })

  test('no maxmemory, and noeviction, are warnings with what to set', async () => {
    const endless = await redis()
    expect(verdicts((await examine({ redis: { url: endless.url } })).of('redis'))).toEqual(['ok', 'warn'])
    const full = await redis(['maxmemory', '64mb'], ['maxmemory-policy', 'noeviction'])
    const { code, of } = await examine({ redis: { url: full.url } })
    expect(code).toBe(0)
    expect(of('redis').at(-1)).toMatchObject({ verdict: 'warn', advice: expect.stringContaining('allkeys-lru') })
  })

  test('the documented ACL user is enough; what it lacks is named by command', async () => {
    const server = await redis(['maxmemory', '64mb'], ['maxmemory-policy', 'allkeys-lru'])
    const user = (...rules: readonly string[]) =>
      server.admin.call('ACL', 'SETUSER', 'layover', 'reset', 'on', `>${password}`, ...rules)
    const config = { redis: { url: server.url, username: 'layover', password } }
    await user(...documentedRules())
    expect(verdicts((await examine(config)).of('redis'))).toEqual(['ok', 'ok'])
    await user(...documentedRules(), '-zadd', '-eval')
    const { code, of } = await examine(config)
    expect(code).toBe(3)
    expect(foundOf(of('redis'))).toContain('the ACL user may not run: zadd, eval')
    await user(...documentedRules(), 'resetkeys', '~other:*')
    expect(foundOf((await examine(config)).of('redis'))).toContain('the ACL user may not use keys under layover:1:')
    await user(...documentedRules(), '-info')
    expect(verdicts((await examine(config)).of('redis'))).toEqual(['ok', 'warn'])
  })

  test('T-10: a wrong password and a Redis that is away are FAILs without the password', async () => {
    const server = await redis()
    await server.admin.call('ACL', 'SETUSER', 'layover', 'on', '>another', '~*', '+@all')
    const { code, of } = await examine({ redis: { url: server.url, username: 'layover', password } })
    expect([code, verdicts(of('redis'))]).toEqual([3, ['FAIL']])
    expect(foundOf(of('redis'))).toContain('Redis refuses user name or password')
    const gone = await examine({ redis: { url: 'redis://127.0.0.1:1/0' } })
    expect(foundOf(gone.of('redis'))).toContain('Redis cannot be reached: ECONNREFUSED')
  })

  test('a cluster is examined as one server is', async () => {
    const nodes = await startRedisCluster(['maxmemory', '64mb'], ['maxmemory-policy', 'allkeys-lru'])
    for (const node of nodes) closing.push(() => node.stop())
    const { code, of } = await examine({ redis: { cluster: nodes.map(({ port }) => `127.0.0.1:${port}`) } })
    expect([code, verdicts(of('redis'))]).toEqual([0, ['ok', 'ok']])
    expect(await Promise.all(nodes.map(node => node.admin.dbsize()))).toEqual([0, 0, 0])
  })

  test('a replica, and one that stands still, are FAILs', async () => {
    const master = await redis()
    const replica = await redis(['replicaof', '127.0.0.1', String(master.port)])
    expect(foundOf((await examine({ redis: { url: replica.url } })).of('redis'))).toContain('is a replica')
    master.stand()
    const { code, of } = await examine({ redis: { url: master.url } }, { timeBoxMs: 700 })
    master.goOn()
    expect([code, verdicts(of('redis'))]).toEqual([3, ['FAIL']])
  })
})

describe('bucket', () => {
  async function bucket(options: S3Options = {}): Promise<FakeS3> {
    const fake = await FakeS3.start(options)
    closing.push(() => fake.stop())
    return fake
  }
  const s3 = ({ bucket: name, endpoint }: FakeS3) => ({ s3: { bucket: name, endpoint, pathStyle: true } })

  test('writes, conditions, checksums, signed URLs, ranges, lists and deletes are tried, and nothing stays', async () => {
    const fake = await bucket()
    const { code, of } = await examine(s3(fake))
    expect([code, verdicts(of('bucket'))]).toEqual([0, ['ok', 'ok']])
    expect(fake.objects.size).toBe(0)
    const ranged = fake.seen.find(({ headers }) => headers.range !== undefined)
    expect([ranged?.signed, ranged?.headers.range]).toEqual(['url', 'bytes=8-13'])
    expect(fake.seen.filter(({ key }) => key === '')).toHaveLength(1)
  })

  test.each([
    [{ conditionalPuts: 'ignored' }, 'conditional writes (If-None-Match) are ignored'],
    [{ conditionalPuts: 'refused' }, 'conditional writes (If-None-Match) are refused'],
    [{ checksums: 'ignored' }, 'a wrong one was accepted'],
    [{ checksums: 'refused' }, 'a wrong one cannot be sent'],
  ] as const)('a service with %j is a warning', async (options, found) => {
    const { code, of } = await examine(s3(await bucket(options)))
    expect(code).toBe(0)
    expect(of('bucket').filter(({ verdict }) => verdict === 'warn')).toMatchObject([
      { found: expect.stringContaining(found) },
    ])
  })

  test('what is not allowed is told: listing and deleting are warnings, writing is a FAIL', async () => {
    const fake = await bucket()
    fake.break('GET list-type', { kind: 'status', status: 403, code: 'AccessDenied' })
    fake.break('DELETE', { kind: 'status', status: 403, code: 'AccessDenied' })
    const limited = await examine(s3(fake))
    expect(limited.code).toBe(0)
    expect(foundOf(limited.of('bucket'))).toMatch(/cannot be listed \(denied\)[^]*cannot be deleted/)
    fake.break('PUT', { kind: 'status', status: 403, code: 'AccessDenied' })
    const { code, of } = await examine(s3(fake))
    expect(code).toBe(3)
    expect(of('bucket')).toMatchObject([
      { verdict: 'FAIL', found: expect.stringContaining('AccessDenied (403)'), advice: expect.stringContaining('s3:') },
    ])
  })

  test('a bucket that is not there, wrong bytes, and nobody there are FAILs', async () => {
    const fake = await bucket()
    const absent = await examine({ s3: { ...s3(fake).s3, bucket: 'other' } })
    expect(foundOf(absent.of('bucket'))).toContain('NoSuchBucket')
    fake.break('GET X-Amz-Signature', { kind: 'wrongBytes' })
    expect(foundOf((await examine(s3(fake))).of('bucket'))).toContain('what is read is not what was written')
    const gone = await examine({ s3: { bucket: 'b', endpoint: 'http://127.0.0.1:1', pathStyle: true } })
    expect([gone.code, foundOf(gone.of('bucket'))]).toEqual([3, expect.stringContaining('ECONNREFUSED')])
  })

  test('T-10: a clock that is off is told, also where it is why signatures are refused', async () => {
    const fake = await bucket()
    const { of } = await examine(s3(fake), { clock: aheadBy(-90_000) })
    expect(foundOf(of('bucket'))).toMatch(/the clock of this machine is (?:89|90|91) s behind that of the bucket/)
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', password)
    const wrong = await examine(s3(fake), { clock: aheadBy(-90_000) })
    expect(foundOf(wrong.of('bucket'))).toMatch(/SignatureDoesNotMatch[^]*behind that of the bucket/)
  })
})

describe('replica url', () => {
  const secret = 'a9f2c871d0b34e5faa01'

  /** Configuration of a replica at this port, with a Redis that nobody needs here. */
  async function replica(port: number): Promise<object> {
    const file = join(cwd, 'secret')
    writeFileSync(file, secret)
    const [own] = await freePorts(1)
    return {
      redis: { url: 'redis://127.0.0.1:1/0' },
      replica: { listen: `127.0.0.1:${own}`, url: `http://127.0.0.1:${port}`, secretFile: file },
    }
  }

  async function replicaWith(text: string): Promise<number> {
    const file = join(cwd, 'their-secret')
    writeFileSync(file, text)
    const watch = new WriteWatch(5000)
    closing.push(() => watch.close())
    return listening(
      createServer(
        createReplicaListener({
          openHere: () => Promise.resolve(undefined),
          secret: await readReplicaSecret(file),
          clock: systemClock,
          watch,
          onError: error => {
            throw error
          },
        }),
      ),
    )
  }

  test('a Layover with our secret is ok, and loopback is told', async () => {
    const { of } = await examine(await replica(await replicaWith(secret)))
    expect(verdicts(of('replica url'))).toEqual(['warn', 'ok'])
    expect(foundOf(of('replica url'))).toMatch(/is loopback[^]*answers and knows our secret/)
  })

  test('T-18: another secret is a FAIL that shows neither', async () => {
    const { of, text } = await examine(await replica(await replicaWith('another-0123456789abcdef')))
    expect(of('replica url').at(-1)).toMatchObject({ verdict: 'FAIL', advice: expect.stringContaining('secretFile') })
    expect(text).not.toMatch(/a9f2c871|another-0123/)
  })

  test('nobody there is a warning, something else there a FAIL', async () => {
    const nobody = await examine(await replica(1))
    expect(nobody.of('replica url').at(-1)).toMatchObject({
      verdict: 'warn',
      found: '127.0.0.1:1: no Layover runs there now',
    })
    const port = await listening(createServer((_, response) => response.end('hello')))
    expect((await examine(await replica(port))).of('replica url').at(-1)?.verdict).toBe('FAIL')
  })

  test('T-19: a placeholder for a secret is a FAIL', async () => {
    const config = await replica(1)
    writeFileSync(join(cwd, 'secret'), 'change-me-change-me')
    expect((await examine(config)).of('replica url')).toMatchObject([
      { verdict: 'FAIL', found: expect.stringContaining('holds a placeholder') },
    ])
  })
})
