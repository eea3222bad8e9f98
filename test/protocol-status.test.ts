import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

const root = new URL('../', import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8')
const page = read('docs/protocol-status.md')

type Row = { readonly item: string; readonly status: string; readonly cell: string }
const rows: readonly Row[] = [...page.matchAll(/^\| ([PTF]-\d+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$/gm)].map(
  ([, item = '', status = '', cell = '']) => ({ item, status, cell }),
)
const cited = [...page.matchAll(/`([a-z/-]+(?:\.conformance)?)` “([^”]+)”/g)].map(([, file = '', name = '']) => ({
  file,
  name,
}))

function pathOf(file: string): string {
  return file.endsWith('.conformance') ? `test/${file}.ts` : `test/${file}.test.ts`
}

describe('docs/protocol-status.md', () => {
  test('has every item once, in order', () => {
    const numbered = (letter: string, count: number) =>
      Array.from({ length: count }, (_, index) => `${letter}-${index + 1}`)
    expect(rows.map(row => row.item)).toEqual([...numbered('P', 122), ...numbered('T', 62), ...numbered('F', 75)])
  })

  test('names only tests that exist', () => {
    expect(cited.length).toBeGreaterThan(200)
    const missing = cited.filter(
      ({ file, name }) => !existsSync(new URL(pathOf(file), root)) || !read(pathOf(file)).includes(name),
    )
    expect(missing).toEqual([])
  })

  test('names a test, or an item that has one, for all that is tested', () => {
    const tested = rows.filter(row => row.status === 'tested')
    const unproved = tested.filter(({ cell }) => !/^see [PTF]-\d+/.test(cell) && !cell.includes('“'))
    expect(unproved).toEqual([])
    const elsewhere = tested.flatMap(({ cell }) =>
      (/^see (.+)$/.exec(cell)?.[1] ?? '').split(', ').filter(item => item !== ''),
    )
    expect(elsewhere.filter(item => !tested.some(row => row.item === item && row.cell.includes('“')))).toEqual([])
  })

  test('says one of four words, and why when nothing is tested', () => {
    for (const { item, status, cell } of rows) {
      expect([item, status]).toEqual([item, expect.stringMatching(/^(tested|by design|not applicable|not done)$/)])
      expect([item, cell]).toEqual([item, expect.stringMatching(/\S{4}/)])
    }
  })
})
