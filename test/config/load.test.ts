import { describe, expect, test } from 'vitest'
import type { UpstreamConfig } from '../../src/config/config.ts'
import { loadConfig, readConfig } from '../../src/config/load.ts'
import { problemsOf, read, readFrom } from './reading.ts'

const upstream = (yaml: string, name: string, options: Parameters<typeof read>[1] = {}): UpstreamConfig | undefined =>
  read(yaml, options).config.upstreams.find(each => each.name === name)

describe('defaults', () => {
  const config = loadConfig({ cwd: '/srv', readFile: readFrom({}) })

  test('no file and no variable is a working configuration', () => {
    expect({ ...config, upstreams: [] }).toEqual({
      listen: { host: '0.0.0.0', port: 5000 },
      admin: { host: '127.0.0.1', port: 5001 },
      dataDir: '/srv/data',
      storage: { maxBytes: 50 * 1024 ** 3 },
      upstreams: [],
      prefetch: 'off',
      offline: false,
      rights: { maxAgeMs: 86_400_000 },
      fills: {
        finishWithinBytes: 64 * 1024 ** 2,
        finishFromShare: 0.5,
        abandonMs: 10_000,
        nearBytes: 8 * 1024 ** 2,
        maxSideReads: 4,
        maxAttempts: 5,
        earlyRanges: false,
      },
      clients: { maxConnections: 10_000, maxConnectionsPerAddress: 5_000, stallMs: 60_000 },
      drainMs: 300_000,
      log: { level: 'info', access: true },
    })
  })

  test('P-21: docker.io is the default upstream, under all of its names', () => {
    expect(config.upstreams[0]).toEqual({
      name: 'docker.io',
      aliases: ['index.docker.io', 'registry-1.docker.io', 'registry.hub.docker.com'],
      url: 'https://registry-1.docker.io',
      mirrors: [],
      default: true,
      credentials: undefined,
      ca: undefined,
      insecure: false,
      proxy: undefined,
      realmHosts: [],
      redirectHosts: [],
      maxConnections: 64,
      connectTimeoutMs: 5000,
      headersTimeoutMs: 20_000,
      idleTimeoutMs: 30_000,
      tagTtlMs: 300_000,
      maxStaleMs: 604_800_000,
      whenGone: 'deny',
    })
    expect(config.upstreams.map(({ name }) => name)).toEqual([
      'docker.io',
      'ghcr.io',
      'quay.io',
      'registry.k8s.io',
      'gcr.io',
      'public.ecr.aws',
      'mcr.microsoft.com',
      'registry.gitlab.com',
      'lscr.io',
      'nvcr.io',
    ])
  })

  test('the configuration is frozen all the way down', () => {
    expect(
      Object.isFrozen(config) && Object.isFrozen(config.upstreams[0]?.aliases) && Object.isFrozen(config.fills),
    ).toBe(true)
  })
})

describe('layers', () => {
  test('flags win over variables, variables over the file, the file over defaults', () => {
    const { config } = read('{listen: ":1", admin: ":2", drain: 3s, log: {level: warn}}', {
      env: { LAYOVER_LISTEN: ':11', LAYOVER_ADMIN: ':12' },
      flags: { listen: ':21' },
    })
    expect([config.listen.port, config.admin.port, config.drainMs, config.log.level, config.clients.stallMs]).toEqual([
      21,
      12,
      3000,
      'warn',
      60_000,
    ])
  })

  test('every flag reaches its setting', () => {
    const flags = {
      listen: ':1',
      admin: ':2',
      dataDir: 'd',
      maxBytes: '1GiB',
      prefetch: 'all',
      offline: true,
      logLevel: 'debug',
    }
    const { config } = read('', { flags })
    expect(config).toMatchObject({
      listen: { port: 1 },
      admin: { port: 2 },
      dataDir: '/srv/d',
      storage: { maxBytes: 1024 ** 3 },
      prefetch: 'all',
      offline: true,
      log: { level: 'debug' },
    })
  })

  test('layover.yaml of the current directory is read when it is there, LAYOVER_CONFIG before it, --config before both', () => {
    const files = { '/srv/layover.yaml': 'drain: 1s', '/etc/a.yaml': 'drain: 2s', '/etc/b.yaml': 'drain: 3s' }
    const drain = (input: Parameters<typeof readConfig>[0]) =>
      readConfig({ cwd: '/srv', readFile: readFrom(files), ...input }).config.drainMs
    expect(drain({})).toBe(1000)
    expect(drain({ env: { LAYOVER_CONFIG: '/etc/a.yaml' } })).toBe(2000)
    expect(drain({ env: { LAYOVER_CONFIG: '/etc/a.yaml' }, file: '/etc/b.yaml' })).toBe(3000)
  })

  test('a file that was asked for must be there', () => {
    expect(() => readConfig({ file: 'x.yaml', readFile: readFrom({}) })).toThrow(
      'x.yaml: cannot read the configuration: no such file',
    )
    expect(() => readConfig({ env: { LAYOVER_CONFIG: 'y.yaml' }, readFile: readFrom({}) })).toThrow(
      'LAYOVER_CONFIG: y.yaml: cannot read the configuration: no such file',
    )
  })

  test('relative paths start at the file in the file, and at the current directory elsewhere', () => {
    expect(read('dataDir: ./x').config.dataDir).toBe('/etc/layover/x')
    expect(read('', { env: { LAYOVER_DATA_DIR: './x' } }).config.dataDir).toBe('/srv/x')
    expect(read('dataDir: ./y', { flags: { dataDir: './x' } }).config.dataDir).toBe('/srv/x')
    expect(read('').config.dataDir).toBe('/srv/data')
  })

  test('a section with nothing in it leaves the defaults', () => {
    expect(read('storage:\nfills:\nlog:\nupstreams:\n').config.storage.maxBytes).toBe(50 * 1024 ** 3)
  })

  test('sizes and shares can be numbers', () => {
    const { config } = read('{storage: {maxBytes: 1048576}, fills: {finishFrom: 0.25}}')
    expect([config.storage.maxBytes, config.fills.finishFromShare]).toEqual([1_048_576, 0.25])
  })

  test('YAML anchors work, and one that contains itself is refused', () => {
    const yaml = 'upstreams:\n  a.io: &common {tagTtl: 1s}\n  b.io: *common\n'
    expect(upstream(yaml, 'b.io')?.tagTtlMs).toBe(1000)
    expect(problemsOf('upstreams: &u {quay.io: *u}')).toEqual(['layover.yaml:1:25: nested too deeply'])
  })
})

describe('upstreams', () => {
  test('a built-in one is overridden key by key', () => {
    expect(upstream('upstreams: {docker.io: {tagTtl: 1h}}', 'docker.io')).toMatchObject({
      tagTtlMs: 3_600_000,
      url: 'https://registry-1.docker.io',
      default: true,
    })
  })

  test('false removes a built-in one, nothing behind the name adds one with defaults', () => {
    const names = read('upstreams:\n  nvcr.io: false\n  registry.example.com:\n').config.upstreams.map(
      ({ name }) => name,
    )
    expect(names).not.toContain('nvcr.io')
    expect(upstream('upstreams:\n  registry.example.com:\n', 'registry.example.com')?.url).toBe(
      'https://registry.example.com',
    )
  })

  test('another default takes over from the built-in one', () => {
    const { config } = read('upstreams: {quay.io: {default: true}}')
    expect(config.upstreams.filter(each => each.default).map(({ name }) => name)).toEqual(['quay.io'])
    expect(read('upstreams: {docker.io: {default: false}}').config.upstreams.some(each => each.default)).toBe(false)
  })

  test('URLs lose the slash at their end, and keep their path', () => {
    const yaml =
      'upstreams: {quay.io: {url: "https://Proxy.example.com/quay/", mirrors: ["https://m.example.com:443/"]}}'
    expect(upstream(yaml, 'quay.io')).toMatchObject({
      url: 'https://proxy.example.com/quay',
      mirrors: ['https://m.example.com'],
    })
  })

  test('every key of an upstream arrives', () => {
    const yaml = `
upstreams:
  registry.example.com:5000:
    url: http://10.0.0.1:5000
    mirrors: [http://10.0.0.2:5000]
    aliases: [registry.example.com]
    username: ci
    passwordFile: secret
    ca: own.pem
    insecure: true
    proxy: http://u:p@proxy.example.com:3128
    realmHosts: [auth.example.com]
    redirectHosts: [10.0.0.9:9000]
    maxConnections: 7
    timeouts: {connect: 1s, headers: 2s, idle: 3s}
    tagTtl: 0s
    maxStale: 1d
    whenGone: serve
`
    const files = { '/etc/layover/secret': 'hunter2\n', '/etc/layover/own.pem': '-----BEGIN CERTIFICATE-----\n' }
    expect(upstream(yaml, 'registry.example.com:5000', { files })).toEqual({
      name: 'registry.example.com:5000',
      aliases: ['registry.example.com'],
      url: 'http://10.0.0.1:5000',
      mirrors: ['http://10.0.0.2:5000'],
      default: false,
      credentials: { kind: 'passwordFile', username: 'ci', path: '/etc/layover/secret' },
      ca: '-----BEGIN CERTIFICATE-----\n',
      insecure: true,
      proxy: 'http://u:p@proxy.example.com:3128',
      realmHosts: ['auth.example.com'],
      redirectHosts: ['10.0.0.9:9000'],
      maxConnections: 7,
      connectTimeoutMs: 1000,
      headersTimeoutMs: 2000,
      idleTimeoutMs: 3000,
      tagTtlMs: 0,
      maxStaleMs: 86_400_000,
      whenGone: 'serve',
    })
  })
})

describe('credentials', () => {
  test('a password from the file, from a variable, from a docker config.json', () => {
    expect(upstream('upstreams: {quay.io: {username: u, password: p}}', 'quay.io')?.credentials).toEqual({
      kind: 'password',
      username: 'u',
      password: 'p',
    })
    expect(
      upstream('upstreams: {quay.io: {username: u, passwordEnv: QUAY}}', 'quay.io', { env: { QUAY: 'q' } })
        ?.credentials,
    ).toEqual({ kind: 'password', username: 'u', password: 'q' })
    expect(
      upstream('upstreams: {quay.io: {dockerConfig: /d.json}}', 'quay.io', { files: { '/d.json': '{}' } })?.credentials,
    ).toEqual({ kind: 'dockerConfig', path: '/d.json' })
  })

  test('a docker config.json at the top is for every upstream that has nothing of its own', () => {
    const yaml = 'dockerConfig: d.json\nupstreams: {quay.io: {username: u, password: p}}'
    const { config } = read(yaml, { files: { '/etc/layover/d.json': '{"auths":{}}' } })
    const kinds = config.upstreams.map(({ name, credentials }) => [name, credentials?.kind])
    expect(kinds).toContainEqual(['quay.io', 'password'])
    expect(kinds).toContainEqual(['ghcr.io', 'dockerConfig'])
  })

  test('a password variable replaces what the file says about the password', () => {
    const yaml = 'upstreams: {quay.io: {username: u, passwordFile: /missing}}'
    expect(upstream(yaml, 'quay.io', { env: { LAYOVER_UPSTREAMS_QUAY_IO_PASSWORD: 'p' } })?.credentials).toEqual({
      kind: 'password',
      username: 'u',
      password: 'p',
    })
  })
})
