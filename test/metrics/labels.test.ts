import { globSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { boundedReason } from '../../src/metrics/labels.ts'

const root = fileURLToPath(new URL('../../src/', import.meta.url))

/** The words in `new UpstreamError(…, 'word', …)` and `new FillError('word', …)`: their literals of one lower-case word. */
function reasonsIn(source: string): readonly string[] {
  const calls = source.match(/new (?:UpstreamError|FillError)\((?:[^()]|\([^()]*\))*/g) ?? []
  return calls.flatMap(call => [...call.matchAll(/'([a-z][a-z0-9_]*)'/g)].map(([, word = '']) => word))
}

test('every reason that the code gives has its own label value: none hides in `other`', () => {
  const words = globSync('{upstream,cache}/**/*.ts', { cwd: root }).flatMap(file =>
    reasonsIn(readFileSync(`${root}${file}`, 'utf8')).map(word => ({ file, word })),
  )
  expect(words.length).toBeGreaterThan(20)
  expect(words.filter(({ word }) => boundedReason(word) !== word)).toEqual([])
})

test('T-50: a reason is a known word, a status or `other`, whatever was said', () => {
  expect(
    ['503', 'http_503', 'http_418', '299', 'x'.repeat(5000), '', 'redirect_', 'token_reset'].map(boundedReason),
  ).toEqual(['503', 'http_503', 'http_4xx', '2xx', 'other', 'other', 'other', 'token_reset'])
})
