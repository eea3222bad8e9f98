import type { UpstreamBlob } from '../upstream/upstream.ts'

/**
 * One place where the bytes of one blob can be had: the store that replicas share, the replica that downloads it now, the upstream or one of its mirrors.
 * A download goes from one to the next at the byte that is missing. Bytes are not verified here.
 */
export interface Origin {
  readonly kind: OriginKind
  /** Tells it from the others of one blob, a bounded word and never a secret: `shared`, `peer`, the upstream's configured name with the number of its URL. */
  readonly name: string
  /**
   * Opens the bytes from `offset` on. Resolves when it is known where the body starts and, if that is said at all, how large the whole blob is.
   * The caller reads `body` to its end or destroys it; it errors when the connection breaks or stays idle. `end`: the last byte that is wanted,
   * inclusive; an origin may ignore that and give more.
   * Throws `UpstreamError`: `notFound` from `shared` and `peer` only says that it is not there, never anything about upstream.
   */
  open(offset: number, signal: AbortSignal, end?: number): Promise<UpstreamBlob>
}

export type OriginKind = 'shared' | 'peer' | 'upstream'
