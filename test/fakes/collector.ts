import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A span as it was exported, with its attributes as a plain object. */
export type ExportedSpan = {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string | undefined
  readonly name: string
  readonly kind: number
  readonly attributes: Readonly<Record<string, unknown>>
  /** Span ids. */
  readonly links: readonly string[]
  readonly failed: boolean
}

/** An OTLP/HTTP collector on loopback that keeps what it is sent. */
export type Collector = {
  /** Where traces are sent to. */
  readonly endpoint: string
  readonly spans: readonly ExportedSpan[]
  /** What was said about the service. */
  readonly resource: Readonly<Record<string, unknown>>
  readonly headers: readonly IncomingHttpHeaders[]
  /** Everything that arrived, as text. */
  raw(): string
  stop(): Promise<void>
}

type OtlpAttribute = { readonly key: string; readonly value: Readonly<Record<string, unknown>> }
type OtlpSpan = {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly kind: number
  readonly attributes: readonly OtlpAttribute[]
  readonly links?: readonly { readonly spanId: string }[]
  readonly status: { readonly code?: number }
}
type OtlpExport = {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly OtlpAttribute[] }
    readonly scopeSpans: readonly { readonly spans: readonly OtlpSpan[] }[]
  }[]
}

export async function startCollector(): Promise<Collector> {
  const spans: ExportedSpan[] = []
  const resource: Record<string, unknown> = {}
  const headers: IncomingHttpHeaders[] = []
  let raw = ''
  const server = createServer((req, res) => {
    let text = ''
    req.setEncoding('utf8')
    req.on('data', (chunk: string) => (text += chunk))
    req.on('end', () => {
      headers.push(req.headers)
      raw += text
      for (const part of (JSON.parse(text) as OtlpExport).resourceSpans) {
        Object.assign(resource, plain(part.resource.attributes))
        spans.push(...part.scopeSpans.flatMap(scope => scope.spans.map(readSpan)))
      }
      res.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`,
    spans,
    resource,
    headers,
    raw: () => raw,
    stop: async () => {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

function readSpan({
  traceId,
  spanId,
  parentSpanId,
  name,
  kind,
  attributes,
  links = [],
  status,
}: OtlpSpan): ExportedSpan {
  return {
    traceId,
    spanId,
    parentSpanId: parentSpanId || undefined,
    name,
    kind,
    attributes: plain(attributes),
    links: links.map(link => link.spanId),
    failed: status.code === 2,
  }
}

function plain(attributes: readonly OtlpAttribute[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]))
}
