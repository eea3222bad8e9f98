import type { Regions } from './overview.ts'

export type LiveOptions = {
  /** Makes all regions; called once a tick, whoever looks, and never while nobody does. */
  readonly render: () => Promise<Regions>
  readonly onError: (error: unknown) => void
  readonly everyMs?: number
  readonly maxViewers?: number
}

type Viewer = ReadableStreamDefaultController<Uint8Array>

/** Events that wait for a viewer who does not take them; then it is let go, and comes back by itself. */
const maxWaiting = 32
const encoder = new TextEncoder()

/**
 * The first page as a stream of server-sent events: each holds the regions that changed, rendered once for all viewers.
 * https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export class LivePage {
  readonly #options: LiveOptions
  readonly #viewers = new Set<Viewer>()
  /** What viewers have on their screens. */
  #shown = new Map<string, string>()
  #timer: NodeJS.Timeout | undefined
  #ticking: Promise<void> | undefined
  #closed = false

  constructor(options: LiveOptions) {
    this.#options = options
  }

  get viewers(): number {
    return this.#viewers.size
  }

  /** A stream that begins with all regions. Undefined: there are too many viewers, or it is closed. */
  open(): ReadableStream<Uint8Array> | undefined {
    if (this.#closed || this.#viewers.size >= (this.#options.maxViewers ?? 64)) return undefined
    let viewer: Viewer | undefined
    return new ReadableStream<Uint8Array>(
      {
        start: async controller => {
          viewer = controller
          await this.#join(controller)
        },
        cancel: () => {
          if (viewer) this.#leave(viewer)
        },
      },
      { highWaterMark: maxWaiting },
    )
  }

  /** Ends every stream. Safe to repeat. */
  close(): void {
    this.#closed = true
    for (const viewer of this.#viewers) this.#end(viewer)
  }

  async #join(viewer: Viewer): Promise<void> {
    this.#viewers.add(viewer)
    if (this.#timer === undefined) {
      this.#shown = new Map()
      this.#timer = setInterval(() => void this.#tick(), this.#options.everyMs ?? 1_000).unref()
      // Renders everything, for this viewer alone.
      return this.#tick()
    }
    this.#send([viewer], this.#shown)
  }

  #leave(viewer: Viewer): void {
    this.#viewers.delete(viewer)
    if (this.#viewers.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #end(viewer: Viewer): void {
    this.#leave(viewer)
    try {
      viewer.close()
    } catch {
      // It left at the same moment.
    }
  }

  /** Never rejects. A rendering that takes longer than a tick is not begun twice. */
  #tick(): Promise<void> {
    this.#ticking ??= this.#renderAndSend()
      .catch(this.#options.onError)
      .finally(() => (this.#ticking = undefined))
    return this.#ticking
  }

  async #renderAndSend(): Promise<void> {
    const regions = await this.#options.render()
    const changed = new Map<string, string>()
    for (const [id, region] of Object.entries(regions)) {
      const text = String(await region)
      if (this.#shown.get(id) !== text) changed.set(id, text)
    }
    for (const [id, text] of changed) this.#shown.set(id, text)
    // Also when nothing changed: who is gone without a word is found out by writing to it.
    this.#send([...this.#viewers], changed)
  }

  #send(viewers: readonly Viewer[], regions: ReadonlyMap<string, string>): void {
    const event = encoder.encode(`data: ${JSON.stringify(Object.fromEntries(regions))}\n\n`)
    for (const viewer of viewers) {
      if ((viewer.desiredSize ?? 0) <= 0) this.#end(viewer)
      else viewer.enqueue(event)
    }
  }
}
