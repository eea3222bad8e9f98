import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { scanJson } from '../../src/oci/json-scan.ts'

const depthOf = (value: unknown): number =>
  typeof value === 'object' && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0

describe('scanJson', () => {
  it('T-42: agrees with JSON.parse on depth and outermost keys', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(0, 1, '\t'), (document, indent) => {
        const scan = scanJson(JSON.stringify(document, undefined, indent), 1000)
        expect(scan?.depth).toBe(depthOf(JSON.parse(JSON.stringify(document))))
        expect(scan?.topLevelKeys.toSorted()).toEqual(Object.keys(document).toSorted())
      }),
    )
  })

  it('T-54: sees repeated keys, escaped ones too', () => {
    expect(scanJson(String.raw`{"a":"b:","\u0061" : {"c":1},"a\"b":[":"]}`, 9)?.topLevelKeys).toEqual(['a', 'a', 'a"b'])
  })

  it('T-42: stops where it becomes too deep', () => {
    expect(scanJson('['.repeat(65), 64)).toBeUndefined()
    expect(scanJson('['.repeat(64), 64)?.depth).toBe(64)
  })

  it('T-52: takes time that grows with the length, not with its square', () => {
    const bombs = [
      (n: number) => `{"a${' '.repeat(n)}`,
      (n: number) => '{'.concat('"",'.repeat(n / 3)),
      (n: number) => `{"a"${' '.repeat(n)}`,
      (n: number) => `"${'\\'.repeat(n)}`,
    ]
    for (const bomb of bombs) {
      const small = fastest(bomb(50_000))
      const large = fastest(bomb(800_000))
      // 16 times the text: linear is 16, quadratic 256. The added millisecond is for the clock.
      expect(large).toBeLessThan(100 * (small + 1))
    }
  })
})

function fastest(text: string): number {
  const times = Array.from({ length: 5 }, () => {
    const start = performance.now()
    scanJson(text, 64)
    return performance.now() - start
  })
  return Math.min(...times)
}
