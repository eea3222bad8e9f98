import type { Clock } from '../clock.ts'
import type { Digest } from '../oci/digest.ts'
import { type HeldLease, type Lease, type Leases, leaseTtlMs } from './leases.ts'

export type LocalLeasesOptions = { readonly clock: Clock; readonly ttlMs?: number }

type Held = { readonly token: number; readonly url: string; expiresAt: number }

/** Leases within this process, for a single replica and for tests. */
export class LocalLeases implements Leases {
  readonly #clock: Clock
  readonly #ttlMs: number
  readonly #held = new Map<Digest, Held>()
  #lastToken = 0

  constructor({ clock, ttlMs = leaseTtlMs }: LocalLeasesOptions) {
    this.#clock = clock
    this.#ttlMs = ttlMs
  }

  async acquire(digest: Digest, { url }: { readonly url: string }): Promise<Lease | HeldLease> {
    const before = this.#held.get(digest)
    if (before && this.#isAlive(before))
      return { heldBy: before.url, idleMs: this.#ttlMs - (before.expiresAt - this.#clock.monotonic()) }
    const held: Held = { token: ++this.#lastToken, url, expiresAt: this.#clock.monotonic() + this.#ttlMs }
    this.#held.set(digest, held)
    return this.#lease(digest, held)
  }

  #lease(digest: Digest, held: Held): Lease {
    const isHeld = (): boolean => this.#held.get(digest) === held && this.#isAlive(held)
    let furthest = 0
    return {
      token: held.token,
      renew: async progress => {
        if (!isHeld()) return false
        if (progress > furthest) held.expiresAt = this.#clock.monotonic() + this.#ttlMs
        furthest = Math.max(furthest, progress)
        return true
      },
      release: async () => {
        if (this.#held.get(digest) === held) this.#held.delete(digest)
      },
    }
  }

  #isAlive({ expiresAt }: Held): boolean {
    return this.#clock.monotonic() < expiresAt
  }
}
