import * as z from 'zod'
import { isImageHost, isRegistryHost, parseAddress } from './address.ts'
import type { Address } from './config.ts'
import { type Network, parseNetwork } from './network.ts'
import { durationPattern, formatDuration, parseDuration } from './duration.ts'
import { shownValue } from './problem.ts'
import { formatSize, parseSize, sizePattern } from './size.ts'

/** Reports what is wrong; `index` is the place in a list. Always undefined, so that a parser can return it. */
type Complain = (message: string, index?: number) => undefined
type JsonSchema = Readonly<Record<string, unknown>>

/** One setting: how it looks in the JSON Schema, and how its value is read. */
function value<T>(json: JsonSchema, read: (input: unknown, complain: Complain) => T | undefined) {
  return z
    .unknown()
    .transform((input, context): T => {
      const complain: Complain = (message, index) => {
        context.addIssue({ code: 'custom', message, ...(index === undefined ? {} : { path: [index] }) })
        return undefined
      }
      return read(input, complain) ?? z.NEVER
    })
    .meta(json)
}

const expected = (what: string, input: unknown): string => `expected ${what}, got ${shownValue(input)}`

export const text = (description: string) =>
  value({ type: 'string', minLength: 1, description }, (input, complain) =>
    typeof input === 'string' && input !== '' ? input : complain(expected('text', input)),
  )

/** Text in front of names of keys. In braces stands what decides the slot in a Redis Cluster, and that is not the prefix's to say. */
export const keyPrefix = (description: string) =>
  value({ type: 'string', minLength: 1, pattern: '^[^{}]+$', description }, (input, complain) => {
    if (typeof input !== 'string' || input === '') return complain(expected('text', input))
    return /[{}]/.test(input)
      ? complain(expected('text without braces, which Redis Cluster gives a meaning', input))
      : input
  })

/** Text that is never shown: not in messages, not by `config show`. */
export const secret = (description: string) =>
  value({ type: 'string', minLength: 1, description }, (input, complain) => {
    if (typeof input === 'string' && input !== '') return input
    if (input === '') return complain('expected text, got nothing')
    return complain('expected text: put the value in quotes')
  })

export const flag = (description: string) =>
  value({ type: 'boolean', description }, (input, complain) =>
    typeof input === 'boolean' ? input : complain(expected('true or false', input)),
  )

export const oneOf = <const T extends string>(words: readonly T[], description: string) =>
  value({ type: 'string', enum: words, description }, (input, complain) => {
    const word = words.find(candidate => candidate === input)
    return word ?? complain(expected(`one of ${words.join(', ')}`, input))
  })

export const count = (description: string, limits: { min: number; max: number }) =>
  value({ type: 'integer', minimum: limits.min, maximum: limits.max, description }, (input, complain) =>
    typeof input === 'number' && Number.isInteger(input) && input >= limits.min && input <= limits.max
      ? input
      : complain(expected(`a whole number from ${limits.min} to ${limits.max}`, input)),
  )

/** Timers of Node count milliseconds in 31 bits: longer ones would fire at once. */
const longestTimerMs = 24 * 86_400_000

/** Gives milliseconds. `min`: the smallest that makes sense; `timer`: it is waited for, so it is bounded to 24 days. */
export const duration = (description: string, options: { min: number; timer: boolean }) =>
  value({ type: 'string', pattern: durationPattern, description }, (input, complain) => {
    const parsed = typeof input === 'string' ? parseDuration(input) : undefined
    if (parsed === undefined) return complain(expected('a duration such as 30s, 5m, 24h or 7d', input))
    if (parsed < options.min) return complain(expected(`at least ${formatDuration(options.min)}`, input))
    if (options.timer && parsed > longestTimerMs) return complain(expected('at most 24d', input))
    return parsed
  })

/** Gives bytes. */
export const size = (description: string, options: { min: number; max?: number }) =>
  value({ type: ['string', 'integer'], pattern: sizePattern, minimum: options.min, description }, (input, complain) => {
    const parsed = typeof input === 'string' || typeof input === 'number' ? parseSize(String(input)) : undefined
    if (parsed === undefined) return complain(expected('a size such as 50GiB, 512MB or 1024 (bytes)', input))
    if (options.max !== undefined && parsed > options.max)
      return complain(expected(`at most ${formatSize(options.max)}`, input))
    return parsed >= options.min ? parsed : complain(expected(`at least ${options.min} byte`, input))
  })

/** Gives a share from 0 to 1. */
export const share = (description: string) =>
  value(
    { type: ['string', 'number'], pattern: '^[0-9]{1,3}(\\.[0-9]+)?%$', minimum: 0, maximum: 1, description },
    (input, complain) => {
      const [, percent] = (typeof input === 'string' && /^(\d{1,3}(?:\.\d+)?)%$/.exec(input)) || []
      const parsed =
        percent === undefined
          ? Number(typeof input === 'boolean' ? Number.NaN : (input ?? Number.NaN))
          : Number(percent) / 100
      return parsed >= 0 && parsed <= 1 && input !== '' && !Array.isArray(input)
        ? parsed
        : complain(expected('a share such as 50% or 0.5', input))
    },
  )

export const address = (description: string) =>
  value<Address>({ type: 'string', pattern: ':[0-9]{1,5}$', description }, (input, complain) => {
    const parsed = typeof input === 'string' ? parseAddress(input) : undefined
    return parsed ?? complain(expected('an address such as 127.0.0.1:5000, :5000 or [::1]:5000', input))
  })

/** Gives the URL without a slash at its end. Anything that could be a secret in it is refused without being shown. */
export const url = (description: string) =>
  value({ type: 'string', pattern: '^https?://', description }, readUpstreamUrl)

export const urls = (description: string) =>
  value({ type: 'array', items: { type: 'string', pattern: '^https?://' }, description }, (input, complain) =>
    readList(input, complain, 'URLs', readUpstreamUrl),
  )

function readUpstreamUrl(input: unknown, complain: Complain, index?: number): string | undefined {
  const parsed = typeof input === 'string' && URL.canParse(input) ? new URL(input) : undefined
  if (parsed === undefined) return complain(`expected a URL such as https://registry.example.com`, index)
  if (parsed.protocol !== 'https:' && parsed.protocol !== 'http:')
    return complain(`expected a URL that starts with https://`, index)
  if (parsed.username !== '' || parsed.password !== '')
    return complain('a URL holds no user name or password here: use username and passwordFile', index)
  if (parsed.search !== '' || parsed.hash !== '') return complain('a URL holds no ? or # part here', index)
  const path = parsed.pathname.replace(/\/+$/, '')
  if (path.endsWith('/v2')) return complain('leave out /v2 at the end: it is added', index)
  return `${parsed.origin}${path}`
}

/** The outgoing proxy may hold a user name and a password; so its value is never shown. */
export const proxyUrl = (description: string) =>
  value({ type: 'string', pattern: '^https?://', description }, (input, complain) => {
    const parsed = typeof input === 'string' && URL.canParse(input) ? new URL(input) : undefined
    if (parsed?.protocol === 'http:' || parsed?.protocol === 'https:') return parsed.href.replace(/\/$/, '')
    return complain('expected the URL of an HTTP proxy such as http://proxy.example.com:3128')
  })

/** Gives the URL as it is written. A password in it is refused without being shown. */
export const redisUrl = (description: string) =>
  value({ type: 'string', pattern: '^rediss?://', description }, (input, complain) => {
    const parsed = typeof input === 'string' && URL.canParse(input) ? new URL(input) : undefined
    if (parsed?.protocol !== 'redis:' && parsed?.protocol !== 'rediss:')
      return complain('expected a URL such as redis://redis.example.com:6379/0, or rediss:// for TLS')
    if (parsed.username !== '' || parsed.password !== '')
      return complain('a URL holds no user name or password here: use username and passwordFile')
    if (!/^\/?\d{0,5}$/.test(parsed.pathname) || parsed.search !== '' || parsed.hash !== '')
      return complain('after the address only the number of the database can stand, such as /0')
    return parsed.href
  })

/** `http://host:port`, without a path. */
export const originUrl = (description: string) =>
  value({ type: 'string', pattern: '^https?://', description }, (input, complain) => {
    const read = readUpstreamUrl(input, complain)
    if (read === undefined || read === new URL(read).origin) return read
    return complain('expected a URL without a path, such as http://10.0.0.5:5002')
  })

export const addresses = (description: string) =>
  value<readonly Address[]>({ type: 'array', items: { type: 'string' }, description }, (input, complain) =>
    readList(
      input,
      complain,
      'addresses',
      (item, report, index) =>
        (typeof item === 'string' ? parseAddress(item) : undefined) ??
        report(expected('an address such as redis-1.example.com:6379', item), index),
    ),
  )

export const networks = (description: string) =>
  value<readonly Network[]>({ type: 'array', items: { type: 'string' }, description }, (input, complain) =>
    readList(
      input,
      complain,
      'networks',
      (item, report, index) =>
        (typeof item === 'string' ? parseNetwork(item) : undefined) ??
        report(expected('a network such as 10.0.0.0/8 or fd00::/8', item), index),
    ),
  )

/** Gives a record of what is written as `key=value`. */
export const tags = (description: string) =>
  value<Readonly<Record<string, string>>>(
    { type: 'array', items: { type: 'string', pattern: '^[^=]+=' }, maxItems: maxTags, description },
    (input, complain) => {
      const pairs = readList(input, complain, 'tags', readTag)
      if (pairs === undefined) return undefined
      return pairs.length <= maxTags ? Object.fromEntries(pairs) : complain(`expected at most ${maxTags} tags`)
    },
  )

/** What AWS allows on an object. https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html */
const maxTags = 10

function readTag(item: unknown, complain: Complain, index: number): readonly [string, string] | undefined {
  const [, key, content] = (typeof item === 'string' && /^([^=]{1,128})=(.{0,256})$/.exec(item)) || []
  return key === undefined || content === undefined
    ? complain(expected('a tag such as team=platform', item), index)
    : [key, content]
}

export const hosts = (description: string) =>
  value({ type: 'array', items: { type: 'string' }, description }, (input, complain) =>
    readList(input, complain, 'host names', (item, report, index) =>
      typeof item === 'string' && isRegistryHost(item)
        ? item
        : report(expected('a host in lower case such as auth.example.com or 10.0.0.5:9000', item), index),
    ),
  )

export const aliases = (description: string) =>
  value({ type: 'array', items: { type: 'string' }, description }, (input, complain) =>
    readList(input, complain, 'host names', (item, report, index) =>
      typeof item === 'string' && isImageHost(item)
        ? item
        : report(expected('a registry host as in image names, such as registry.example.com', item), index),
    ),
  )

function readList<T>(
  input: unknown,
  complain: Complain,
  what: string,
  read: (item: unknown, complain: Complain, index: number) => T | undefined,
): readonly T[] | undefined {
  if (!Array.isArray(input)) return complain(expected(`a list of ${what}`, input))
  const items = input.map((item, index) => read(item, complain, index))
  return items.filter((item): item is Awaited<T> & T => item !== undefined)
}
