import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { Digest } from '../oci/digest.ts'

const forMs = 10_000

/** Sources that sent wrong bytes for a digest a moment ago: not asked again for it for some seconds, so that no loop gets hot (F-7). */
export class Quarantine {
  readonly #until = new LRUCache<string, number>({ max: 10_000 })
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(digest: Digest, source: string): void {
    this.#until.set(`${source} ${digest}`, this.#clock.monotonic() + forMs)
  }

  has(digest: Digest, source: string): boolean {
    return (this.#until.get(`${source} ${digest}`) ?? 0) > this.#clock.monotonic()
  }
}
