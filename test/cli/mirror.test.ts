import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { mirror, type MirrorCommandOptions } from '../../src/cli/mirror.ts'
import { clientNames } from '../../src/mirror/client.ts'
import type { Terminal } from '../../src/cli/terminal.ts'

const url = 'http://cache.example.com:5000'
const tls = { url: 'https://cache.example.com', ca: '/etc/ssl/layover.pem' }

type Output = { readonly code: number; readonly out: string; readonly err: string }

function run(client: string, options: Partial<MirrorCommandOptions> = {}, env: Terminal['env'] = {}): Output {
  const said = { out: '', err: '' }
  const terminal: Terminal = {
    env,
    cwd: '/nowhere',
    interactive: false,
    out: text => void (said.out += text),
    err: text => void (said.err += text),
  }
  const code = mirror(client, { url, upstream: [], ...options }, terminal)
  return { code, ...said }
}

/** Path (without what stands behind it) → text of the file. */
function filesOf(client: string, options: Partial<MirrorCommandOptions> = {}): Record<string, string> {
  const { out, err } = run(client, options)
  expect(err).toBe('')
  const [body = ''] = out.split('# Notes\n')
  const sections = body.split(/^# ── /m).slice(1)
  return Object.fromEntries(
    sections.map(section => {
      const end = section.indexOf('\n')
      return [section.slice(0, end).replace(/ \(.*$/, ''), section.slice(end + 1).trimEnd()]
    }),
  )
}

describe('containerd', () => {
  test('one _default for every registry', () => {
    expect(filesOf('containerd', { containerdVersion: '2.2' })).toEqual({
      '/etc/containerd/certs.d/_default/hosts.toml': `[host."http://cache.example.com:5000"]
  capabilities = ["pull", "resolve", "referrers"]
  dial_timeout = "500ms"`,
    })
  })

  test.each([undefined, '1.6', '1.7.24', 'v2.1'])(
    'version %s: no referrers, which would disable the file, and config_path',
    version => {
      const { out } = run('containerd', version === undefined ? {} : { containerdVersion: version })
      expect(out).toContain('capabilities = ["pull", "resolve"]\n')
      expect(out).toContain('  config_path = "/etc/containerd/certs.d"\n')
      expect(out.includes('[plugins."io.containerd.grpc.v1.cri".registry]')).toBe(
        version === undefined || version.startsWith('1'),
      )
      expect(out.includes('[plugins."io.containerd.cri.v1.images".registry]')).toBe(
        version === undefined || version === 'v2.1',
      )
    },
  )

  test('config.toml is there already on most nodes: it says to merge', () => {
    expect(run('containerd', { containerdVersion: '2.1' }).out).toContain(
      '# ── /etc/containerd/config.toml (containerd 2.0 and 2.1: merge into what is there, then restart containerd)\n',
    )
  })

  test('one directory per chosen upstream; an alias names its upstream', () => {
    expect(
      Object.keys(filesOf('containerd', { upstream: ['index.docker.io', 'quay.io'], containerdVersion: '2.3' })),
    ).toEqual(['/etc/containerd/certs.d/docker.io/hosts.toml', '/etc/containerd/certs.d/quay.io/hosts.toml'])
  })

  test('air-gapped: the server is Layover, so there is nothing to fall back to', () => {
    expect(filesOf('containerd', { airGapped: true, containerdVersion: '2.4' })).toEqual({
      '/etc/containerd/certs.d/_default/hosts.toml': `server = "http://cache.example.com:5000"
capabilities = ["pull", "resolve", "referrers"]
# Empty, and needed: without it containerd 1.x refuses this file and pulls from the registry itself.
[host]`,
    })
  })

  test.each([
    ['containerd', '/etc/containerd/certs.d'],
    ['docker', '/etc/docker/certs.d'],
    ['kind', './layover-certs.d'],
  ])(
    'air-gapped %s: the table that containerd 1.x wants comes last, or it would take in what follows',
    (client, directory) => {
      const text = filesOf(client, { ...tls, airGapped: true })[`${directory}/_default/hosts.toml`]
      expect(text).toMatch(/^server = "https:.*\ncapabilities = .*\nca = "\/etc\/ssl\/layover\.pem"\n#.*\n\[host\]$/)
    },
  )

  test('https with an authority of its own', () => {
    expect(
      filesOf('containerd', { ...tls, containerdVersion: '2.2' })['/etc/containerd/certs.d/_default/hosts.toml'],
    ).toBe(
      `[host."https://cache.example.com"]
  capabilities = ["pull", "resolve", "referrers"]
  dial_timeout = "500ms"
  ca = "/etc/ssl/layover.pem"`,
    )
  })
})

describe('docker', () => {
  test('both stores: hosts.toml for every registry, daemon.json for Docker Hub', () => {
    const files = filesOf('docker')
    expect(Object.keys(files)).toEqual(['/etc/docker/certs.d/_default/hosts.toml', '/etc/docker/daemon.json'])
    expect(JSON.parse(files['/etc/docker/daemon.json'] ?? '')).toEqual({
      'registry-mirrors': [url],
      'insecure-registries': ['cache.example.com:5000'],
    })
  })

  test('https is not insecure; without docker.io there is no daemon.json', () => {
    expect(JSON.parse(filesOf('docker', tls)['/etc/docker/daemon.json'] ?? '')).toEqual({
      'registry-mirrors': [tls.url],
    })
    expect(Object.keys(filesOf('docker', { upstream: ['quay.io'] }))).toEqual([
      '/etc/docker/certs.d/quay.io/hosts.toml',
    ])
  })
})

describe.each(['podman', 'crio'])('%s', client => {
  const path = '/etc/containers/registries.conf.d/50-layover.conf'

  test('a path per upstream', () => {
    expect(filesOf(client, { upstream: ['docker.io', 'quay.io'] })[path]).toBe(`[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "cache.example.com:5000/docker.io"
insecure = true

[[registry]]
prefix = "quay.io"
location = "quay.io"
[[registry.mirror]]
location = "cache.example.com:5000/quay.io"
insecure = true`)
  })

  test('air-gapped: Layover is the location itself; https is not insecure', () => {
    expect(filesOf(client, { ...tls, airGapped: true, upstream: ['ghcr.io'] })[path]).toBe(`[[registry]]
prefix = "ghcr.io"
location = "cache.example.com/ghcr.io"`)
  })

  test('an upstream with a port cannot stand in a path: its alias does, or it is left out with a word', () => {
    const env = {
      LAYOVER_UPSTREAMS_A_NAME: 'a.io:5000',
      LAYOVER_UPSTREAMS_B_NAME: 'b.io:5000',
      LAYOVER_UPSTREAMS_B_ALIASES: 'b.io',
    }
    const { out } = run(client, { upstream: ['a.io:5000', 'b.io'] }, env)
    expect(out).toContain('# a.io:5000 is not mirrored')
    expect(out).toContain(
      'prefix = "b.io:5000"\nlocation = "b.io:5000"\n[[registry.mirror]]\nlocation = "cache.example.com:5000/b.io"\n',
    )
  })
})

describe.each([
  ['k3s', '/etc/rancher/k3s'],
  ['rke2', '/etc/rancher/rke2'],
])('%s', (client, directory) => {
  test('a quoted wildcard', () => {
    const text = filesOf(client)[`${directory}/registries.yaml`] ?? ''
    expect(text).toContain('"*":')
    expect(parse(text)).toEqual({ mirrors: { '*': { endpoint: [url] } } })
  })

  test('chosen upstreams, an authority, no fallback', () => {
    const files = filesOf(client, { ...tls, upstream: ['docker.io', 'quay.io'], airGapped: true })
    expect(parse(files[`${directory}/registries.yaml`] ?? '')).toEqual({
      mirrors: { 'docker.io': { endpoint: [tls.url] }, 'quay.io': { endpoint: [tls.url] } },
      configs: { 'cache.example.com': { tls: { ca_file: tls.ca } } },
    })
    expect(parse(files[`${directory}/config.yaml`] ?? '')).toEqual({ 'disable-default-registry-endpoint': true })
  })
})

test('talos: a document per registry, and the older patch', () => {
  const files = filesOf('talos', { upstream: ['docker.io', 'quay.io'], airGapped: true })
  const documents = parseAllDocuments(files['layover-mirror.yaml'] ?? '').map(document => document.toJS() as unknown)
  const document = { apiVersion: 'v1alpha1', kind: 'RegistryMirrorConfig', endpoints: [{ url }], skipFallback: true }
  expect(documents).toEqual([
    { ...document, name: 'docker.io' },
    { ...document, name: 'quay.io' },
  ])
  const mirrorOf = { endpoints: [url], skipFallback: true }
  expect(parse(files['layover-mirror-older.yaml'] ?? '')).toEqual({
    machine: { registries: { mirrors: { 'docker.io': mirrorOf, 'quay.io': mirrorOf } } },
  })
  expect(parse(filesOf('talos')['layover-mirror.yaml'] ?? '')).toMatchObject({ name: '*', skipFallback: false })
})

test('buildkit: mirrors by name, and the mirror itself as an http registry', () => {
  expect(filesOf('buildkit', { upstream: ['docker.io'] })['/etc/buildkit/buildkitd.toml']).toBe(`[registry."docker.io"]
  mirrors = ["cache.example.com:5000"]

[registry."cache.example.com:5000"]
  http = true`)
  expect(filesOf('buildkit', { ...tls, upstream: ['docker.io'] })['/etc/buildkit/buildkitd.toml']).toContain(
    '[registry."cache.example.com"]\n  ca = ["/etc/ssl/layover.pem"]',
  )
})

test('kind: a certs.d that is mounted into the nodes', () => {
  const files = filesOf('kind')
  expect(Object.keys(files)).toEqual(['./layover-certs.d/_default/hosts.toml', 'kind.yaml'])
  expect(parse(files['kind.yaml'] ?? '')).toMatchObject({
    kind: 'Cluster',
    nodes: [{ extraMounts: [{ hostPath: './layover-certs.d', containerPath: '/etc/containerd/certs.d' }] }],
  })
})

describe('every client', () => {
  test.each(clientNames)('%s says what falls back to what, also air-gapped', client => {
    for (const options of [{}, { airGapped: true }, { upstream: ['quay.io'] }, tls]) {
      const { code, out } = run(client, options)
      expect([code, out]).toEqual([0, expect.stringMatching(/^# {2}- Fallback/m)])
      expect(out).not.toContain('0.0.0.0')
      expect(out).not.toContain('undefined')
    }
  })
})

describe('options', () => {
  test('without --url it is made of listen and the name of this machine, never of 0.0.0.0', () => {
    const none = { upstream: [] }
    const said: string[] = []
    const terminal: Terminal = {
      env: {},
      cwd: '/nowhere',
      interactive: false,
      out: text => void said.push(text),
      err: text => void said.push(text),
    }
    expect(mirror('k3s', none, terminal)).toBe(0)
    expect(said.join('')).toMatch(/"http:\/\/[a-z0-9][^"]*:5000"/)
    expect(said.join('')).not.toContain('0.0.0.0')
    expect(said.join('')).toMatch(/^#  - \S+ is the name of this machine: .*--url/m)
    said.length = 0
    mirror('k3s', { ...none, listen: '10.0.0.5:80' }, terminal)
    expect(said.join('')).toContain('"http://10.0.0.5"')
    expect(said.join('')).not.toContain('the name of this machine')
  })

  test.each<[string, Partial<MirrorCommandOptions>, string]>([
    ['contaienrd', {}, `client: expected one of ${clientNames.join(', ')}, did you mean containerd?`],
    ['k3s', { url: 'http://0.0.0.0:5000' }, '--url: nobody can dial 0.0.0.0: write the address that the nodes know'],
    ['k3s', { url: 'http://[::]:5000' }, '--url: nobody can dial [::]: write the address that the nodes know'],
    [
      'k3s',
      { url: 'cache:5000' },
      '--url: http:// or https:// is missing: expected the URL that nodes reach this registry at, such as http://cache.example.com:5000',
    ],
    [
      'k3s',
      { url: '10.0.0.5:5000' },
      '--url: http:// or https:// is missing: expected the URL that nodes reach this registry at, such as http://cache.example.com:5000',
    ],
    [
      'k3s',
      { url: 'ftp://cache' },
      '--url: http:// or https:// is missing: expected the URL that nodes reach this registry at, such as http://cache.example.com:5000',
    ],
    [
      'k3s',
      { url: 'http://cache:port' },
      '--url: host or port is wrong: expected the URL that nodes reach this registry at, such as http://cache.example.com:5000',
    ],
    [
      'k3s',
      { url: 'http://u:secret@cache:5000' },
      '--url: a user name or password cannot be part of it: expected the URL that nodes reach this registry at, such as http://cache.example.com:5000',
    ],
    [
      'k3s',
      { url: 'http://cache:5000/x' },
      '--url: the path /x cannot be part of it: expected the URL that nodes reach this registry at, such as http://cache.example.com:5000',
    ],
    [
      'k3s',
      { url: 'http://cache:5000?x=1' },
      '--url: nothing may follow ? or #: expected the URL that nodes reach this registry at, such as http://cache.example.com:5000',
    ],
    ['skopeo', {}, 'client: skopeo reads the files of podman: layover mirror podman'],
    ['nerdctl', {}, 'client: nerdctl reads the files of containerd: layover mirror containerd'],
    ['k3s', { upstream: ['qay.io'] }, '--upstream: "qay.io" is not configured, did you mean quay.io?'],
    [
      'containerd',
      { containerdVersion: 'two' },
      '--containerd-version: expected a version such as 1.7 or 2.2, got "two"',
    ],
    [
      'containerd',
      { ca: 'a"b' },
      '--ca: expected the absolute path of a PEM file on the node, such as /etc/ssl/layover.pem',
    ],
  ])('%s %j', (client, options, problem) => {
    expect(run(client, options)).toEqual({ code: 1, out: '', err: `${problem}\n` })
  })

  test('a loopback URL is said to be one', () => {
    expect(run('containerd', { url: 'http://127.0.0.1:5000' }).out).toContain('127.0.0.1 means the node itself')
  })
})

test('docs/clients.md shows what the commands print', () => {
  const page = readFileSync(new URL('../../docs/clients.md', import.meta.url), 'utf8')
  const examples = [
    ...page.matchAll(
      /```console\n\$ layover mirror ([a-z0-9]+) --url (\S+)((?: --[a-z-]+(?: [^\s-]\S*)?)*)\n```\n\n```text\n([\s\S]*?)```/g,
    ),
  ]
  expect(new Set(examples.map(([, client]) => client))).toEqual(new Set(clientNames))
  for (const [, client = '', at, flags = '', text] of examples) {
    const version = / --containerd-version (\S+)/.exec(flags)?.[1]
    const upstream = [...flags.matchAll(/ --upstream (\S+)/g)].map(([, name = '']) => name)
    const { out } = run(client, {
      ...(at === undefined ? {} : { url: at }),
      upstream,
      ...(version === undefined ? {} : { containerdVersion: version }),
    })
    expect(out).toBe(text)
  }
})
