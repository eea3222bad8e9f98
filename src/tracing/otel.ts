import { AsyncLocalStorage } from 'node:async_hooks'
import {
  type Context,
  type Link,
  ROOT_CONTEXT,
  type Span as OtelSpan,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
  TraceFlags,
  type Tracer as OtelTracer,
} from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { resourceFromAttributes } from '@opentelemetry/resources'
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  SamplingDecision,
  type SamplingResult,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace'
import type { TracingConfig } from '../config/config.ts'
import { type Clock, systemClock } from '../clock.ts'
import type { Log } from '../log/log.ts'
import { redactText } from '../log/redact.ts'
import { version } from '../version.ts'
import { formatTraceparent, parseTraceparent } from './traceparent.ts'
import type { Attributes, Span, Tracer } from './tracer.ts'

export type OtelTracerOptions = {
  readonly config: TracingConfig
  readonly log: Pick<Log, 'warn'>
  readonly clock?: Clock
}

/** Spans that wait to be sent; more are dropped. */
const maxQueued = 2048
const sendEveryMs = 5_000
/** For one attempt, repetitions included. */
const sendTimeoutMs = 10_000
/** How long an end waits for the collector. */
const closeMs = 2_000
const quietMs = 5 * 60_000
/** What a client wrote, such as its User-Agent, is no longer than this in a span. */
const maxValueLength = 512

/** Spans that go to an OTLP collector as JSON over HTTP. Nothing is registered globally, so that several can live in one process. */
export function createOtelTracer({ config, log, clock = systemClock }: OtelTracerOptions): Tracer {
  const exporter = new OTLPTraceExporter({ url: config.endpoint, timeoutMillis: sendTimeoutMs })
  const failed = failureTeller(log, clock, config.endpoint)
  const processor = new BatchSpanProcessor({
    exporter: forgiving(exporter, failed),
    maxQueueSize: maxQueued,
    scheduledDelayMillis: sendEveryMs,
    exportTimeoutMillis: sendTimeoutMs,
  })
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.version': version, ...config.resource }),
    sampler: new ParentBasedSampler({ root: rootSampler(config.sampleRatio) }),
    spanLimits: { attributeValueLengthLimit: maxValueLength },
    spanProcessors: [processor],
  })
  return new OtelBackedTracer(provider.getTracer('layover', version), () =>
    within(closeMs, provider.shutdown(), () =>
      failed(0, new Error('the collector did not take the last ones in time')),
    ),
  )
}

class OtelBackedTracer implements Tracer {
  readonly on = true
  readonly #tracer: OtelTracer
  readonly #shutdown: () => Promise<void>
  readonly #current = new AsyncLocalStorage<OtelBackedSpan | undefined>()
  readonly #currentSpan = (): OtelBackedSpan | undefined => this.#current.getStore()
  #closed: Promise<void> | undefined

  constructor(tracer: OtelTracer, shutdown: () => Promise<void>) {
    this.#tracer = tracer
    this.#shutdown = shutdown
  }

  request({ name, traceparent }: { readonly name: string; readonly traceparent: string | undefined }): Span {
    const remote = parseTraceparent(traceparent)
    const parent: Context =
      remote === undefined
        ? ROOT_CONTEXT
        : trace.setSpanContext(ROOT_CONTEXT, {
            traceId: remote.traceId,
            spanId: remote.spanId,
            traceFlags: remote.sampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
            isRemote: true,
          })
    return this.#wrap(this.#tracer.startSpan(name, { kind: SpanKind.SERVER }, parent))
  }

  detached(name: string, attributes: Attributes): Span {
    const current = this.#currentSpan()
    const links: Link[] = current ? [{ context: current.context }] : []
    const span = this.#wrap(this.#tracer.startSpan(name, { links, attributes: defined(attributes) }, ROOT_CONTEXT))
    current?.link(span.context)
    return span
  }

  within<T>(span: Span | undefined, work: () => T): T {
    return this.#current.run(span instanceof OtelBackedSpan ? span : undefined, work)
  }

  async child<T>(name: string, attributes: Attributes, work: (span: Span | undefined) => Promise<T>): Promise<T> {
    const current = this.#currentSpan()
    if (current === undefined) return work(undefined)
    const options = { kind: SpanKind.CLIENT, attributes: defined(attributes) }
    const span = this.#wrap(this.#tracer.startSpan(name, options, current.asParent))
    try {
      const result = await this.within(span, () => work(span))
      span.end()
      return result
    } catch (error) {
      span.end(error)
      throw error
    }
  }

  traceparent(): string | undefined {
    const context = this.#currentSpan()?.context
    if (context === undefined) return undefined
    return formatTraceparent({ ...context, sampled: isSampled(context) })
  }

  close(): Promise<void> {
    this.#closed ??= this.#shutdown()
    return this.#closed
  }

  #wrap(span: OtelSpan): OtelBackedSpan {
    return new OtelBackedSpan(span, this.#currentSpan)
  }
}

class OtelBackedSpan implements Span {
  readonly context: SpanContext
  readonly #span: OtelSpan
  readonly #currentSpan: () => OtelBackedSpan | undefined
  #ended = false

  constructor(span: OtelSpan, currentSpan: () => OtelBackedSpan | undefined) {
    this.#span = span
    this.#currentSpan = currentSpan
    this.context = span.spanContext()
  }

  get traceId(): string | undefined {
    return isSampled(this.context) ? this.context.traceId : undefined
  }

  get asParent(): Context {
    return trace.setSpan(ROOT_CONTEXT, this.#span)
  }

  rename(name: string): void {
    this.#span.updateName(name)
  }

  set(attributes: Attributes): void {
    if (!this.#ended && this.#span.isRecording()) this.#span.setAttributes(defined(attributes))
  }

  linkCurrent(): void {
    const current = this.#currentSpan()
    if (current === undefined || current === this) return
    this.link(current.context)
    current.link(this.context)
  }

  link(context: SpanContext): void {
    // A link to what is not kept leads nowhere.
    if (!this.#ended && isSampled(context)) this.#span.addLink({ context })
  }

  end(error?: unknown): void {
    if (this.#ended) return
    if (error !== undefined && this.#span.isRecording()) {
      this.#span.setAttribute('error.type', wordOf(error))
      this.#span.setStatus({ code: SpanStatusCode.ERROR, message: textOf(error) })
    }
    this.#ended = true
    this.#span.end()
  }
}

/**
 * For spans without a parent: what hangs on others by links is kept when one of them is, so that a download is there for the request that
 * started it; of the rest a share.
 */
function rootSampler(ratio: number): Sampler {
  const share = new TraceIdRatioBasedSampler(ratio)
  return {
    shouldSample(context, traceId, _name, _kind, _attributes, links): SamplingResult {
      if (links.length === 0) return share.shouldSample(context, traceId)
      const isKept = links.some(link => isSampled(link.context))
      return { decision: isKept ? SamplingDecision.RECORD_AND_SAMPLED : SamplingDecision.NOT_RECORD }
    },
    toString: () => `LinkedOrShare{${ratio}}`,
  }
}

/** A collector that is away costs its spans and a line now and then. */
function forgiving(exporter: SpanExporter, failed: (spans: number, error: unknown) => void): SpanExporter {
  return {
    export(spans, done) {
      exporter.export(spans, result => {
        if (result.error) failed(spans.length, result.error)
        done(result)
      })
    },
    forceFlush: async () => exporter.forceFlush?.(),
    shutdown: () => exporter.shutdown(),
  }
}

function failureTeller(log: Pick<Log, 'warn'>, clock: Clock, endpoint: string) {
  let lost = 0
  let toldAt: number | undefined
  return (spans: number, error: unknown): void => {
    lost += spans
    const now = clock.monotonic()
    if (toldAt !== undefined && now - toldAt < quietMs) return
    log.warn({ endpoint, spans: lost || undefined, error }, 'traces could not be exported; pulls are not concerned')
    toldAt = now
    lost = 0
  }
}

/** Waits for `work`, however it ends, and no longer than `ms`. */
async function within(ms: number, work: Promise<void>, late: () => void): Promise<void> {
  const { promise: over, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(() => {
    late()
    resolve()
  }, ms)
  // What goes wrong was told by the exporter.
  await Promise.race([work.catch(() => undefined), over])
  clearTimeout(timer)
}

const isSampled = ({ traceFlags }: SpanContext): boolean => (traceFlags & TraceFlags.SAMPLED) !== 0

/** One word where the error has one: `http_503`, `timeout`, `BLOB_UNKNOWN`, ECONNRESET. */
function wordOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  if ('reason' in error && typeof error.reason === 'string') return error.reason
  if ('code' in error && typeof error.code === 'string') return error.code
  return error.name
}

/** Messages may quote URLs, which may be presigned (T-10). */
const textOf = (error: unknown): string => redactText(error instanceof Error ? error.message : String(error))

function defined(attributes: Attributes): Record<string, string | number | boolean> {
  const kept: Record<string, string | number | boolean> = {}
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) kept[name] = value
  return kept
}
