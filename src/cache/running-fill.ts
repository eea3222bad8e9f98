import type { Digest } from '../oci/digest.ts'
import type { OriginKind } from './origin.ts'

/** What can be seen of a download while it runs: a copy of its figures, through which nothing can be done to it. */
export type RunningFill = {
  readonly digest: Digest
  /** On whose behalf it was started. */
  readonly upstream: string
  readonly repository: string
  /** Bytes; undefined while nobody has said it. */
  readonly size: number | undefined
  /** Bytes that have arrived. */
  readonly received: number
  /** Who reads along now: 0 when it is fetched ahead, or everybody left. */
  readonly readers: number
  /** Where its first bytes came from; undefined while nobody has answered. */
  readonly began: OriginKind | undefined
  /** Epoch milliseconds. */
  readonly startedAt: number
}
