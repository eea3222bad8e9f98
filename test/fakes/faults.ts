/** What one matching answer of a fake server does instead of the right thing. Positions count bytes of this answer's body. */
export type Fault =
  | {
      readonly kind: 'status'
      readonly status: number
      readonly headers?: Record<string, string | string[]>
      readonly body?: string
    }
  /** Writes `at` bytes, then ends the connection. */
  | { readonly kind: 'cut'; readonly at: number; readonly how: 'fin' | 'rst' }
  | { readonly kind: 'slow'; readonly bytesPerSecond: number }
  /** Writes `at` bytes, then nothing more; the connection stays open. */
  | { readonly kind: 'stall'; readonly at: number }
  /** Takes the request and never answers. */
  | { readonly kind: 'hang' }
  | { readonly kind: 'flip'; readonly at: number }
  /** Claims another Content-Length than the body has, writes all of the body and closes. */
  | { readonly kind: 'lie'; readonly contentLength: number }
  /** Close-delimited body, perhaps cut. */
  | { readonly kind: 'noLength'; readonly closeAt?: number; readonly how?: 'fin' | 'rst' }
  /** Chunked body; with `cutAt` the last chunk is missing. */
  | { readonly kind: 'chunked'; readonly cutAt?: number }
  | { readonly kind: 'redirect'; readonly location: string; readonly status?: number }
  | { readonly kind: 'gzip' }
  | { readonly kind: 'html' }
  | { readonly kind: 'empty' }
  | { readonly kind: 'ignoreRange' }
  | { readonly kind: 'wrongRange' }
  /** `extra` bytes follow the right body on the wire. */
  | { readonly kind: 'longer'; readonly extra: number }
  /** RST before any byte. */
  | { readonly kind: 'reset' }
  /** These bytes instead of an HTTP answer. */
  | { readonly kind: 'raw'; readonly bytes: string }

export type RequestMatch = {
  readonly method?: string
  /** Tested against the path, without the query. */
  readonly path?: RegExp
  readonly origin?: 'registry' | 'cdn'
}
export type FaultMatch = RequestMatch & {
  /** How often it strikes; 1 unless told. */
  readonly times?: number
}

type Incoming = {
  readonly method: string
  readonly path: string
  readonly origin: 'registry' | 'cdn'
  readonly ranged: boolean
}

export function matches(match: RequestMatch, request: Omit<Incoming, 'ranged'>): boolean {
  if (match.method !== undefined && match.method.toUpperCase() !== request.method) return false
  if (match.origin !== undefined && match.origin !== request.origin) return false
  // A global or sticky expression would remember where it stopped.
  return (
    match.path === undefined || new RegExp(match.path.source, match.path.flags.replace(/[gy]/g, '')).test(request.path)
  )
}

// These replace the answer; all others change the body of a successful one, and wait for such an answer.
const atArrival: ReadonlySet<Fault['kind']> = new Set(['status', 'hang', 'redirect', 'html', 'empty', 'reset', 'raw'])

/** Faults in the order they were added; the first that matches strikes. */
export class FaultQueue {
  #entries: { match: FaultMatch; fault: Fault; left: number }[] = []

  add(match: FaultMatch, fault: Fault): void {
    this.#entries.push({ match, fault, left: match.times ?? 1 })
  }

  clear(): void {
    this.#entries = []
  }

  /** The fault that replaces the answer to this request. */
  takeAtArrival(request: Incoming): Fault | undefined {
    const entry = this.#entries.find(candidate => candidate.left > 0 && matches(candidate.match, request))
    return entry !== undefined && atArrival.has(entry.fault.kind) ? this.#use(entry) : undefined
  }

  /** The fault that changes the body of a successful answer. */
  takeForBody(request: Incoming): Fault | undefined {
    if (request.method === 'HEAD') return undefined
    const entry = this.#entries.find(candidate => candidate.left > 0 && matches(candidate.match, request))
    if (entry === undefined || atArrival.has(entry.fault.kind)) return undefined
    if ((entry.fault.kind === 'ignoreRange' || entry.fault.kind === 'wrongRange') && !request.ranged) return undefined
    return this.#use(entry)
  }

  #use(entry: { fault: Fault; left: number }): Fault {
    entry.left -= 1
    return entry.fault
  }
}

/** Holds matching requests until it is released. */
export type Gate = {
  /** Resolves when the first matching request waits here. */
  readonly reached: Promise<void>
  release(): void
}

export class GateKeeper {
  #gates: {
    match: RequestMatch
    afterBytes: number | undefined
    reach(): void
    opened: Promise<void>
    open(): void
  }[] = []

  add(match: RequestMatch & { readonly afterBytes?: number }): Gate {
    const reached = Promise.withResolvers<void>()
    const opened = Promise.withResolvers<void>()
    const gate = {
      match,
      afterBytes: match.afterBytes,
      reach: () => reached.resolve(),
      opened: opened.promise,
      open: () => opened.resolve(),
    }
    this.#gates.push(gate)
    return {
      reached: reached.promise,
      release: () => {
        this.#gates = this.#gates.filter(other => other !== gate)
        opened.resolve()
      },
    }
  }

  /** Waits at every closed gate in front of the answer. */
  async before(request: Omit<Incoming, 'ranged'>): Promise<void> {
    for (const gate of this.#gates.filter(one => one.afterBytes === undefined && matches(one.match, request))) {
      gate.reach()
      await gate.opened
    }
  }

  /** The first gate inside the body of this answer. */
  inside(request: Omit<Incoming, 'ranged'>): { at: number; wait(): Promise<void> } | undefined {
    const gate = this.#gates.find(one => one.afterBytes !== undefined && matches(one.match, request))
    if (gate === undefined) return undefined
    return {
      at: gate.afterBytes ?? 0,
      wait: () => {
        gate.reach()
        return gate.opened
      },
    }
  }

  openAll(): void {
    for (const gate of this.#gates) gate.open()
    this.#gates = []
  }
}
