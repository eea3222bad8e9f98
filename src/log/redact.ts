const secretName =
  /^(?:authorization|proxy-?authorization|(?:set-)?cookie|www-authenticate|.*(?:password|passwd|secret|token|credential|signature).*|x-amz-.*|x-goog-.*)$/i
const urlInText = /\b(?:https?|wss?|s3|redis|rediss|socks5?):\/\/[^\s"'<>`\\]+/gi
const userInfo = /:\/\/[^\s/?#]*@/g
/** `Authorization: Basic …` and what a registry answers with: one word after the scheme, of the characters of RFC 7235 token68. */
const authScheme = /\b(basic|bearer)\s+[\w.~+/-]{6,}=*/gi
const assignment =
  /\b([\w-]*(?:password|passwd|secret|token|signature|credential|x-amz-[\w-]+|x-goog-[\w-]+)|sig|authorization|(?:set-)?cookie)("?\s*[=:]\s*"?)((?:basic|bearer)\s+)?[^\s"'&,;}]+/gi
/** A JSON web token, wherever it stands. */
const jwt = /\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*/g
/** Every form above holds one of these: most of what is logged is looked at once and left alone. */
const mayHoldSecret =
  /:\/\/|eyJ|passw|secret|token|signature|credential|x-amz-|x-goog-|\bsig|authorization|cookie|basic|bearer/i
const maxText = 2048
const maxDepth = 6

/**
 * A URL that can be shown: without user name, password and fragment; a query becomes `?…`, because presigned URLs and token requests
 * carry their secrets there (T-10). Text that is no URL comes back through {@link redactText}.
 */
export function redactUrl(url: string | URL): string {
  const text = String(url)
  if (!URL.canParse(text)) return redactRelative(text)
  const parsed = new URL(text)
  const authority = parsed.host === '' ? parsed.protocol : `${parsed.protocol}//${parsed.host}`
  // The parser adds a slash where there was no path; what was written is what is shown.
  const path = parsed.pathname === '/' && !/^[^/]*\/\/[^/?#]*\//.test(text) ? '' : parsed.pathname
  return `${authority}${path}${parsed.search === '' ? '' : '?…'}`
}

/** A path keeps its path; a `//user:password@` that does not parse is cut as well. */
function redactRelative(text: string): string {
  const [path = '', ...query] = text.slice(0, maxText).split(/[?#]/)
  const shown = path.replaceAll(/\/\/[^/\s]*@/g, '//***@')
  return `${redactSecrets(shown)}${query.length === 0 ? '' : '?…'}`
}

/** Free text without the secrets that are known by their form: URLs' queries and user names, tokens, `password=…`, `X-Amz-…`. */
export function redactText(text: string): string {
  if (text.length <= maxText && !mayHoldSecret.test(text)) return text
  // User info first: a password may hold characters that end a URL in text.
  const shown = text.slice(0, maxText).replaceAll(userInfo, '://').replaceAll(urlInText, redactUrl)
  return redactSecrets(shown) + (text.length > maxText ? '…' : '')
}

function redactSecrets(text: string): string {
  return text
    .replaceAll(jwt, '***')
    .replaceAll(assignment, (whole: string, name: string, sign: string) =>
      isProse(whole, name, sign) ? whole : `${name}${sign}***`,
    )
    .replaceAll(authScheme, (_, scheme: string) => `${scheme} ***`)
}

/** `cannot get a token: connection refused` says what happened; `x-registry-token: 3f9a…` is a secret. */
function isProse(whole: string, name: string, sign: string): boolean {
  if (!/^(?:token|secret|credential|signature)$/i.test(name) || !/^:\s+$/.test(sign)) return false
  return /^[a-z]+$/i.test(whole.slice(name.length + sign.length))
}

/** The fields of a log line: values under names of secrets become `***`, text goes through {@link redactText}, errors become text. */
export function redactFields(fields: object): Record<string, unknown> {
  return redactEntries(fields, 0)
}

function redactEntries(fields: object, depth: number): Record<string, unknown> {
  const redacted: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue
    redacted[name] = isSecretName(name) && isTextLike(value) ? '***' : redactValue(value, depth)
  }
  return redacted
}

const knownNames = new Map<string, boolean>()
const maxKnownNames = 1_000

/** Field names are few and come again on every line. */
function isSecretName(name: string): boolean {
  const known = knownNames.get(name)
  if (known !== undefined) return known
  const secret = secretName.test(name)
  if (knownNames.size < maxKnownNames) knownNames.set(name, secret)
  return secret
}

/** Counts such as `tokens: 3` are no secrets. */
const isTextLike = (value: unknown): boolean =>
  typeof value === 'string' || (typeof value === 'object' && value !== null)

function redactValue(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return redactText(value)
  if (typeof value === 'bigint') return String(value)
  if (typeof value !== 'object' || value === null) return typeof value === 'function' ? undefined : value
  if (value instanceof Error) return describeError(value)
  if (value instanceof URL) return redactUrl(value)
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'invalid date' : value.toISOString()
  if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes`
  if (depth >= maxDepth) return '…'
  if (Array.isArray(value)) return value.slice(0, 100).map(item => redactValue(item, depth + 1))
  if (value instanceof Map) return redactEntries(Object.fromEntries(value), depth + 1)
  if (value instanceof Set) return [...value].slice(0, 100).map(item => redactValue(item, depth + 1))
  return redactEntries(value, depth + 1)
}

/**
 * An error and its causes as one line: `fill failed: caused by: connect ECONNREFUSED 10.0.0.1:443`. Without stacks; secrets and the
 * queries and user names of URLs are removed. For the log and the terminal, never for a client.
 */
export function describeError(error: unknown): string {
  const parts: string[] = []
  const seen = new Set<unknown>()
  let current = error
  while (current !== undefined && current !== null && !seen.has(current) && parts.length < 8) {
    seen.add(current)
    const part = describeOne(current)
    // A wrapper often repeats the message of its cause.
    if (!parts.some(previous => previous.endsWith(part))) parts.push(part)
    current = causeOf(current)
  }
  return parts.join(': caused by: ') || String(error)
}

function causeOf(error: unknown): unknown {
  if (error instanceof AggregateError && error.cause === undefined) return error.errors[0]
  return error instanceof Error ? error.cause : undefined
}

function describeOne(error: unknown): string {
  if (!(error instanceof Error)) return oneLine(typeof error === 'string' ? error : `thrown ${typeof error}`)
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  const message = error.message === '' ? error.name : error.message
  return oneLine(code === '' || message.includes(code) ? message : `${message} (${code})`)
}

const oneLine = (text: string): string => redactText(text.replaceAll(/[\u0000-\u001F\u007F\u2028\u2029]+/g, ' ').trim())
