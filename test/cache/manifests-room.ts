import { createManifests, type Manifests, type TagSettings } from '../../src/cache/manifests.ts'
import { createRights, type ManifestRights } from '../../src/cache/rights.ts'
import { type ContentRejected, type Observer, silentObserver } from '../../src/log/observer.ts'
import type { Digest } from '../../src/oci/digest.ts'
import type { ParsedManifest } from '../../src/oci/manifest.ts'
import type { Questions } from '../../src/store/questions.ts'
import type { MetadataStore } from '../../src/store/stores.ts'
import { FakeClock } from '../fakes/clock.ts'
import { fakeImage, type ImageOptions, ociIndexType } from '../fakes/image.ts'
import { MemoryMetadata } from '../fakes/memory-metadata.ts'
import { type ScriptedManifest, ScriptedUpstream } from '../fakes/scripted-upstream.ts'

export const ttlMs = 60_000
export const maxStaleMs = 3_600_000

export type Room = {
  readonly clock: FakeClock
  readonly upstream: ScriptedUpstream
  readonly metadata: MemoryMetadata
  readonly manifests: Manifests
  readonly rights: ManifestRights
  /** Digests of blobs that are in the blob store. */
  readonly stored: Set<Digest>
  readonly announced: { readonly repository: string; readonly parsed: ParsedManifest; readonly digest: Digest }[]
  readonly observed: { readonly outcomes: string[]; readonly rejected: ContentRejected[]; readonly failures: string[] }
  /** The same stores and upstream in a new process. */
  restart(options?: RoomOptions): Room
}

export type RoomOptions = {
  readonly settings?: Partial<TagSettings>
  readonly offline?: boolean
  readonly memoryBytes?: number
  readonly others?: readonly ScriptedUpstream[]
  readonly sources?: number
  readonly store?: MetadataStore
  readonly questions?: Questions
  /** How long upstream's word on a repository is good; default: for ever. */
  readonly maxAgeMs?: number
}

/** Manifests and rights over an upstream and stores in memory, for what depends on the order of events. */
export function manifestsRoom(options: RoomOptions = {}): Room {
  return roomOver(
    {
      clock: new FakeClock(),
      upstream: new ScriptedUpstream('docker.io', options.sources ?? 1),
      metadata: new MemoryMetadata(),
      stored: new Set<Digest>(),
    },
    options,
  )
}

type Kept = Pick<Room, 'clock' | 'upstream' | 'metadata' | 'stored'>

function roomOver(kept: Kept, options: RoomOptions): Room {
  const { clock, upstream, metadata, stored } = kept
  const announced: Room['announced'] = []
  const observed: Room['observed'] = { outcomes: [], rejected: [], failures: [] }
  const observer: Observer = {
    ...silentObserver,
    upstreamRequest: ({ outcome }) => void observed.outcomes.push(outcome),
    contentRejected: event => void observed.rejected.push(event),
    storeFailed: operation => void observed.failures.push(operation),
  }
  const upstreams = new Map([upstream, ...(options.others ?? [])].map(each => [each.name, each]))
  const blobs = { size: async (digest: Digest) => (stored.has(digest) ? 1 : undefined) }
  const offline = options.offline ?? false
  const store = options.store ?? metadata
  const rights = createRights({
    upstreams,
    metadata: store,
    observer,
    offline,
    clock,
    maxAgeMs: () => options.maxAgeMs,
  })
  const manifests = createManifests({
    upstreams,
    settings: () => ({ tagTtlMs: ttlMs, maxStaleMs, whenGone: 'deny', ...options.settings }),
    metadata: store,
    blobs,
    rights,
    questions: options.questions,
    clock,
    observer,
    onServed: (target, parsed, record) =>
      void announced.push({ repository: target.repository, parsed, digest: record.digest }),
    random: () => 0.5,
    offline,
    ...(options.memoryBytes !== undefined && { memoryBytes: options.memoryBytes }),
  })
  return {
    ...kept,
    manifests,
    rights,
    announced,
    observed,
    restart: again => roomOver(kept, again ?? options),
  }
}

/** An image manifest, and the digests of its blobs. */
export function image(seed: number | string, options: ImageOptions = {}): ScriptedManifest & { blobs: Digest[] } {
  const made = fakeImage({ layers: 2, layerBytes: 16, ...options, seed })
  return {
    bytes: made.manifestBytes,
    mediaType: made.mediaType,
    blobs: [made.config.digest, ...made.layers.map(layer => layer.digest)],
  }
}

export function index(children: readonly { digest: Digest; size: number }[]): ScriptedManifest {
  const manifests = children.map(child => ({ mediaType: image(1).mediaType, ...child }))
  return document({ schemaVersion: 2, mediaType: ociIndexType, manifests }, ociIndexType)
}

export function document(content: object | string, mediaType: string | undefined): ScriptedManifest {
  return { bytes: Buffer.from(typeof content === 'string' ? content : JSON.stringify(content)), mediaType }
}
