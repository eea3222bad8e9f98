import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { referenceText } from '../../src/oci/reference.ts'
import { parsePath, type Route } from '../../src/routing/path.ts'

const digest = digestOf(Buffer.from('x'))
const encoded = digest.replace(':', '%3A')

/** One line for a route: what it is, of which name, and what it names. */
function summary(route: Route): string {
  const host = route.host === undefined ? '' : `${route.host}|`
  switch (route.kind) {
    case 'manifest':
      return `manifest ${host}${route.name} ${referenceText(route.reference)}`
    case 'blob':
    case 'referrers':
      return `${route.kind} ${host}${route.name} ${route.digest}`
    case 'tags':
      return `tags ${host}${route.name}`
    default:
      return `${route.kind}${host && ` ${host}`}`
  }
}

function nameIn(url: string): string {
  try {
    const route = parsePath(url)
    return 'name' in route ? route.name : 'no name'
  } catch (error) {
    if (error instanceof RegistryError) return 'refused'
    throw error
  }
}

describe('parsePath', () => {
  it.each([
    ['/v2/', 'base'],
    ['/v2', 'base'],
    ['/v2?ns=docker.io', 'base'],
    ['/v2/?x=/v2/a/tags/list', 'base'],
    ['/v2/alpine/manifests/latest', 'manifest alpine latest'],
    ['/v2/library/alpine/manifests/latest', 'manifest library/alpine latest'],
    ['/v2/foo/manifests/manifests/latest', 'manifest foo/manifests latest'],
    ['/v2/foo/manifests/manifests', 'manifest foo manifests'],
    ['/v2/foo/manifests/_catalog', 'manifest foo _catalog'],
    ['/v2/foo/manifests/tags/list', 'tags foo/manifests'],
    ['/v2/manifests/manifests/manifests', 'manifest manifests manifests'],
    ['/v2/v2/manifests/v2', 'manifest v2 v2'],
    ['/v2/foo/blobs/bar/manifests/1', 'manifest foo/blobs/bar 1'],
    ['/v2/foo/blobs/uploads/manifests/1', 'manifest foo/blobs/uploads 1'],
    ['/v2/foo/blobs/uploads/tags/list', 'tags foo/blobs/uploads'],
    ['/v2/tags/list/tags/list', 'tags tags/list'],
    ['/v2/tags/list/manifests/list', 'manifest tags/list list'],
    ['/v2/a/b/c/d/e/tags/list', 'tags a/b/c/d/e'],
    [`/v2/a/manifests/${digest}`, `manifest a ${digest}`],
    [`/v2/a/manifests/${encoded}`, `manifest a ${digest}`],
    [`/v2/a/manifests/${encoded.toLowerCase()}`, `manifest a ${digest}`],
    [`/v2/a/manifests/${digest.replace(':', '-')}.sig`, `manifest a ${digest.replace(':', '-')}.sig`],
    [`/v2/a/blobs/${digest}`, `blob a ${digest}`],
    [`/v2/a/blobs/${encoded}`, `blob a ${digest}`],
    [`/v2/a/referrers/${digest}?artifactType=x`, `referrers a ${digest}`],
    ['/v2/a/manifests/%6catest', 'manifest a latest'],
    ['/v2/%61/manifests/latest', 'manifest a latest'],
    ['/v2/docker.io/library/alpine/tags/list', 'tags docker.io/library/alpine'],
    ['/v2/localhost%3A5000/a/tags/list', 'tags localhost:5000/a'],
    ['/docker.io/v2/library/alpine/tags/list', 'tags docker.io|library/alpine'],
    ['/localhost:5000/v2/a/tags/list', 'tags localhost:5000|a'],
    ['/localhost%3a5000/v2/a/tags/list', 'tags localhost:5000|a'],
    ['/docker.io/v2/', 'base docker.io|'],
    ['/v2/_catalog', 'catalog'],
    ['/v2/_catalog?n=100', 'catalog'],
    ['/v2/docker.io/_catalog', 'catalog'],
    ['/docker.io/v2/_catalog', 'catalog docker.io|'],
    ['/v2/a/blobs/uploads', 'upload'],
    ['/v2/a/blobs/uploads/', 'upload'],
    ['/v2/a/b/blobs/uploads/0b1c-2d', 'upload'],
    ['/v2/a/blobs/uploads/?mount=x&from=y', 'upload'],
    ['http://evil.example/v2/a/manifests/1', 'manifest a 1'],
    ['HTTPS://user:x@evil.example:1/v2/a/tags/list?ns=x', 'tags a'],
    ['http://evil.example', 'none'],
    ['http://evil.example?/v2/', 'none'],
    ['', 'none'],
    ['/', 'none'],
    ['*', 'none'],
    ['v2/', 'none'],
    ['/v1/_ping', 'none'],
    ['/V2/', 'none'],
    ['/v2x/', 'none'],
    ['/v20/a/tags/list', 'none'],
    ['/%76%32/', 'none'],
    ['/metrics', 'none'],
    ['//v2/', 'none'],
    ['//v2/a/manifests/1', 'none'],
    ['///v2/a/manifests/1', 'none'],
    ['/admin/v2/a/manifests/1', 'none'],
    ['/a/docker.io/v2/b/manifests/1', 'none'],
    ['/v2//', 'none'],
    ['/v2/a', 'none'],
    ['/v2/a/', 'none'],
    ['/v2/a/tags', 'none'],
    ['/v2/a/tags/', 'none'],
    ['/v2/a/tags/list/', 'none'],
    ['/v2/a/tags/lists', 'none'],
    ['/v2/a/manifests', 'none'],
    ['/v2/a/manifests/', 'none'],
    ['/v2/a/manifests/x/', 'none'],
    ['/v2/a/manifests//', 'none'],
    ['/v2/a/blobs/', 'none'],
    ['/v2/manifests/latest', 'none'],
    ['/v2/tags/list', 'none'],
    ['/v2/blobs/uploads/', 'none'],
    ['/v2/a/Manifests/x', 'none'],
  ])('P-1 to P-18: %s is %s', (url, expected) => {
    expect(summary(parsePath(url))).toBe(expected)
  })

  it.each([
    ['P-13', '/v2/a%2Fb/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/a/..%2fb/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/a%5Cb/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/a%00/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/a%0d%0ab/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/%2e%2e/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/%2e/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/a%252fb/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/a%ff/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/a%/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/a%zz/manifests/1', 'NAME_INVALID'],
    ['P-13', '/v2/a/manifests/..', 'NAME_INVALID'],
    ['P-13', '/v2/a/manifests/%2e%2e', 'NAME_INVALID'],
    ['P-13', '/v2/a/manifests/a%2Fb', 'NAME_INVALID'],
    ['P-13', `/v2/a/blobs/${digest}%00`, 'NAME_INVALID'],
    ['P-14', '/v2//a/manifests/1', 'NAME_INVALID'],
    ['P-14', '/v2/a//b/manifests/1', 'NAME_INVALID'],
    ['P-14', '/v2/a//manifests/1', 'NAME_INVALID'],
    ['P-14', '/v2//manifests/1', 'NAME_INVALID'],
    ['P-6', '/v2/a/../b/manifests/1', 'NAME_INVALID'],
    ['P-9', '/v2/a/manifests/-x', 'MANIFEST_UNKNOWN'],
    ['P-9', '/v2/a/manifests/.x', 'MANIFEST_UNKNOWN'],
    ['P-9', `/v2/a/manifests/${'x'.repeat(129)}`, 'MANIFEST_UNKNOWN'],
    ['P-10', '/v2/a/manifests/sha256:totallywrong', 'DIGEST_INVALID'],
    ['P-10', '/v2/a/blobs/sha256:baddigeststring', 'DIGEST_INVALID'],
    ['P-10', '/v2/a/blobs/latest', 'DIGEST_INVALID'],
    ['P-80', '/v2/a/referrers/latest', 'DIGEST_INVALID'],
  ])('%s: %s is %s', (_, url, code) => {
    expect(() => parsePath(url)).toThrow(expect.objectContaining({ code }))
  })

  it('P-24: hands on the query, with every ns that was sent', () => {
    const route = parsePath('/v2/a/tags/list?ns=Docker.IO&n=1&ns=b')
    expect(route.ns).toBe('Docker.IO')
    expect(route.query.getAll('ns')).toEqual(['Docker.IO', 'b'])
    expect(route.query.get('n')).toBe('1')
    expect(parsePath('/v2/a/tags/list').ns).toBeUndefined()
  })

  it.each([
    ['/v2/docker.io/library/alpine/tags/list?n=1', '/v2/docker.io/library/alpine'],
    ['/docker.io/v2/alpine/tags/list', '/docker.io/v2/alpine'],
    ['http://evil/v2/a/tags/list', '/v2/a'],
    ['/v2/', '/v2'],
  ])('P-76, P-110: the base path of %s is %s', (url, basePath) => {
    expect(parsePath(url).basePath).toBe(basePath)
  })

  it('P-7: what is put together from a name and a reference is taken apart the same', () => {
    const word = fc.constantFrom('a', 'b0', 'manifests', 'blobs', 'uploads', 'tags', 'list', 'referrers', 'v2')
    const name = fc.array(word, { minLength: 1, maxLength: 6 }).map(words => words.join('/'))
    const tag = fc.constantFrom('latest', 'list', 'manifests', 'uploads', '_catalog', digest)
    fc.assert(
      fc.property(name, tag, (repository, reference) => {
        expect(summary(parsePath(`/v2/${repository}/manifests/${reference}`))).toBe(
          `manifest ${repository} ${reference}`,
        )
        expect(summary(parsePath(`/v2/${repository}/blobs/${digest}`))).toBe(`blob ${repository} ${digest}`)
        expect(summary(parsePath(`/v2/${repository}/tags/list`))).toBe(`tags ${repository}`)
        expect(summary(parsePath(`/v2/${repository}/referrers/${digest}`))).toBe(`referrers ${repository} ${digest}`)
      }),
    )
  })

  it('T-25: throws nothing but RegistryError, whatever is sent', () => {
    const piece = fc.constantFrom(
      '/',
      '/v2/',
      'a',
      '..',
      '%2e',
      '%2F',
      '%00',
      '%',
      'manifests',
      'blobs',
      'uploads',
      'tags/list',
      '?ns=',
      'http://',
      ':',
      'docker.io',
      digest,
      'é',
      '\0',
    )
    const url = fc.oneof(
      fc.string(),
      fc.webUrl(),
      fc.array(piece).map(pieces => `/v2/${pieces.join('')}`),
      fc.array(piece).map(pieces => pieces.join('')),
    )
    fc.assert(
      fc.property(url, text => {
        expect(nameIn(text)).not.toMatch(/^$|^\/|\/$|\/\/|(?:^|\/)\.\.?(?:\/|$)|[\\%\0-\x1f]/)
      }),
      { numRuns: 1000 },
    )
  })
})
