/** A token and how long it may be used, in milliseconds from when the exchange completed. */
export type Token = { readonly value: string; readonly lifetimeMs: number }

// Registries that say less mean "short" and nothing exact; containers/image does the same (P-89).
const shortestSeconds = 60
// ECR gives 12 hours; a clock in the far future must not make a token immortal (T-60).
const longestSeconds = 24 * 3600

const printable = /^[\x21-\x7e]{1,32768}$/

/**
 * Reads a token answer: `token` or `access_token`, `expires_in` as a number or digits, at least 60 s, at most a day (P-89, F-74).
 * Undefined when there is no usable token in it.
 * https://distribution.github.io/distribution/spec/auth/token/
 */
export function parseToken(text: string): Token | undefined {
  const document = parseJson(text)
  if (typeof document !== 'object' || document === null) return undefined
  const value = [read(document, 'token'), read(document, 'access_token')].find(found => isToken(found))
  return isToken(value) ? { value, lifetimeMs: lifetimeSeconds(read(document, 'expires_in')) * 1000 } : undefined
}

function isToken(value: unknown): value is string {
  return typeof value === 'string' && printable.test(value)
}

function lifetimeSeconds(expiresIn: unknown): number {
  const seconds = typeof expiresIn === 'string' && /^\d{1,15}$/.test(expiresIn) ? Number(expiresIn) : expiresIn
  if (typeof seconds !== 'number' || !Number.isFinite(seconds)) return shortestSeconds
  return Math.min(Math.max(seconds, shortestSeconds), longestSeconds)
}

function read(document: object, key: string): unknown {
  return Object.hasOwn(document, key) ? Reflect.get(document, key) : undefined
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // The parser's message would quote the answer, which is a secret.
    return undefined
  }
}
