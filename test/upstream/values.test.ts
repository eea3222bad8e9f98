import { describe, expect, test } from 'vitest'
import { matchingRange, parseContentRange } from '../../src/upstream/content-range.ts'
import { registrableDomain } from '../../src/upstream/domain.ts'
import { parseRateLimit } from '../../src/upstream/rate-limit.ts'
import { parseRetryAfter } from '../../src/upstream/retry-after.ts'
import { grantedScopes } from '../../src/upstream/scope.ts'
import { parseToken } from '../../src/upstream/token-response.ts'

describe('P-102: Retry-After', () => {
  const now = Date.parse('2026-11-23T12:00:00Z')
  test.each([
    ['30', 30_000],
    ['0', 0],
    ['86400', 300_000],
    ['Mon, 23 Nov 2026 12:01:00 GMT', 60_000],
    ['Monday, 23-Nov-26 12:01:00 GMT', 60_000],
    ['Mon Nov 23 12:01:00 2026 GMT', 60_000],
    ['Mon, 23 Nov 2026 11:00:00 GMT', 0],
    ['Fri, 01 Jan 2100 00:00:00 GMT', 300_000],
    ['-5', undefined],
    ['1.5', undefined],
    ['soon', undefined],
    ['', undefined],
    [undefined, undefined],
  ])('%s is %s', (value, expected) => {
    expect(parseRetryAfter(value, now)).toBe(expected)
  })
})

describe('P-101: rate limits', () => {
  test.each([
    ['100;w=21600', '76;w=21600', { limit: 100, remaining: 76 }],
    ['100', undefined, { limit: 100 }],
    [undefined, '0', { remaining: 0 }],
    ['100, 100;w=60', '5', { limit: 100, remaining: 5 }],
    ['many', undefined, undefined],
    [undefined, undefined, undefined],
  ])('%s and %s', (limit, remaining, expected) => {
    expect(parseRateLimit(limit, remaining)).toEqual(expected)
  })
})

describe('P-114: Content-Range', () => {
  test.each([
    'bytes 0-9',
    'bytes 5-4/10',
    'bytes 0-10/10',
    'items 0-1/2',
    'bytes */10',
    'bytes 0-1/2, 3-4/5',
    'bytes -1-1/2',
    '',
  ])('is not valid: %s', text => expect(parseContentRange(text)).toBeUndefined())

  test.each([
    ['bytes 5-9/10', 5, undefined, 5, true],
    ['bytes 5-9/*', 5, undefined, 5, true],
    ['bytes 5-8/10', 5, undefined, 4, false],
    ['bytes 4-9/10', 5, undefined, 6, false],
    ['bytes 5-9/10', 5, undefined, 4, false],
    ['bytes 5-7/10', 5, 7, 3, true],
    ['bytes 5-9/10', 5, 99, 5, true],
    ['bytes 5-8/10', 5, 7, 4, false],
    ['bytes 5-6/*', 5, 7, 2, false],
  ])('%s for %i-%s of %i bytes matches: %s', (text, offset, end, contentLength, expected) => {
    expect(matchingRange(text, { offset, end, contentLength }) !== undefined).toBe(expected)
  })
})

describe('T-15: the scope that is asked for', () => {
  test.each([
    ['its own', 'repository:a/b:pull', ['repository:a/b:pull']],
    ['more actions', 'repository:a/b:pull,push,delete', ['repository:a/b:pull']],
    ['another repository and the catalog', 'repository:other:pull,push registry:catalog:*', ['repository:a/b:pull']],
    ['only pushing', 'repository:a/b:push', ['repository:a/b:pull']],
    ['everything', 'repository:*:*', ['repository:a/b:pull']],
    ['ECR Public', 'aws', ['aws']],
    ['none', undefined, ['repository:a/b:pull']],
    ['two words for one', 'repository:a/b:pull repository:a/b:pull', ['repository:a/b:pull']],
  ])('challenged with %s', (_, challenged, expected) => {
    expect(grantedScopes('a/b', challenged)).toEqual(expected)
  })

  test('a name with a port in front keeps its colon', () => {
    expect(grantedScopes('localhost:5000/a', 'repository:localhost:5000/a:pull,push')).toEqual([
      'repository:localhost:5000/a:pull',
    ])
  })
})

describe('P-89, F-74: token answers', () => {
  test.each([
    [300, 300],
    ['300', 300],
    [0, 60],
    [1, 60],
    [-1, 60],
    [undefined, 60],
    [null, 60],
    ['soon', 60],
    [1e12, 86_400],
    [43_200, 43_200],
  ])('expires_in %s lasts %i s', (expiresIn, seconds) => {
    expect(parseToken(JSON.stringify({ token: 'abc', expires_in: expiresIn }))).toEqual({
      value: 'abc',
      lifetimeMs: seconds * 1000,
    })
  })

  test.each([
    ['token', '{"token":"a"}', 'a'],
    ['access_token', '{"access_token":"b"}', 'b'],
    ['both', '{"token":"a","access_token":"b"}', 'a'],
    ['an empty token beside a good one', '{"token":"","access_token":"b"}', 'b'],
    ['an empty token', '{"token":""}', undefined],
    ['no token', '{}', undefined],
    ['a token that splits headers', '{"token":"a\\r\\nx: y"}', undefined],
    ['a number', '{"token":5}', undefined],
    ['HTML', '<html>', undefined],
    ['null', 'null', undefined],
  ])('reads %s', (_, text, expected) => {
    expect(parseToken(text)?.value).toBe(expected)
  })
})

describe('T-1: the registrable domain', () => {
  test.each([
    ['auth.docker.io', 'docker.io'],
    ['docker.io', 'docker.io'],
    ['a.b.example.co.uk', 'example.co.uk'],
    ['co.uk', undefined],
    ['mine.azurecr.io', 'mine.azurecr.io'],
    ['azurecr.io', undefined],
    ['123.dkr.ecr.eu-west-1.amazonaws.com', '123.dkr.ecr.eu-west-1.amazonaws.com'],
    ['localhost', undefined],
    ['127.0.0.1', undefined],
    ['[::1]', undefined],
    ['REGISTRY.Example.COM.', 'example.com'],
  ])('of %s is %s', (name, expected) => {
    expect(registrableDomain(name)).toBe(expected)
  })
})
