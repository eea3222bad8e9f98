import type { Digest } from '../oci/digest.ts'

/**
 * Who of all replicas downloads a digest. Leases save downloads, nothing else: bytes are right because they hash to their digest, whoever
 * holds what (F-52, F-66). All of it is safe to repeat, and none of it rejects.
 */
export interface Leases {
  /**
   * A lease, or who holds it and can be read from: the own URL when this process holds it already. Undefined: it
   * cannot be told; go alone. What an earlier process with the same URL held is taken over. The URL is as trustworthy as the store.
   */
  acquire(digest: Digest, owner: { readonly url: string }): Promise<Lease | HeldLease | undefined>
}

export type HeldLease = {
  readonly heldBy: string
  /** Milliseconds since its holder was given it or last made progress, by the store's clock. */
  readonly idleMs: number
}

export interface Lease {
  /** Larger than every token given for this digest before. */
  readonly token: number
  /**
   * To be called every few seconds with how many bytes have arrived. The lease goes on only when that grew: who makes no progress loses
   * it after its time to live (F-53). False: it is not held any more, and somebody else may be at it; what runs may go on all the same.
   * Undefined: it cannot be told; try again.
   */
  renew(progress: number): Promise<boolean | undefined>
  /** Lets the next one have it at once. Does nothing when it is not held any more. */
  release(): Promise<void>
}

/** How long a lease lives without progress. */
export const leaseTtlMs = 10_000
