import { describe, expect, it } from 'vitest'
import { formatTraceparent, parseTraceparent } from '../../src/tracing/traceparent.ts'

const [traceId, spanId] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331']

describe('traceparent', () => {
  it('is read and written', () => {
    expect(parseTraceparent(`00-${traceId}-${spanId}-01`)).toEqual({ traceId, spanId, sampled: true })
    expect(parseTraceparent(`00-${traceId}-${spanId}-00`)).toEqual({ traceId, spanId, sampled: false })
    expect(formatTraceparent({ traceId, spanId, sampled: true })).toBe(`00-${traceId}-${spanId}-01`)
  })

  it('of a later version is read as far as it is known', () => {
    expect(parseTraceparent(`01-${traceId}-${spanId}-03-more`)).toEqual({ traceId, spanId, sampled: true })
  })

  it.each([
    ['nothing', undefined],
    ['no text', ''],
    ['a trace of zeros', `00-${'0'.repeat(32)}-${spanId}-01`],
    ['a span of zeros', `00-${traceId}-${'0'.repeat(16)}-01`],
    ['capitals', `00-${traceId.toUpperCase()}-${spanId}-01`],
    ['version ff', `ff-${traceId}-${spanId}-01`],
    ['more behind version 00', `00-${traceId}-${spanId}-01-x`],
    ['something longer', `01-${traceId}-${spanId}-01-${'x'.repeat(10_000)}`],
    ['two of them', `00-${traceId}-${spanId}-01, 00-${traceId}-${spanId}-01`],
  ])('is absent when it is %s', (_what, header) => {
    expect(parseTraceparent(header)).toBeUndefined()
  })
})
