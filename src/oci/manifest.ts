import {
  type Descriptor,
  field,
  isJsonObject,
  type JsonObject,
  readAnnotations,
  readDescriptor,
  stringField,
} from './descriptor.ts'
import { scanJson } from './json-scan.ts'
import {
  bareMediaType,
  isImageManifest,
  isIndex,
  isManifestMediaType,
  isSchema1,
  ociArtifactManifest,
  ociIndex,
  ociManifest,
  octetStream,
} from './media-types.ts'

export type { Descriptor } from './descriptor.ts'

export type ManifestKind = 'index' | 'image' | 'other'

/** What we need to know of a manifest. Never served: the bytes are. */
export type ParsedManifest = {
  readonly mediaType: string
  readonly kind: ManifestKind
  readonly config: Descriptor | undefined
  /** Layers of an image, `blobs` of an artifact manifest. Descriptors that are invalid are left out. */
  readonly layers: readonly Descriptor[]
  /** Children of an index. Descriptors that are invalid are left out. */
  readonly manifests: readonly Descriptor[]
  readonly subject: Descriptor | undefined
  readonly artifactType: string | undefined
  readonly annotations: ReadonlyMap<string, string> | undefined
  /** true: it names more than we follow; the lists are cut, the manifest is relayed whole (T-42). */
  readonly truncated: boolean
}

/**
 * Why bytes are not accepted as a manifest.
 * - `syntax`: not JSON, not an object, or nested too deep (an HTML page is this too)
 * - `error_body`: an error document with status 200 (F-31)
 * - `schema_1`: the format whose digest does not cover its bytes (P-36)
 * - `media_type`: a type no manifest has
 * - `media_type_mismatch`: the body says another type than the Content-Type (P-34)
 * - `ambiguous`: an index and an image at once, or keys that parsers read differently (T-17, T-54)
 * - `structure`: neither an index nor an image
 */
export type ManifestRefusal =
  | 'syntax'
  | 'error_body'
  | 'schema_1'
  | 'media_type'
  | 'media_type_mismatch'
  | 'ambiguous'
  | 'structure'

export class ManifestRefused extends Error {
  override readonly name = 'ManifestRefused'
  readonly reason: ManifestRefusal

  constructor(reason: ManifestRefusal, message: string, options: { cause?: unknown } = {}) {
    super(message, options)
    this.reason = reason
  }
}

/** Real manifests nest about five deep. */
const maxDepth = 64
/** How many descriptors of a list are followed. */
const maxDescriptors = 4096
/** Keys that decide what a document is. */
const decidingKeys = ['mediaType', 'manifests', 'layers', 'config']
/** What servers say when they do not know (P-35). */
const genericTypes = new Set(['text/plain', 'application/json', octetStream, 'binary/octet-stream'])

/**
 * Reads a manifest. `contentType` is the header as upstream sent it. Throws {@link ManifestRefused}.
 * The size of `bytes` is the caller's to limit; the time taken is linear in it.
 * https://github.com/opencontainers/image-spec/blob/main/manifest.md, image-index.md; CVE-2021-41190
 */
export function readManifest(bytes: Uint8Array, contentType: string | undefined): ParsedManifest {
  const document = parseDocument(bytes)
  refuseErrorBody(document)
  const mediaType = decideMediaType(document, bareMediaType(contentType))
  const kind = decideKind(document, mediaType)
  const layers = field(document, 'layers') ?? (kind === 'other' ? field(document, 'blobs') : undefined)
  const manifests = field(document, 'manifests')
  return {
    mediaType,
    kind,
    config: readDescriptor(field(document, 'config')),
    layers: readDescriptors(layers),
    manifests: readDescriptors(manifests),
    subject: readDescriptor(field(document, 'subject')),
    artifactType: stringField(document, 'artifactType'),
    annotations: readAnnotations(field(document, 'annotations')),
    truncated: [layers, manifests].some(list => Array.isArray(list) && list.length > maxDescriptors),
  }
}

/** The config and the layers that a registry holds; layers that live elsewhere are not ours to fetch (P-68). */
export function describedBlobs(parsed: ParsedManifest): Descriptor[] {
  return [...(parsed.config ? [parsed.config] : []), ...parsed.layers].filter(isHeldByRegistry)
}

function isHeldByRegistry(descriptor: Descriptor): boolean {
  return descriptor.urls === undefined && !/\.nondistributable\.|\.foreign\./.test(descriptor.mediaType)
}

function parseDocument(bytes: Uint8Array): JsonObject {
  // A byte order mark is skipped here and kept in what is served (P-29).
  const text = new TextDecoder().decode(bytes)
  const scan = scanJson(text, maxDepth)
  if (!scan)
    throw new ManifestRefused(
      'syntax',
      `it nests deeper than ${maxDepth} levels, or has more keys, strings or objects than any manifest`,
    )
  const document = parseJson(text)
  if (!isJsonObject(document)) throw new ManifestRefused('syntax', 'it is not a JSON object')
  refuseUnclearKeys(scan.topLevelKeys)
  return document
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new ManifestRefused('syntax', 'it is not JSON', { cause })
  }
}

/** Of two equal keys some parsers take the first, some the last; Go's also takes `Layers` and `layerſ` for `layers`. */
function refuseUnclearKeys(keys: readonly string[]): void {
  for (const wanted of decidingKeys) {
    const alike = keys.filter(key => fold(key) === fold(wanted))
    if (alike.length > 1) throw new ManifestRefused('ambiguous', `the key ${wanted} occurs more than once`)
    if (alike.length === 1 && alike[0] !== wanted)
      throw new ManifestRefused('ambiguous', `the key ${wanted} is spelled in another way`)
  }
}

function fold(key: string): string {
  return key.toUpperCase().toLowerCase()
}

function refuseErrorBody(document: JsonObject): void {
  const isManifest = ['manifests', 'layers', 'config', 'blobs'].some(key => field(document, key) !== undefined)
  if (field(document, 'errors') !== undefined && !isManifest)
    throw new ManifestRefused('error_body', 'it is an error document')
}

function decideMediaType(document: JsonObject, header: string | undefined): string {
  const inBody = field(document, 'mediaType')
  if (inBody !== undefined && typeof inBody !== 'string')
    throw new ManifestRefused('media_type', 'its mediaType is not a string')
  const declared = bareMediaType(inBody)
  const sent = header !== undefined && genericTypes.has(header) ? undefined : header
  if ([declared, sent].some(type => type !== undefined && isSchema1(type)) || field(document, 'schemaVersion') === 1)
    throw new ManifestRefused(
      'schema_1',
      'schema 1 manifests are not supported: their digest does not cover their bytes',
    )
  if (declared !== undefined && sent !== undefined && declared !== sent)
    throw new ManifestRefused('media_type_mismatch', 'its mediaType differs from its Content-Type')
  const mediaType = declared ?? sent ?? mediaTypeOfStructure(document)
  if (!isManifestMediaType(mediaType))
    throw new ManifestRefused('media_type', 'its media type is not one of a manifest')
  return mediaType
}

function mediaTypeOfStructure(document: JsonObject): string {
  return structureOf(document) === 'index' ? ociIndex : ociManifest
}

function decideKind(document: JsonObject, mediaType: string): ManifestKind {
  const structure = structureOf(document)
  if (mediaType === ociArtifactManifest && structure === undefined) return 'other'
  if (structure === undefined) throw new ManifestRefused('structure', 'it is neither an index nor an image manifest')
  const claimed = isIndex(mediaType) ? 'index' : isImageManifest(mediaType) ? 'image' : structure
  if (claimed !== structure) throw new ManifestRefused('ambiguous', 'its content is not what its media type says')
  return structure
}

function structureOf(document: JsonObject): 'index' | 'image' | undefined {
  const manifests = listOf(document, 'manifests')
  const layers = listOf(document, 'layers')
  const config = field(document, 'config')
  if (config !== undefined && !isJsonObject(config))
    throw new ManifestRefused('structure', 'its config is not an object')
  const image = layers || config !== undefined
  if (manifests && image) throw new ManifestRefused('ambiguous', 'it is an index and an image manifest at once')
  return manifests ? 'index' : image ? 'image' : undefined
}

/** True when the document has the list. An index of nothing may say `null`: Go writes its nil slices so. */
function listOf(document: JsonObject, key: 'manifests' | 'layers'): boolean {
  const value = field(document, key)
  if (value !== undefined && !Array.isArray(value)) throw new ManifestRefused('structure', `its ${key} are not a list`)
  return value !== undefined || (key === 'manifests' && isNullIndex(document))
}

function isNullIndex(document: JsonObject): boolean {
  return (
    Object.hasOwn(document, 'manifests') &&
    field(document, 'layers') === undefined &&
    field(document, 'config') === undefined
  )
}

function readDescriptors(list: unknown): readonly Descriptor[] {
  if (!Array.isArray(list)) return []
  return list
    .slice(0, maxDescriptors)
    .map(readDescriptor)
    .filter(descriptor => descriptor !== undefined)
}
