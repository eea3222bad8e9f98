import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises'
import type { Counters } from './counters.ts'
import type { KeepLinks, LinkTable } from './link-table.ts'

export type PruningOptions = {
  readonly counters: () => Counters
  readonly links: LinkTable
  readonly maxLinks: number
  readonly now: () => number
  /** Runs `work` in the background and reports when it fails. */
  readonly inBackground: (operation: string, work: () => Promise<void>) => void
  /** Resolves when the index knows what is stored, and when it was last used. */
  readonly indexed: () => Promise<void>
}

/** Between batches, so that requests hardly notice. */
const pauseMs = 5

/**
 * Keeps the links within their limit: what is over is removed in the background, in small batches, down to a twentieth below.
 *
 * Links go whose digest is not stored, the oldest first; then those of what was not used for long; only in the end any. A link that is
 * lost costs a request upstream, but where there is no upstream to ask, a stored blob without its link could not be pulled any more.
 */
export class Pruning {
  readonly #options: PruningOptions
  readonly #stopped = new AbortController()
  #running = false

  constructor(options: PruningOptions) {
    this.#options = options
  }

  /** False: links come so much faster than they can be removed that new ones are better not kept. Nobody waits for storage. */
  hasRoom(): boolean {
    return !this.#isAbove(1.25)
  }

  /** Starts removing when there are too many. To be called at start and whenever links were added; costs the reading of one row. */
  check(): void {
    if (this.#running || this.#stopped.signal.aborted || !this.#isAbove(1)) return
    this.#running = true
    this.#options.inBackground('metadata.prune', async () => {
      try {
        await this.#options.indexed()
        await this.#prune()
      } finally {
        this.#running = false
      }
    })
  }

  stop(): void {
    this.#stopped.abort()
  }

  async #prune(): Promise<void> {
    const { links, maxLinks, now } = this.#options
    for (const keep of passes(maxLinks, links.oldestUse(), now()))
      for (let at: number | undefined = 0; at !== undefined; ) {
        if (this.#stopped.signal.aborted || !this.#isAbove(0.95)) return
        at = links.removeAfter(at, keep)
        await this.#breathe()
      }
  }

  #isAbove(share: number): boolean {
    return this.#options.counters().links > this.#options.maxLinks * share
  }

  async #breathe(): Promise<void> {
    if (this.#isAbove(1.1)) await nextTurn()
    else await pause(pauseMs, undefined, { ref: false, signal: this.#stopped.signal }).catch(() => {})
  }
}

/** What is kept in each pass over the links, less and less. `oldestUse` and `now` in epoch milliseconds. */
function* passes(maxLinks: number, oldestUse: number | undefined, now: number): Iterable<KeepLinks> {
  // The blobs of the newest links may be on their way.
  yield { blobsUsedSince: 0, manifestsUsedSince: 0, newest: Math.floor(maxLinks / 100) }
  const longest = oldestUse === undefined ? 0 : now - oldestUse
  // Unused for half as long as what was not used for longest, then for a quarter, an eighth, …
  for (let unusedMs = longest / 2; unusedMs > longest / 1024; unusedMs /= 2)
    // A manifest is served from memory so often that its row looks older than it is.
    yield { blobsUsedSince: now - unusedMs, manifestsUsedSince: now - 2 * unusedMs, newest: 0 }
  yield { blobsUsedSince: Infinity, manifestsUsedSince: Infinity, newest: 0 }
}
