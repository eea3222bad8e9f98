/** What is told about a span; undefined is left out. Names are those of OpenTelemetry where it has one. */
export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>

/** One stretch of work in a trace. What it is told after its end is ignored. */
export interface Span {
  /** 32 hexadecimal digits when the trace is kept; undefined when it was not chosen. */
  readonly traceId: string | undefined
  rename(name: string): void
  set(attributes: Attributes): void
  /** Says on both that what runs now has to do with this span, without one being a part of the other. */
  linkCurrent(): void
  /** `error`: it failed, and this is why. Safe to repeat. */
  end(error?: unknown): void
}

/** The head of a request that a client, or another replica, makes. */
export type Arrival = {
  readonly name: string
  /** The header as it came; what is no W3C trace context counts as absent. */
  readonly traceparent: string | undefined
}

/**
 * Where spans come from. What runs now is known by itself (it follows promises and callbacks), so that nobody has to hand spans around.
 * Nothing here throws, waits or fails a pull.
 */
export interface Tracer {
  /** False: nothing is traced and nothing is loaded; ask it before making what only a span needs. */
  readonly on: boolean
  /** The span of a request that arrives; it has no parent here. Undefined: nothing is traced. */
  request(arrival: Arrival): Span | undefined
  /** The span of work that outlives who started it: the root of a trace of its own, linked to what runs now, and kept when that is. */
  detached(name: string, attributes: Attributes): Span | undefined
  /** Runs `work` as what that span is about. */
  within<T>(span: Span | undefined, work: () => T): T
  /** Runs `work` as a part of what runs now, from its call until its promise settles. Without anything that runs now there is no span. */
  child<T>(name: string, attributes: Attributes, work: (span: Span | undefined) => Promise<T>): Promise<T>
  /** The `traceparent` for a request on behalf of what runs now. */
  traceparent(): string | undefined
  /** Sends what waits, for a few seconds at most. Safe to repeat. */
  close(): Promise<void>
}

/** Traces nothing and allocates nothing. */
export const noTracer: Tracer = {
  on: false,
  request: () => undefined,
  detached: () => undefined,
  within: (_span, work) => work(),
  child: (_name, _attributes, work) => work(undefined),
  traceparent: () => undefined,
  close: () => Promise.resolve(),
}
