import type { Digest } from '../oci/digest.ts'
import type { Target } from '../routing/target.ts'

const atOnce = 2
const maxQueued = 256

/**
 * A short queue of blobs to fetch ahead: two at a time of each upstream, so that one that sends slowly holds up no other; each at most once,
 * forgotten rather than piled up.
 */
export class Prefetcher {
  readonly #fetch: (target: Target, digest: Digest) => Promise<void>
  readonly #queues = new Map<string, Map<Digest, Target>>()
  readonly #running = new Map<string, number>()

  /** `fetch` must not reject. */
  constructor(fetch: (target: Target, digest: Digest) => Promise<void>) {
    this.#fetch = fetch
  }

  add(target: Target, digest: Digest): void {
    const { upstream } = target
    const queue = this.#queues.get(upstream) ?? new Map<Digest, Target>()
    this.#queues.set(upstream, queue)
    if (queue.size >= maxQueued || queue.has(digest)) return
    queue.set(digest, target)
    if (this.#runningOf(upstream) < atOnce) void this.#work(upstream, queue)
  }

  close(): void {
    for (const queue of this.#queues.values()) queue.clear()
  }

  async #work(upstream: string, queue: Map<Digest, Target>): Promise<void> {
    this.#running.set(upstream, this.#runningOf(upstream) + 1)
    for (let next = take(queue); next; next = take(queue)) {
      const [digest, target] = next
      await this.#fetch(target, digest).catch(() => undefined)
    }
    this.#running.set(upstream, this.#runningOf(upstream) - 1)
  }

  #runningOf(upstream: string): number {
    return this.#running.get(upstream) ?? 0
  }
}

function take(queue: Map<Digest, Target>): [Digest, Target] | undefined {
  const [next] = queue
  if (next) queue.delete(next[0])
  return next
}
