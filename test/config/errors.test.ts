import { describe, expect, test } from 'vitest'
import { problemsOf } from './reading.ts'

describe('problems of values', () => {
  test('names the line, the column, the key, and what was expected', () => {
    const yaml = [
      'listen: :5000',
      '',
      'upstreams:',
      '  docker.io:',
      '    default: true',
      '',
      '  quay.io:',
      '    tagTtl: 5 minutes',
    ].join('\n')
    expect(problemsOf(yaml)).toEqual([
      'layover.yaml:8:13: upstreams.quay.io.tagTtl: expected a duration such as 30s, 5m, 24h or 7d, got "5 minutes"',
    ])
  })

  test('says everything at once, from top to bottom, then variables, then flags', () => {
    const yaml =
      'log: {level: loud}\nlisten: 5000\nstorage: {maxBytes: lots}\nupstreams: {quay.io: {url: http://quay.io, ca: none.pem}}'
    expect(problemsOf(yaml, { env: { LAYOVER_OFFLINE: 'yes' }, flags: { admin: 'here' } })).toEqual([
      'layover.yaml:1:14: log.level: expected one of trace, debug, info, warn, error, silent, got "loud"',
      'layover.yaml:2:9: listen: expected an address such as 127.0.0.1:5000, :5000 or [::1]:5000, got 5000',
      'layover.yaml:3:21: storage.maxBytes: expected a size such as 50GiB, 512MB or 1024 (bytes), got "lots"',
      'layover.yaml:4:28: upstreams.quay.io.url: plain http can be read and changed on the way: use https://, or accept that with insecure: true beside it',
      'layover.yaml:4:48: upstreams.quay.io.ca: cannot read /none.pem: no such file'.replace('/none', 'none'),
      '--admin: expected an address such as 127.0.0.1:5000, :5000 or [::1]:5000, got "here"',
      'LAYOVER_OFFLINE: expected true or false, got "yes"',
    ])
  })

  test.each([
    ['prefetch: some', 'prefetch: expected one of off, config, all, got "some"'],
    ['offline: "true"', 'offline: expected true or false, got "true"'],
    ['storage: {maxBytes: 0}', 'storage.maxBytes: expected at least 1 byte, got 0'],
    ['storage: 50GiB', 'storage: expected a mapping with maxBytes, got "50GiB"'],
    ['drain: 30d', 'drain: expected at most 24d, got "30d"'],
    ['clients: {stall: 0s}', 'clients.stall: expected at least 1s, got "0s"'],
    ['clients: {maxConnections: 1.5}', 'clients.maxConnections: expected a whole number from 1 to 1000000, got 1.5'],
    ['fills: {finishFrom: 150%}', 'fills.finishFrom: expected a share such as 50% or 0.5, got "150%"'],
    ['fills: {finishFrom: true}', 'fills.finishFrom: expected a share such as 50% or 0.5, got true'],
    ['dataDir: [a]', 'dataDir: expected text, got a list'],
    ['upstreams: [a]', 'upstreams: expected a mapping of registries, got a list'],
    [
      'upstreams: {quay.io: true}',
      'upstreams.quay.io: expected a mapping of settings, or false to remove it, got true',
    ],
    [
      'upstreams: {quay.io: {aliases: [Quay]}}',
      'upstreams.quay.io.aliases[0]: expected a registry host as in image names, such as registry.example.com, got "Quay"',
    ],
    [
      'upstreams: {quay.io: {realmHosts: ["https://a"]}}',
      'upstreams.quay.io.realmHosts[0]: expected a host in lower case such as auth.example.com or 10.0.0.5:9000, got "https://a"',
    ],
    [
      'upstreams: {quay.io: {url: "https://quay.io/v2/"}}',
      'upstreams.quay.io.url: leave out /v2 at the end: it is added',
    ],
    ['upstreams: {quay.io: {url: "ftp://quay.io"}}', 'upstreams.quay.io.url: expected a URL that starts with https://'],
    [
      'upstreams: {quay.io: {proxy: nowhere}}',
      'upstreams.quay.io.proxy: expected the URL of an HTTP proxy such as http://proxy.example.com:3128',
    ],
  ])('%s', (yaml, message) => {
    expect(problemsOf(yaml).map(line => line.replace(/^layover\.yaml:1:\d+: /, ''))).toEqual([message])
  })
})

describe('problems of keys', () => {
  test('a misspelt key gets a suggestion, and the position of the key', () => {
    expect(problemsOf('upstreams:\n  quay.io:\n    tagTTL: 5m\nlisen: :1\n')).toEqual([
      'layover.yaml:3:5: upstreams.quay.io.tagTTL: no such setting, did you mean tagTtl?',
      'layover.yaml:4:1: lisen: no such setting, did you mean listen?',
    ])
  })

  test('a key like no other gets the list', () => {
    expect(problemsOf('storage: {banana: 1}')).toEqual([
      'layover.yaml:1:11: storage.banana: no such setting: possible here are maxBytes',
    ])
  })

  test('T-53: __proto__ is a key like any other unknown one', () => {
    expect(problemsOf('__proto__: {listen: ":1"}')).toHaveLength(1)
    expect(problemsOf('upstreams: {__proto__: {url: "https://a.io"}}')).toHaveLength(1)
    expect({}).not.toHaveProperty('url')
  })

  test.each([
    ['https://quay.io', 'expected a host such as quay.io, not a URL: put the URL in url'],
    ['quay.io/org', 'expected a host such as quay.io, without a path'],
    ['Quay.io', 'hosts are written in lower case here: quay.io'],
    [
      'registry',
      'is not a registry host in image names: it needs a dot or a port, such as registry.example.com or registry:5000',
    ],
    ['"a b"', 'expected a host such as quay.io or registry.example.com:5000, got "a b"'],
  ])('%s is no upstream', (name, message) => {
    expect(problemsOf(`upstreams:\n  ${name}: {url: "https://a.io"}`)).toEqual([
      `layover.yaml:2:3: upstreams.${name.replaceAll('"', '')}: ${message}`,
    ])
  })
})

describe('problems of several settings together', () => {
  test('T-21: two defaults', () => {
    expect(problemsOf('upstreams:\n  quay.io: {default: true}\n  ghcr.io: {default: true}')).toEqual([
      expect.stringMatching(
        /^layover\.yaml:\d:\d+: upstreams\.\S+\.default: only one upstream can be the default: \S+ is it already$/,
      ),
    ])
  })

  test('T-21: a host belongs to one upstream', () => {
    expect(
      problemsOf('upstreams:\n  a.io: {aliases: [quay.io]}\n  b.io: {aliases: [x.io]}\n  c.io: {aliases: [x.io]}'),
    ).toEqual([
      'layover.yaml:2:20: upstreams.a.io.aliases[0]: quay.io is already an upstream of its own',
      'layover.yaml:4:20: upstreams.c.io.aliases[0]: x.io is already another name of b.io',
    ])
    expect(problemsOf('upstreams:\n  index.docker.io:\n    tagTtl: 1s')).toEqual([
      'layover.yaml:2:3: upstreams.index.docker.io: is another name of docker.io: write these settings under upstreams.docker.io, or give docker.io other aliases',
    ])
  })

  test('T-38: http needs insecure: true, on loopback too, for mirrors too, and then it is accepted', () => {
    const plain =
      /plain http can be read and changed on the way: use https:\/\/, or accept that with insecure: true beside it$/
    expect(problemsOf('upstreams: {a.io: {url: "http://127.0.0.1:5000"}}')).toEqual([expect.stringMatching(plain)])
    expect(problemsOf('upstreams: {a.io: {mirrors: ["https://b.io", "HTTP://c.io"]}}')).toEqual([
      expect.stringMatching(/mirrors\[1\]: plain http/),
    ])
    expect(problemsOf('upstreams: {a.io: {url: "http://127.0.0.1:5000", insecure: true}}')).toEqual([])
  })

  test.each([
    ['{password: p}', 'password: a password needs a user name: set username beside it'],
    ['{username: u}', 'username: a user name needs one of password, passwordFile or passwordEnv beside it'],
    [
      '{username: u, password: p, dockerConfig: /d.json}',
      'dockerConfig: only one of password, passwordFile, passwordEnv, dockerConfig can be used: here are password and dockerConfig',
    ],
    ['{username: u, passwordFile: /none}', 'passwordFile: cannot read /none: no such file'],
    ['{username: u, passwordFile: /empty}', 'passwordFile: /empty: is empty'],
    ['{username: u, passwordEnv: NOT_SET}', 'passwordEnv: the variable NOT_SET is not set'],
    ['{dockerConfig: /empty}', 'dockerConfig: /empty: is not a JSON object'],
    ['{ca: /d.json}', 'ca: /d.json: holds no PEM certificate (-----BEGIN CERTIFICATE-----)'],
  ])('%s', (yaml, message) => {
    const files = { '/d.json': '{}', '/empty': '\n' }
    expect(
      problemsOf(`upstreams: {quay.io: ${yaml}}`, { files }).map(line =>
        line.replace(/^\S+ upstreams\.quay\.io\./, ''),
      ),
    ).toEqual([message])
  })

  test('registry and admin cannot share an address; an empty list of upstreams is refused', () => {
    expect(problemsOf('{listen: ":5000", admin: ":5000"}')).toEqual([
      'layover.yaml:1:26: admin: takes port 5000, which listen has: give it another one',
    ])
    expect(problemsOf('{listen: "0.0.0.0:5001"}')).toEqual([
      'layover.yaml:1:10: listen: takes port 5001, which admin has: give it another one',
    ])
    expect(problemsOf('{listen: "10.0.0.5:5001", admin: "127.0.0.1:5001"}')).toEqual([])
    const builtin = [
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
    ]
    expect(problemsOf(`upstreams: {${builtin.map(name => `${name}: false`).join(', ')}}`)).toEqual([
      'layover.yaml:1:12: upstreams: no upstream is left: keep at least one',
    ])
  })
})

describe('problems of YAML', () => {
  test.each([
    ['a: 1\n\tb: 2\n', '2:1: tabs cannot indent YAML: use spaces'],
    ['listen: :1\nlisten: :2\n', '2:1: this key stands twice in the same mapping: keep one of them'],
    ['a: 1\n---\nb: 2', '2:1: expected one YAML document: remove the line ---'],
    ['listen: "x\n', '2:1: a quotation mark is not closed'],
    ['- a', '1:1: expected a mapping of settings'],
    ['listen: *nobody', '1:9: an alias (*name) without its anchor (&name)'],
    ['upstreams: {quay.io: {mirrors: [*nobody]}}', '1:33: an alias (*name) without its anchor (&name)'],
    ['? [a]\n: b', '1:3: expected a plain word as key'],
  ])('%j', (yaml, message) => expect(problemsOf(yaml)).toEqual([`layover.yaml:${message}`]))
})

describe('T-10: problems keep secrets', () => {
  const canary = 'hunter2canary'
  test.each([
    [`upstreams: {quay.io: {username: u, password: [${canary}]}}`],
    [`upstreams: {quay.io: {url: "https://u:${canary}@quay.io"}}`],
    [`upstreams: {quay.io: {url: "https://quay.io/?token=${canary}"}}`],
    [`upstreams: {quay.io: {url: "u:${canary}@quay.io"}}`],
    [`upstreams: {quay.io: {mirrors: ["https://u:${canary}@quay.io"]}}`],
    [`upstreams: {quay.io: {proxy: "socks://u:${canary}@proxy"}}`],
    [`upstreams: {quay.io: {realmHosts: ["u:${canary}@auth"]}}`],
    [`upstreams: {quay.io: {username: u, passwordEnv: ${canary}}}`],
    [`upstreams: {"https://u:${canary}@quay.io": {tagTtl: 1s}}`],
    [`upstreams: {quay.io: {pasword: ${canary}}}`],
    [`upstreams: {quay.io: {password: "${canary}\\q"}}`],
    [`password: @${canary}`],
    [`password: "x" ${canary}`],
    [`password: ${canary}: ${canary}`],
    [`password: 'x\n  ${canary}`],
    [`password: [${canary}`],
    [`password: *${canary}`],
    [`%${canary}\n--- x`],
  ])('%s', yaml => {
    const problems = problemsOf(yaml)
    expect(problems.length).toBeGreaterThan(0)
    expect(problems.join('\n')).not.toContain(canary)
  })

  test('values of unknown variables are not shown', () => {
    const problems = problemsOf('', { env: { LAYOVER_UPSTREAMS_QUAY_IO_PASWORD: canary, LAYOVER_X: canary } })
    expect(problems).toHaveLength(2)
    expect(problems.join('\n')).not.toContain(canary)
  })
})
