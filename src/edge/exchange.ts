import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Outcome, ServedSource } from '../log/outcome.ts'
import type { RouteKind } from '../metrics/labels.ts'
import type { Span } from '../tracing/tracer.ts'

/** One request and its response, and what is told about it afterwards. */
export class Exchange {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly startedAt = performance.now()
  /** What was asked for and how it was answered, filled in on the way. */
  kind: RouteKind = 'other'
  /** A manifest was asked for by its tag. */
  byTag = false
  upstream = 'none'
  repository: string | undefined
  reference: string | undefined
  ns: string | undefined
  outcome: Outcome = 'error'
  /** Where its bytes come from. */
  source: ServedSource = 'memory'
  /** Why it is stale, where it is. */
  staleReason: string | undefined
  /** Since upstream last confirmed the tag that was served; undefined: no tag was. */
  tagAgeMs: number | undefined
  /** The last error, for the log only. */
  error: unknown
  /** Body bytes handed to the socket. */
  bytes = 0
  /** Body bytes that the client was sent elsewhere for: the length of what it asked for. 0 unless the outcome is `redirected`. */
  redirectedBytes = 0
  firstByteAt: number | undefined
  /** The response was complete; otherwise the client left or the connection was cut. */
  complete = false
  /** We ended the connection before the response was complete. */
  cut = false
  /** Undefined: nothing is traced. */
  span: Span | undefined
  #left: AbortController | undefined

  constructor(req: IncomingMessage, res: ServerResponse) {
    this.req = req
    this.res = res
  }

  /**
   * Aborts when the client leaves before its answer is complete. Made when somebody first asks: most answers are there at once.
   * (On the class, not on an object made for each request: V8 gives every literal with a getter a hidden class of its own.)
   */
  get signal(): AbortSignal {
    if (this.#left) return this.#left.signal
    const left = new AbortController()
    this.#left = left
    const { res } = this
    const leave = (): void => {
      if (!res.writableFinished) left.abort(new Error('the client left'))
    }
    // It may be asked for first by who had to wait for something else before.
    if (res.closed) leave()
    else res.once('close', leave)
    return left.signal
  }

  get isHead(): boolean {
    return this.req.method === 'HEAD'
  }

  wrote(bytes: number): void {
    if (bytes === 0) return
    this.firstByteAt ??= performance.now()
    this.bytes += bytes
  }
}
