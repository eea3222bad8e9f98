import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import { readFile } from 'node:fs/promises'

/** What replicas share to know each other. An object that shows nothing of its bytes when it is printed. */
export type ReplicaSecret = KeyObject

export type SignedRequest = { readonly method: string; readonly path: string; readonly range: string | undefined }

type SignOptions = { readonly secret: ReplicaSecret; readonly request: SignedRequest; readonly now: number }
type VerifyOptions = SignOptions & { readonly authorization: string | undefined }

const scheme = 'Layover-Replica'
/** How far the clocks of two replicas may be apart, either way. */
const skewMs = 60_000
const leastBytes = 16
/** What people write before they think of a secret (T-19). */
const placeholder =
  /^(?:change[-_ ]?(?:me|it|this).*|.*placeholder.*|(?:replica|layover)?[-_ ]?(?:secret|password|token)+[\d!]*|(.)\1+|x+|<.*>)$/i

/**
 * Reads the secret that all replicas share; white space around it is no part of it. Throws for a file that cannot be read, and for what is
 * empty, short or a placeholder: there is no default (T-19). Messages name the file, never what is in it.
 */
export async function readReplicaSecret(path: string): Promise<ReplicaSecret> {
  const text = (await readFile(path, 'utf8')).trim()
  if (text === '') throw new Error(`${path}: the secret of the replicas is empty; make one with: openssl rand -hex 32`)
  if (Buffer.byteLength(text) < leastBytes)
    throw new Error(`${path}: the secret of the replicas needs at least ${leastBytes} bytes`)
  if (placeholder.test(text)) throw new Error(`${path}: holds a placeholder, not a secret`)
  return createSecretKey(text, 'utf8')
}

/**
 * The Authorization header of one request between replicas. `now` is the wall clock, epoch milliseconds.
 * The secret itself never travels; a header that is seen on the way opens the same bytes again for as long as clocks may differ, and nothing else.
 */
export function signRequest({ secret, request, now }: SignOptions): string {
  return `${scheme} ${now}:${macOf(secret, request, now).toString('hex')}`
}

/** True when the header was made with our secret, for this very request, within a minute of our clock. Compared in constant time (T-18). */
export function isSigned({ secret, request, now, authorization }: VerifyOptions): boolean {
  const [, at, mac] = /^Layover-Replica (\d{1,15}):([0-9a-f]{64})$/.exec(authorization ?? '') ?? []
  if (at === undefined || mac === undefined) return false
  const signedAt = Number(at)
  const isRight = timingSafeEqual(Buffer.from(mac, 'hex'), macOf(secret, request, signedAt))
  return isRight && Math.abs(now - signedAt) <= skewMs
}

/**
 * What goes into a refusal: our clock, signed for that very request, so that another replica whose clock is elsewhere can sign for ours and is
 * not shut out (F-42). It opens nothing by itself, and only who has the secret can say it.
 */
export function tellClock({ secret, request, now }: SignOptions): string {
  return `${scheme} clock="${now}:${clockMacOf(secret, request, now).toString('hex')}"`
}

/** The clock that a refusal of this request told, epoch milliseconds; undefined when it was not made with our secret. */
export function toldClock({
  secret,
  request,
  challenge,
}: Omit<SignOptions, 'now'> & { readonly challenge: string | undefined }): number | undefined {
  const [, at, mac] = /^Layover-Replica clock="(\d{1,15}):([0-9a-f]{64})"$/.exec(challenge ?? '') ?? []
  if (at === undefined || mac === undefined) return undefined
  return timingSafeEqual(Buffer.from(mac, 'hex'), clockMacOf(secret, request, Number(at))) ? Number(at) : undefined
}

function clockMacOf(secret: ReplicaSecret, request: SignedRequest, at: number): Buffer {
  // No method holds a space, so what is said of a clock is no signature.
  return macOf(secret, { ...request, method: `clock ${request.method}` }, at)
}

function macOf(secret: ReplicaSecret, { method, path, range }: SignedRequest, at: number): Buffer {
  // No part can hold a line break, so the parts cannot run into each other.
  return createHmac('sha256', secret)
    .update([scheme, method, path, range ?? '', at].join('\n'))
    .digest()
}
