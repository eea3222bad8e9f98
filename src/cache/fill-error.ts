/**
 * Why a download did not become a blob. `reason` is one word for metrics and logs:
 * `digest_mismatch`, `size_mismatch`, `truncated`, `cancelled`, `slow_reader`, or the reason of the upstream failure.
 */
export class FillError extends Error {
  override readonly name = 'FillError'
  readonly reason: string

  constructor(reason: string, message: string, cause?: unknown) {
    super(message, { cause })
    this.reason = reason
  }
}
