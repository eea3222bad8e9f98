import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseChallenges } from '../../src/upstream/challenge.ts'

const plain = (header: string | readonly string[] | undefined): unknown =>
  parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)])

describe('P-86: the challenge scanner', () => {
  test.each<[string, string | string[] | undefined, unknown]>([
    ['nothing', undefined, []],
    ['an empty line', '', []],
    [
      'Docker Hub',
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"',
      [
        [
          'bearer',
          {
            realm: 'https://auth.docker.io/token',
            service: 'registry.docker.io',
            scope: 'repository:library/alpine:pull',
          },
        ],
      ],
    ],
    [
      'commas in quotes',
      'Bearer scope="repository:a:pull,push",realm="x"',
      [['bearer', { scope: 'repository:a:pull,push', realm: 'x' }]],
    ],
    [
      'escaped quotes',
      String.raw`Basic realm="say \"hi\" \\ there"`,
      [['basic', { realm: String.raw`say "hi" \ there` }]],
    ],
    ['any case', 'BEARER Realm="x", SERVICE=y', [['bearer', { realm: 'x', service: 'y' }]]],
    ['blanks around =', 'Bearer realm = "x" , service = y', [['bearer', { realm: 'x', service: 'y' }]]],
    [
      'no quotes',
      'Bearer realm=https://a.example/token?x=1,service=s',
      [['bearer', { realm: 'https://a.example/token?x=1', service: 's' }]],
    ],
    [
      'two in one line',
      'Basic realm="a", Bearer realm="b",service="c"',
      [
        ['basic', { realm: 'a' }],
        ['bearer', { realm: 'b', service: 'c' }],
      ],
    ],
    [
      'two lines',
      ['Basic realm="a"', 'Bearer realm="b"'],
      [
        ['basic', { realm: 'a' }],
        ['bearer', { realm: 'b' }],
      ],
    ],
    [
      'token68',
      'Negotiate dG9rZW4=, Basic realm="a"',
      [
        ['negotiate', {}],
        ['basic', { realm: 'a' }],
      ],
    ],
    [
      'a scheme alone',
      'Negotiate, Basic realm="a"',
      [
        ['negotiate', {}],
        ['basic', { realm: 'a' }],
      ],
    ],
    ['a bare scheme', 'Basic', [['basic', {}]]],
    ['an open quote', 'Bearer realm="https://x', [['bearer', { realm: 'https://x' }]]],
    ['a name twice: the first counts', 'Bearer realm="a",realm="b"', [['bearer', { realm: 'a' }]]],
    ['empty elements', ',, Bearer realm="a",,service="b",', [['bearer', { realm: 'a', service: 'b' }]]],
  ])('reads %s', (_, header, expected) => {
    expect(plain(header)).toEqual(expected)
  })

  test('takes a parameter without a scheme for no challenge that it knows', () => {
    expect(parseChallenges('realm="a"').map(({ scheme }) => scheme)).not.toContain('bearer')
  })

  test('ignores more than 8 KiB, over all lines together', () => {
    expect(parseChallenges(`Bearer realm="${'x'.repeat(8192)}"`)).toEqual([])
    expect(parseChallenges([`Bearer realm="${'x'.repeat(5000)}"`, `Basic realm="${'x'.repeat(5000)}"`])).toEqual([])
  })

  test('never throws, and reads back every quoted value', () => {
    fc.assert(fc.property(fc.string(), text => Array.isArray(parseChallenges(text))))
    fc.assert(
      fc.property(fc.string({ maxLength: 100 }), value => {
        const quoted = value.replaceAll(/["\\]/g, String.raw`\$&`)
        expect(plain(`Bearer realm="${quoted}",service=s`)).toEqual([['bearer', { realm: value, service: 's' }]])
      }),
    )
  })
})
