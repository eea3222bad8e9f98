import type { Observer } from '../log/observer.ts'
import type { Archive } from './archive.ts'
import {
  digestOfManifestKey,
  linkOfKey,
  linkPrefix,
  manifestKey,
  manifestPrefix,
  tagObjectKey,
  tagOfKey,
  tagPrefix,
} from './archive-keys.ts'
import { namedBy, readManifestObject, readTagObject } from './archive-records.ts'
import type { MetadataStore } from './stores.ts'

export type ReindexOptions = {
  readonly archive: Archive
  /** What is filled. Not one with an archive behind. */
  readonly metadata: MetadataStore
  readonly observer: Observer
  /** A key as `onProgress` gave it: what comes before is done. */
  readonly after?: string | undefined
  /** Told after each page. */
  readonly onProgress: (progress: ReindexProgress) => void
  /** False: what was put may be lost, stop. */
  readonly isUp: () => boolean
  readonly pageSize?: number
}

export type ReindexProgress = {
  readonly stage: ReindexStage
  /** The last key that is done, with all before it. */
  readonly after: string
  readonly restored: number
  /** What the store has already, as good or newer. */
  readonly kept: number
  /** Objects that are not what they should be, and keys of others. */
  readonly ignored: number
}

/** In this order: a tag comes back when what it names is there (F-65). */
const stages = ['manifests', 'links', 'tags'] as const
export type ReindexStage = (typeof stages)[number]

type Outcome = 'restored' | 'kept' | 'ignored'
type Context = Pick<ReindexOptions, 'archive' | 'metadata' | 'observer'>

const parallel = 8

/**
 * Walks the archive and puts back what the store does not have. Running it again changes nothing, also while replicas serve.
 * Rejects when the archive or the store fails; what was told as done need not be done again.
 */
export async function reindex(options: ReindexOptions): Promise<void> {
  const first = options.after === undefined ? 0 : stageOf(options.after)
  for (const stage of stages.slice(first)) await walk(stage, options)
}

/** True when `reindex` can go on after it. */
export function isReindexKey(key: string): boolean {
  return stages.some(stage => key.startsWith(rooms[stage].prefix))
}

function stageOf(key: string): number {
  return stages.findIndex(stage => key.startsWith(rooms[stage].prefix))
}

async function walk(stage: ReindexStage, options: ReindexOptions): Promise<void> {
  const { prefix, restore } = rooms[stage]
  const counts = { restored: 0, kept: 0, ignored: 0 }
  let after = options.after?.startsWith(prefix) === true ? options.after : undefined
  for (;;) {
    const keys = await options.archive.list({ prefix, after, limit: options.pageSize ?? 1000 })
    const last = keys.at(-1)
    if (last === undefined) return
    for (const outcome of await all(keys, key => restore(key, options))) counts[outcome] += 1
    if (!options.isUp()) throw new Error('the store that is to be filled went away')
    after = last
    options.onProgress({ stage, after, ...counts })
  }
}

/** A few at a time. */
async function all(keys: readonly string[], work: (key: string) => Promise<Outcome>): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = []
  const left = keys.values()
  const worker = async (): Promise<void> => {
    for (const key of left) outcomes.push(await work(key))
  }
  await Promise.all(Array.from({ length: parallel }, worker))
  return outcomes
}

async function restoreManifest(key: string, context: Context): Promise<Outcome> {
  const digest = digestOfManifestKey(key)
  if (digest === undefined) return 'ignored'
  if (await context.metadata.getManifest(digest)) return 'kept'
  const object = await context.archive.get(manifestKey(digest))
  // It was deleted meanwhile.
  if (!object) return 'kept'
  const record = readManifestObject(digest, object)
  if (!record) return corrupt(key, context)
  await context.metadata.putManifest(record)
  return 'restored'
}

async function restoreLink(key: string, { metadata }: Context): Promise<Outcome> {
  const link = linkOfKey(key)
  if (!link) return 'ignored'
  const { upstream, repository, digest } = link
  if ((await metadata.getLink(upstream, repository, digest)) === 'confirmed') return 'kept'
  const manifest = await metadata.getManifest(digest)
  const named = manifest ? namedBy(manifest) : []
  if (named.length > 0) await metadata.putLinks(upstream, repository, named, 'named')
  // Last: what is confirmed counts as done when this is run again.
  await metadata.putLinks(upstream, repository, [digest], 'confirmed')
  return 'restored'
}

async function restoreTag(key: string, context: Context): Promise<Outcome> {
  const tag = tagOfKey(key)
  const name = tag && tagObjectKey(tag)
  if (!tag || name === undefined) return 'ignored'
  const object = await context.archive.get(name)
  if (!object) return 'kept'
  const record = readTagObject(object)
  if (!record) return corrupt(key, context)
  const known = await context.metadata.getTag(tag)
  if (known && known.checkedAt >= record.checkedAt) return 'kept'
  await context.metadata.putTag(tag, record)
  return 'restored'
}

function corrupt(key: string, { observer }: Context): Outcome {
  observer.storeFailed('archive.corrupt', new Error(`${key} in the archive is not what it should be: it is ignored`))
  return 'ignored'
}

const rooms: Readonly<
  Record<ReindexStage, { prefix: string; restore: (key: string, context: Context) => Promise<Outcome> }>
> = {
  manifests: { prefix: manifestPrefix, restore: restoreManifest },
  links: { prefix: linkPrefix, restore: restoreLink },
  tags: { prefix: tagPrefix, restore: restoreTag },
}
