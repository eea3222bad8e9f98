/** A small object: its bytes and what they are. */
export type ArchivedObject = { readonly bytes: Uint8Array; readonly contentType: string }

/**
 * Small objects by key, beside the blobs of the bucket. Slower than any record store and larger; every call may reject, and what comes
 * back is for the caller to verify. All of it may be called at once and repeated.
 */
export interface Archive {
  /** Undefined: it is not there. */
  get(key: string): Promise<ArchivedObject | undefined>
  has(key: string): Promise<boolean>
  /** Replaces what is there. */
  put(key: string, object: ArchivedObject): Promise<void>
  delete(key: string): Promise<void>
  /** Keys that begin with `prefix` and come after `after`, in the order of their bytes: at most `limit`. None: that was the last. */
  list(options: {
    readonly prefix: string
    readonly after?: string | undefined
    readonly limit: number
  }): Promise<readonly string[]>
  /** Ends what is under way. Safe to repeat. */
  close(): Promise<void>
}
