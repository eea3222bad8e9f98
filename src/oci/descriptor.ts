import { type Digest, isDigest } from './digest.ts'
import { octetStream } from './media-types.ts'

/**
 * A reference to content, read from a manifest for our own use; what is relayed are always the manifest's bytes.
 * https://github.com/opencontainers/image-spec/blob/main/descriptor.md
 */
export type Descriptor = {
  readonly mediaType: string
  readonly digest: Digest
  /** Bytes. */
  readonly size: number
  /** Where else the content is said to be. Never fetched (P-68). */
  readonly urls?: readonly string[]
  readonly artifactType?: string
  readonly annotations?: ReadonlyMap<string, string>
  readonly platform?: Platform
}

export type Platform = { readonly os: string; readonly architecture: string; readonly variant?: string }

/** A JSON object of unknown content. Read by {@link field} only: its own `__proto__` key must stay a key (T-53). */
export type JsonObject = Readonly<Record<string, unknown>>

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** An own property, or undefined; JSON's null counts as absent, as Go's clients read it. */
export function field(object: JsonObject, key: string): unknown {
  return Object.hasOwn(object, key) ? (object[key] ?? undefined) : undefined
}

export function stringField(object: JsonObject, key: string): string | undefined {
  const value = field(object, key)
  return typeof value === 'string' ? value : undefined
}

/** Reads a descriptor; undefined when its digest or size cannot be relied upon. */
export function readDescriptor(value: unknown): Descriptor | undefined {
  if (!isJsonObject(value)) return undefined
  const digest = stringField(value, 'digest')
  const size = field(value, 'size')
  if (digest === undefined || !isDigest(digest)) return undefined
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return undefined
  const urls = readUrls(field(value, 'urls'))
  const artifactType = stringField(value, 'artifactType')
  const annotations = readAnnotations(field(value, 'annotations'))
  const platform = readPlatform(field(value, 'platform'))
  return {
    mediaType: stringField(value, 'mediaType') ?? octetStream,
    digest,
    size,
    ...(urls && { urls }),
    ...(artifactType !== undefined && { artifactType }),
    ...(annotations && { annotations }),
    ...(platform && { platform }),
  }
}

/** More is nobody's annotation; what is relayed has them all (T-42). */
const maxAnnotations = 4096

/** String annotations as a Map, because their keys are anyone's words. */
export function readAnnotations(value: unknown): ReadonlyMap<string, string> | undefined {
  if (!isJsonObject(value)) return undefined
  const annotations = new Map<string, string>()
  for (const key in value) {
    const text = stringField(value, key)
    if (text !== undefined) annotations.set(key, text)
    if (annotations.size >= maxAnnotations) break
  }
  return annotations
}

function readUrls(value: unknown): readonly string[] | undefined {
  if (!Array.isArray(value)) return undefined
  const urls = value.filter(url => typeof url === 'string')
  return urls.length > 0 ? urls : undefined
}

function readPlatform(value: unknown): Platform | undefined {
  if (!isJsonObject(value)) return undefined
  const os = stringField(value, 'os')
  const architecture = stringField(value, 'architecture')
  const variant = stringField(value, 'variant')
  if (os === undefined || architecture === undefined) return undefined
  return { os, architecture, ...(variant !== undefined && { variant }) }
}
