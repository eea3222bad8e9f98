import type { Clock } from '../../src/clock.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { type Lease, type Leases, leaseTtlMs } from '../../src/store/leases.ts'

type Held = { readonly life: string; readonly url: string; readonly token: number; expiresAt: number }

/** Leases that several replicas of one test share, with the rules of the real ones: what an earlier life of the same URL held is taken over. */
export class SharedLeases {
  readonly #held = new Map<Digest, Held>()
  readonly #clock: Clock
  #tokens = 0
  /** Who acquired what, in order: the URL of each lease that was given. */
  readonly given: string[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The leases as one process sees them. */
  of(life: string): Leases {
    return {
      acquire: async (digest, { url }) => {
        const before = this.#alive(digest)
        if (before && (before.url !== url || before.life === life))
          return { heldBy: before.url, idleMs: leaseTtlMs - (before.expiresAt - this.#clock.monotonic()) }
        const held = { life, url, token: ++this.#tokens, expiresAt: this.#clock.monotonic() + leaseTtlMs }
        this.#held.set(digest, held)
        this.given.push(url)
        return this.#lease(digest, held)
      },
    }
  }

  holder(digest: Digest): string | undefined {
    return this.#alive(digest)?.url
  }

  /** FLUSHALL. */
  flush(): void {
    this.#held.clear()
  }

  #lease(digest: Digest, held: Held): Lease {
    let furthest = 0
    return {
      token: held.token,
      renew: async progress => {
        if (this.#alive(digest) !== held) return false
        if (progress > furthest) held.expiresAt = this.#clock.monotonic() + leaseTtlMs
        furthest = Math.max(furthest, progress)
        return true
      },
      release: async () => {
        if (this.#held.get(digest) === held) this.#held.delete(digest)
      },
    }
  }

  #alive(digest: Digest): Held | undefined {
    const held = this.#held.get(digest)
    return held && held.expiresAt > this.#clock.monotonic() ? held : undefined
  }
}
