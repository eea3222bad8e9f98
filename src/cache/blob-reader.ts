/**
 * One client's way through the bytes of a blob, at its own pace.
 *
 * `read` gives between 1 and `length` bytes at `position`, as soon as there is one: either in `buffer()` (asked for only when needed) or in
 * memory that is shared with other readers and must not be changed. It gives no bytes at the end, and throws when the bytes cannot be had:
 * what was given so far must then not be completed. One call at a time.
 */
export interface BlobReader {
  read(position: number, length: number, buffer: () => Buffer): Promise<Uint8Array> | Uint8Array
  /** Safe to repeat. */
  close(): void
}
