import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RegistryError } from '../../src/oci/errors.ts'
import { isRepository, parseRepository } from '../../src/oci/name.ts'

const accepted = [
  'a',
  'alpine',
  'library/alpine',
  'a.b',
  'a_b',
  'a__b',
  'a-b',
  'a---b',
  'a/b/c/d/e',
  '1/2',
  '0',
  'foo/manifests',
  'foo/blobs/bar',
  'tags/list',
  'a.b_c__d-e/f',
  'a'.repeat(255),
]
const refused = [
  '',
  'A',
  'A/b',
  'a/B',
  'a..b',
  'a.-b',
  'a-.b',
  'a___b',
  'a_.b',
  '-a',
  'a-',
  '.a',
  'a.',
  '_a',
  'a_',
  'a/',
  '/a',
  'a//b',
  'a/../b',
  '../a',
  '.',
  '..',
  'a/./b',
  'a b',
  ' a',
  'a\n',
  'a\u0000',
  'a%2fb',
  'a\\b',
  'a:b',
  'a@b',
  'é',
  'ａ',
  'K',
  'a'.repeat(256),
]

function parsedOrRefused(text: string): string {
  try {
    return parseRepository(text)
  } catch (error) {
    if (error instanceof RegistryError) return 'refused'
    throw error
  }
}

describe('parseRepository', () => {
  it.each(accepted)('P-6: accepts %j', name => {
    expect(parseRepository(name)).toBe(name)
  })

  it.each(refused)('P-6, P-8: refuses %j as NAME_INVALID', name => {
    expect(() => parseRepository(name)).toThrow(expect.objectContaining({ status: 400, code: 'NAME_INVALID' }))
  })

  it('P-6: accepts exactly what joins valid components', () => {
    const word = fc.stringMatching(/^[a-z0-9]{1,5}$/)
    const separator = fc.constantFrom('.', '_', '__', '-', '--', '/')
    const name = fc
      .tuple(word, fc.array(fc.tuple(separator, word), { maxLength: 8 }))
      .map(([first, rest]) => first + rest.flat().join(''))
    fc.assert(fc.property(name, text => isRepository(text)))
    // Two separators in a row are valid only where they make one longer separator.
    fc.assert(
      fc.property(name, fc.constantFrom('..', './', '/.', '//', '_.', '-_', '___'), word, (text, bad, end) => {
        expect(isRepository(`${text}${bad}${end}`)).toBe(false)
      }),
    )
  })

  it('T-25: nothing that it accepts can leave a directory or end a header', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('a', '0', '.', '/', '-', '_', '%', '\0', '\r', 'A') }), text => {
        expect(parsedOrRefused(text)).toMatch(/^(?!.*\.\.)(?!.*\/\/)[a-z0-9][a-z0-9._/-]*$/)
      }),
    )
  })

  it('T-52: no name takes longer than 255 characters to refuse, however it repeats', () => {
    for (const text of ['a', 'a-', 'a_', 'a.', 'a/', '-', 'a__'])
      expect(isRepository(`${text.repeat(250).slice(0, 254)}!`)).toBe(false)
    expect(isRepository('a'.repeat(50_000_000))).toBe(false)
  })
})
