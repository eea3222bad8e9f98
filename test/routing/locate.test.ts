import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RegistryError } from '../../src/oci/errors.ts'
import { normaliseHost } from '../../src/routing/host.ts'
import { createLocator } from '../../src/routing/locate.ts'
import { parsePath } from '../../src/routing/path.ts'
import { type Target, targetKey } from '../../src/routing/target.ts'

const hub = { name: 'docker.io', aliases: ['index.docker.io', 'registry-1.docker.io'], default: true }
const quay = { name: 'quay.io', aliases: [], default: false }
const local = { name: 'localhost:5000', aliases: ['registry.internal'], default: false }
const k8s = { name: 'registry.k8s.io', aliases: ['k8s.gcr.io'], default: false }
const configured = [hub, quay, local, k8s]
const locator = createLocator(configured)

function target(url: string, by = locator): Target {
  const route = parsePath(url)
  if (!('name' in route)) throw new Error(`${url} is ${route.kind}`)
  return by.locate(route)
}
/** `<key> <base path> <ns>`, or the word for why there is none. */
function answerTo(url: string): string {
  try {
    const route = parsePath(url)
    if (!('name' in route)) return 'no repository'
    const found = locator.locate(route)
    return `${targetKey(found)} ${found.basePath} ${found.ns ?? ''}`
  } catch (error) {
    if (error instanceof RegistryError) return 'refused'
    throw error
  }
}
const keyOf = (url: string): string => targetKey(target(url))

/** Every way to write a request for a repository of an upstream. */
function addressings({ upstream, repository }: { upstream: typeof hub; repository: string }): string[] {
  const short = upstream === hub ? /^library\/([^/]+)$/.exec(repository)?.[1] : undefined
  const names = [repository, short].filter(name => name !== undefined)
  const spelled = [upstream.name, ...upstream.aliases].flatMap(host => [host, host.toUpperCase()])
  const hosts = [...spelled, ...spelled.filter(host => !host.includes(':')).map(host => `${host}:443`)]
  const scoped = names.flatMap(name =>
    hosts.flatMap(host => [
      `/v2/${host}/${name}/tags/list`,
      `/${host}/v2/${name}/tags/list`,
      `/v2/${name}/tags/list?ns=${host}`,
      `/v2/${host}/${name}/tags/list?ns=${upstream.name}`,
      `http://evil.example/v2/${host.replace(':', '%3A')}/${name}/tags/list`,
    ]),
  )
  // A plain name whose first part looks like a host means that host.
  const plain = upstream.default ? names.filter(name => !/^(?:[^/]*[.:][^/]*|localhost)\//.test(name)) : []
  return [...scoped, ...plain.map(name => `/v2/${name}/tags/list`)]
}

describe('locate', () => {
  it.each([
    ['/v2/alpine/tags/list', 'docker.io/library/alpine'],
    ['/v2/library/alpine/tags/list', 'docker.io/library/alpine'],
    ['/v2/alpine/tags/list?ns=docker.io', 'docker.io/library/alpine'],
    ['/v2/alpine/tags/list?ns=index.docker.io', 'docker.io/library/alpine'],
    ['/v2/alpine/tags/list?ns=registry-1.docker.io', 'docker.io/library/alpine'],
    ['/v2/alpine/tags/list?ns=DOCKER.io%3A443', 'docker.io/library/alpine'],
    ['/v2/docker.io/alpine/tags/list', 'docker.io/library/alpine'],
    ['/v2/index.docker.io/library/alpine/tags/list', 'docker.io/library/alpine'],
    ['/v2/Docker.IO:443/alpine/tags/list', 'docker.io/library/alpine'],
    ['/docker.io/v2/alpine/tags/list', 'docker.io/library/alpine'],
    ['/index.docker.io/v2/library/alpine/tags/list', 'docker.io/library/alpine'],
    ['/v2/docker.io/library/alpine/tags/list?ns=docker.io', 'docker.io/library/alpine'],
    ['/v2/index.docker.io/library/alpine/tags/list?ns=docker.io', 'docker.io/library/alpine'],
    ['/docker.io/v2/docker.io/alpine/tags/list?ns=index.docker.io', 'docker.io/library/alpine'],
    ['/v2/library/library/tags/list', 'docker.io/library/library'],
    ['/v2/library/tags/list', 'docker.io/library/library'],
    ['/v2/a.b/tags/list', 'docker.io/library/a.b'],
    ['/v2/docker.io/tags/list', 'docker.io/library/docker.io'],
    ['/v2/localhost/tags/list', 'docker.io/library/localhost'],
    ['/v2/docker.io/docker.io/tags/list', 'docker.io/library/docker.io'],
    ['/v2/docker.io/quay.io/a/tags/list', 'docker.io/quay.io/a'],
    ['/v2/docker.io/docker.io/a/tags/list?ns=docker.io', 'docker.io/docker.io/a'],
    ['/v2/pause/tags/list?ns=registry.k8s.io', 'registry.k8s.io/pause'],
    ['/v2/registry.k8s.io/pause/tags/list', 'registry.k8s.io/pause'],
    ['/v2/k8s.gcr.io/pause/tags/list', 'registry.k8s.io/pause'],
    ['/v2/quay.io/a/b/c/tags/list', 'quay.io/a/b/c'],
    ['/v2/docker.io/library/alpine/tags/list?ns=quay.io', 'quay.io/docker.io/library/alpine'],
    ['/v2/x.y/a/tags/list?ns=quay.io', 'quay.io/x.y/a'],
    ['/v2/localhost:5000/a/tags/list', 'localhost:5000/a'],
    ['/v2/localhost%3A5000/a/tags/list', 'localhost:5000/a'],
    ['/v2/registry.internal/a/tags/list', 'localhost:5000/a'],
    ['/v2/a/tags/list?ns=localhost:5000', 'localhost:5000/a'],
  ])('P-21 to P-28: %s means %s', (url, key) => {
    expect(keyOf(url)).toBe(key)
  })

  it.each([
    ['P-26', '/v2/a/tags/list?ns=ghcr.io', 404, 'NAME_UNKNOWN'],
    ['P-26', '/v2/ghcr.io/a/tags/list', 404, 'NAME_UNKNOWN'],
    ['P-26', '/ghcr.io/v2/a/tags/list', 404, 'NAME_UNKNOWN'],
    ['P-26', '/v2/localhost/a/tags/list', 404, 'NAME_UNKNOWN'],
    ['P-26', '/v2/quay.io:444/a/tags/list', 404, 'NAME_UNKNOWN'],
    ['T-4', '/v2/a/tags/list?ns=169.254.169.254', 404, 'NAME_UNKNOWN'],
    ['T-4', '/v2/a/tags/list?ns=localhost:6379', 404, 'NAME_UNKNOWN'],
    ['T-4', '/v2/a/tags/list?ns=__proto__', 400, 'NAME_INVALID'],
    ['T-4', '/v2/a/tags/list?ns=constructor', 404, 'NAME_UNKNOWN'],
    ['T-4', '/v2/a/tags/list?ns=a@quay.io', 400, 'NAME_INVALID'],
    ['T-4', '/v2/a/tags/list?ns=quay.io%00', 400, 'NAME_INVALID'],
    ['T-4', '/v2/a/tags/list?ns=quay.io%0d%0a', 400, 'NAME_INVALID'],
    ['T-4', '/v2/a/tags/list?ns=quay.io%2Fx', 400, 'NAME_INVALID'],
    ['T-4', '/v2/a/tags/list?ns=https://quay.io', 400, 'NAME_INVALID'],
    ['T-4', '/v2/a/tags/list?ns=quay.io%23', 400, 'NAME_INVALID'],
    ['T-4', '/v2/a/tags/list?ns=%20quay.io', 400, 'NAME_INVALID'],
    ['P-24', '/v2/a/tags/list?ns=', 400, 'NAME_INVALID'],
    ['P-24', '/v2/a/tags/list?ns', 400, 'NAME_INVALID'],
    ['P-24', '/v2/a/tags/list?ns=quay.io.', 400, 'NAME_INVALID'],
    ['P-24', '/v2/a/tags/list?ns=quay.io&ns=quay.io', 400, 'NAME_INVALID'],
    ['P-24', '/v2/a/tags/list?ns=quay.io:', 400, 'NAME_INVALID'],
    ['P-24', '/v2/a/tags/list?ns=quay.io:0443', 400, 'NAME_INVALID'],
    ['P-24', '/v2/a/tags/list?ns=quay.io:99999', 400, 'NAME_INVALID'],
    ['P-24', '/v2/a/tags/list?ns=quay.io:443:443', 400, 'NAME_INVALID'],
    ['P-24', '/v2/a/tags/list?ns=%E2%84%AAuay.io', 400, 'NAME_INVALID'],
    ['P-24', '/docker.io/v2/a/tags/list?ns=quay.io', 400, 'NAME_INVALID'],
    ['P-6', '/v2/A/b/tags/list', 400, 'NAME_INVALID'],
    ['P-6', '/v2/a..b/c/tags/list', 400, 'NAME_INVALID'],
    ['P-6', '/v2/quay.io/a..b/tags/list', 400, 'NAME_INVALID'],
    ['P-6', '/v2/quay.io/A/tags/list', 400, 'NAME_INVALID'],
    ['P-6', '/v2/a:5000/tags/list', 400, 'NAME_INVALID'],
    ['P-6', '/v2/a.b:5000/c/tags/list?ns=quay.io', 400, 'NAME_INVALID'],
    ['P-6', '/v2/-a/tags/list', 400, 'NAME_INVALID'],
    ['P-6', '/v2/a___b/tags/list', 400, 'NAME_INVALID'],
    ['P-6', '/v2/%C3%A9/tags/list', 400, 'NAME_INVALID'],
    ['P-8', `/v2/quay.io/${'a'.repeat(248)}/tags/list`, 400, 'NAME_INVALID'],
    ['P-8', `/v2/${'a'.repeat(256)}/tags/list`, 400, 'NAME_INVALID'],
  ])('%s: %s is refused with %i %s', (_, url, status, code) => {
    expect(() => target(url)).toThrow(expect.objectContaining({ status, code }))
  })

  it('P-8: the host, a slash and the name are 255 characters at most, with library/ too', () => {
    expect(keyOf(`/v2/quay.io/${'a'.repeat(247)}/tags/list`)).toHaveLength(255)
    expect(keyOf(`/v2/${'a'.repeat(237)}/tags/list`)).toHaveLength(255)
    expect(() => target(`/v2/${'a'.repeat(238)}/tags/list`)).toThrow(/longer than 255/)
  })

  it('P-25, P-74, P-76: keeps how the client spelled it', () => {
    expect(target('/v2/docker.io/alpine/tags/list?ns=Index.Docker.io')).toEqual({
      upstream: 'docker.io',
      repository: 'library/alpine',
      requestedRepository: 'alpine',
      basePath: '/v2/docker.io/alpine',
      ns: 'Index.Docker.io',
    })
    expect(target('/quay.io/v2/a/b/tags/list')).toEqual({
      upstream: 'quay.io',
      repository: 'a/b',
      requestedRepository: 'a/b',
      basePath: '/quay.io/v2/a/b',
      ns: undefined,
    })
  })

  it('P-26: without a default upstream a plain name is NAME_UNKNOWN and the message says the way out', () => {
    const other = createLocator([{ ...hub, default: false }, quay])
    expect(() => target('/v2/alpine/tags/list', other)).toThrow(
      expect.objectContaining({ code: 'NAME_UNKNOWN', message: expect.stringContaining('?ns=') }),
    )
    expect(targetKey(target('/v2/alpine/tags/list?ns=docker.io', other))).toBe('docker.io/library/alpine')
  })

  it('P-26: an unknown upstream is named in the message, the configured ones are not', () => {
    expect(() => target('/v2/ghcr.io/a/tags/list')).toThrow(/"ghcr\.io": no upstream of this name is configured here/)
    expect(() => target('/v2/ghcr.io/a/tags/list')).not.toThrow(/quay/)
  })

  it('P-22: library/ is added for a default upstream only when it is Docker Hub', () => {
    const other = createLocator([
      { ...quay, default: true },
      { ...hub, default: false },
    ])
    expect(targetKey(target('/v2/alpine/tags/list', other))).toBe('quay.io/alpine')
  })

  it('P-21: Docker Hub is known by its three names without aliases, and under any configured one', () => {
    const other = createLocator([{ name: 'registry-1.docker.io', aliases: [], default: false }])
    const keys = ['docker.io', 'index.docker.io', 'registry-1.docker.io'].map(ns =>
      targetKey(target(`/v2/alpine/tags/list?ns=${ns}`, other)),
    )
    expect(new Set(keys)).toEqual(new Set(['registry-1.docker.io/library/alpine']))
  })

  it('refuses two upstreams of one name', () => {
    expect(() => createLocator([hub, { ...quay, aliases: ['INDEX.docker.io'] }])).toThrow(/index\.docker\.io/)
  })

  const component = fc.stringMatching(/^[a-z0-9]{1,3}(?:(?:\.|_|__|-)[a-z0-9]{1,3})?$/)
  const path = fc.array(fc.oneof(component, fc.constantFrom('library', 'manifests', 'tags')), {
    minLength: 1,
    maxLength: 4,
  })
  const meaning = fc.record({ upstream: fc.constantFrom(...configured), path }).map(({ upstream, path: parts }) => ({
    upstream,
    repository: (upstream === hub && parts.length === 1 ? ['library', ...parts] : parts).join('/'),
  }))

  it('T-24: two requests have the same key exactly when they mean the same repository of the same upstream', () => {
    fc.assert(
      fc.property(meaning, meaning, (one, two) => {
        const keys = new Set(addressings(one).map(keyOf))
        expect([...keys]).toEqual([`${one.upstream.name}/${one.repository}`])
        const same = one.upstream === two.upstream && one.repository === two.repository
        expect(addressings(two).every(url => keys.has(keyOf(url)) === same)).toBe(true)
      }),
      { numRuns: 200 },
    )
  })

  it('T-25: whatever is sent, a key is safe or the error is a RegistryError', () => {
    const piece = fc.constantFrom(
      '/',
      'a',
      'B',
      '.',
      '..',
      ':',
      '%2e',
      '%2F',
      '%00',
      '%3A',
      '-',
      '_',
      'docker.io',
      'quay.io',
      'localhost',
      'localhost:5000',
      'é',
      '@',
    )
    const name = fc.array(piece, { maxLength: 8 }).map(pieces => pieces.join(''))
    const key = /(?=.{1,255} )[a-z0-9][a-z0-9.-]*(?::[0-9]+)?(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)+/.source
    const safe = new RegExp(`^(?:${key} [A-Za-z0-9./:_-]+ [A-Za-z0-9.:-]*|refused|no repository)$`)
    fc.assert(
      fc.property(name, fc.option(name), fc.option(name), (repository, ns, host) => {
        const url = `${host === null ? '' : `/${host}`}/v2/${repository}/tags/list${ns === null ? '' : `?ns=${ns}`}`
        expect(answerTo(url)).toMatch(safe)
      }),
      { numRuns: 2000 },
    )
  })
})

describe('normaliseHost', () => {
  it.each([
    ['docker.io', 'docker.io'],
    ['DOCKER.IO', 'docker.io'],
    ['docker.io:443', 'docker.io'],
    ['docker.io:80', 'docker.io:80'],
    ['a', 'a'],
    ['10.0.0.1:5000', '10.0.0.1:5000'],
    ['xn--bcher-kva.example', 'xn--bcher-kva.example'],
    ['docker.io.', undefined],
    ['.docker.io', undefined],
    ['docker..io', undefined],
    ['-a.io', undefined],
    ['a-.io', undefined],
    ['a_b.io', undefined],
    ['[::1]:5000', undefined],
    ['a:b', undefined],
    ['a:0', undefined],
    [':443', undefined],
    ['', undefined],
    ['\u212A8s.io', undefined],
    ['a'.repeat(64), undefined],
    [`${'a.'.repeat(130)}io`, undefined],
  ])('T-24: %s is %s', (text, expected) => {
    expect(normaliseHost(text)).toBe(expected)
  })

  it('T-24: is the same when applied twice', () => {
    fc.assert(
      fc.property(fc.oneof(fc.domain(), fc.string()), text => {
        const once = normaliseHost(text)
        expect(once === undefined ? undefined : normaliseHost(once)).toBe(once)
      }),
    )
  })
})
