import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { Digest } from '../oci/digest.ts'

const maxEntries = 50_000
/** Objects of a cache go by life-cycle rules, which count in days. */
const presentMs = 5 * 60_000
/** Another replica may upload it at any moment. */
const absentMs = 2_000

type Entry = { readonly size: number | undefined; readonly at: number; readonly until: number }

/** What the bucket was last seen to hold: remembered briefly, so that crowds asking for one blob cost one request. */
export class S3Presence {
  readonly #clock: Clock
  readonly #entries = new LRUCache<Digest, Entry>({ max: maxEntries })

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** `{ size }` when known, with undefined for absent; undefined when the bucket must be asked, or was last asked longer than `maxAgeMs` ago. */
  get(digest: Digest, maxAgeMs = Number.POSITIVE_INFINITY): { readonly size: number | undefined } | undefined {
    const entry = this.#entries.get(digest)
    const now = this.#clock.monotonic()
    return entry !== undefined && entry.until > now && entry.at >= now - maxAgeMs ? entry : undefined
  }

  set(digest: Digest, size: number | undefined): void {
    const lifeMs = size === undefined ? absentMs : presentMs
    const at = this.#clock.monotonic()
    this.#entries.set(digest, { size, at, until: at + lifeMs })
  }

  forget(digest: Digest): void {
    this.#entries.delete(digest)
  }
}
