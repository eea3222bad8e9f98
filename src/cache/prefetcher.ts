import type { Digest } from '../oci/digest.ts'
import type { Target } from '../routing/target.ts'

const atOnce = 2
const maxQueued = 256

/** A short queue of blobs to fetch ahead: two at a time, each at most once, forgotten rather than piled up. */
export class Prefetcher {
  readonly #fetch: (target: Target, digest: Digest) => Promise<void>
  readonly #queue = new Map<Digest, Target>()
  #running = 0

  /** `fetch` must not reject. */
  constructor(fetch: (target: Target, digest: Digest) => Promise<void>) {
    this.#fetch = fetch
  }

  add(target: Target, digest: Digest): void {
    if (this.#queue.size >= maxQueued || this.#queue.has(digest)) return
    this.#queue.set(digest, target)
    if (this.#running < atOnce) void this.#work()
  }

  close(): void {
    this.#queue.clear()
  }

  async #work(): Promise<void> {
    this.#running++
    for (let next = this.#take(); next; next = this.#take()) {
      const [digest, target] = next
      await this.#fetch(target, digest).catch(() => undefined)
    }
    this.#running--
  }

  #take(): [Digest, Target] | undefined {
    const [next] = this.#queue
    if (next) this.#queue.delete(next[0])
    return next
  }
}
