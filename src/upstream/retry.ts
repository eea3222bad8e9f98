import { setTimeout as sleep } from 'node:timers/promises'
import { UpstreamError } from './upstream.ts'

const maxRetries = 2

/**
 * Repeats small requests up to twice when upstream failed in passing: 5xx without Retry-After, a reset or cut connection (F-12).
 * Timeouts are not repeated, because a client waits. The pause is 50–150 ms, then 100–300 ms.
 */
export async function withRetries<Result>(
  attempt: (retries: number) => Promise<Result>,
  signal: AbortSignal | undefined,
): Promise<Result> {
  for (let retries = 0; ; retries++) {
    try {
      return await attempt(retries)
    } catch (error) {
      if (retries >= maxRetries || !isPassing(error)) throw error
    }
    const pauseMs = (50 + Math.random() * 100) * 2 ** retries
    await sleep(pauseMs, undefined, signal === undefined ? {} : { signal }).catch(() => signal?.throwIfAborted())
  }
}

function isPassing(error: unknown): boolean {
  if (!(error instanceof UpstreamError) || error.failure !== 'unavailable' || error.retryAfterMs !== undefined)
    return false
  return /^(?:redirect_)?(?:http_5\d\d|reset|truncated)$/.test(error.reason)
}
