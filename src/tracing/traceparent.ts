/** Where a trace comes from, as another process says. */
export type RemoteSpan = { readonly traceId: string; readonly spanId: string; readonly sampled: boolean }

// Later versions may be longer; what they add is not read.  https://www.w3.org/TR/trace-context/#versioning-of-traceparent
const maxLength = 128
const pattern = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-|$)/

/** Reads a W3C `traceparent`; undefined for anything else, however long. https://www.w3.org/TR/trace-context/#traceparent-header */
export function parseTraceparent(header: string | undefined): RemoteSpan | undefined {
  if (header === undefined || header.length > maxLength) return undefined
  const [, version, traceId, spanId, flags, rest] = pattern.exec(header) ?? []
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined
  if (version === '00' && rest !== '') return undefined
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 }
}

export function formatTraceparent({ traceId, spanId, sampled }: RemoteSpan): string {
  return `00-${traceId}-${spanId}-${sampled ? '01' : '00'}`
}
