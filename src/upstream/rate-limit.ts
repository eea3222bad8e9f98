/** Requests that are allowed and left in the current window, as far as they were said. */
export type RateLimit = { readonly limit?: number; readonly remaining?: number }

/**
 * Reads `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`, as Docker Hub sends them (P-101).
 * Undefined when neither is there.
 * https://docs.docker.com/docker-hub/usage/pulls/
 */
export function parseRateLimit(limit: string | undefined, remaining: string | undefined): RateLimit | undefined {
  const allowed = leadingNumber(limit)
  const left = leadingNumber(remaining)
  if (allowed === undefined && left === undefined) return undefined
  return { ...(allowed === undefined ? {} : { limit: allowed }), ...(left === undefined ? {} : { remaining: left }) }
}

function leadingNumber(text: string | undefined): number | undefined {
  const digits = /^\s*(\d{1,12})(?:\s*[;,]|\s*$)/.exec(text ?? '')?.[1]
  return digits === undefined ? undefined : Number(digits)
}
