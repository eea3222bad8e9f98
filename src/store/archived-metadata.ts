import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { Observer } from '../log/observer.ts'
import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts'
import type { Archive, ArchivedObject } from './archive.ts'
import { linkKey, linkOfKey, linksPrefix, manifestKey, tagObjectKey, tagOfKey, tagsPrefix } from './archive-keys.ts'
import { ArchiveQueue } from './archive-queue.ts'
import { linkObject, manifestObject, namedBy, readManifestObject, readTagObject, tagObject } from './archive-records.ts'
import { S3Error } from './s3-error.ts'
import type { Link, ManifestRecord, MetadataStore, StoredDocument, TagKey, TagRecord } from './stores.ts'

export type ArchivedMetadataOptions = {
  readonly metadata: MetadataStore
  readonly archive: Archive
  readonly clock: Clock
  readonly observer: Observer
  readonly maxPending?: number
  readonly maxPendingBytes?: number
  readonly pauses?: { readonly firstMs: number; readonly longestMs: number }
  /** How long `close` waits for what still has to be written. */
  readonly closeMs?: number
}

export type ArchivedMetadataStore = MetadataStore & {
  /** Objects that wait to be written. */
  pending(): number
  /** Resolves when nothing waits. */
  idle(): Promise<void>
}

/** A new name costs one request to the archive in this time, however often it is asked for. */
const absentMs = 10_000
/** How long it is believed that an object is still there. */
const settledMs = 24 * 60 * 60_000
/** A tag that stays what it was is checked upstream every minute; the archive is told every hour. */
const tagRefreshMs = 60 * 60_000
const remembered = 65_536
/** Lists of tags are asked for when upstream cannot answer; then by everybody. */
const listMs = 30_000
const maxTagNames = 10_000
const pageSize = 1000

/**
 * Records whose manifests, tags and confirmed links rest in an archive as well, so that the store in front may lose everything. Writes go
 * there behind; a read that finds nothing in front asks there, verifies what comes, and puts it back in front. Links that manifests imply are
 * not archived: they follow from the manifest. An archive that is away costs nothing but what it would have given. Owns both parts.
 */
export function archivedMetadata(options: ArchivedMetadataOptions): ArchivedMetadataStore {
  return new ArchivedMetadata(options)
}

type Settled = { readonly state: string; readonly at: number }

class ArchivedMetadata implements ArchivedMetadataStore {
  readonly #options: ArchivedMetadataOptions
  readonly #front: MetadataStore
  readonly #archive: Archive
  readonly #clock: Clock
  readonly #queue: ArchiveQueue
  /** What the archive is known to hold. */
  readonly #settled = new LRUCache<string, Settled>({ max: remembered })
  /** Until when a key counts as absent. */
  readonly #absent = new LRUCache<string, number>({ max: remembered })
  readonly #lists = new LRUCache<string, { readonly tags: readonly string[]; readonly until: number }>({ max: 100 })
  readonly #reads = new Map<string, Promise<unknown>>()
  #isFull = false
  #closed: Promise<void> | undefined

  constructor(options: ArchivedMetadataOptions) {
    this.#options = options
    this.#front = options.metadata
    this.#archive = options.archive
    this.#clock = options.clock
    this.#queue = new ArchiveQueue({
      archive: options.archive,
      maxPending: options.maxPending ?? 20_000,
      maxPendingBytes: options.maxPendingBytes ?? 64 * 1024 * 1024,
      parallel: 4,
      pauses: options.pauses ?? { firstMs: 500, longestMs: 60_000 },
      failed: (_key, error, final) => this.#report(final ? 'archive.write_given_up' : 'archive.write', error),
    })
  }

  async getManifest(digest: Digest): Promise<ManifestRecord | undefined> {
    const key = manifestKey(digest)
    const found = await this.#front.getManifest(digest)
    if (found) {
      this.#ensure(key, manifestObject(found))
      return found
    }
    const archived = await this.#read(key, object => readManifestObject(digest, object))
    if (archived) {
      this.#settle(key, archived.mediaType)
      await this.#restore(() => this.#front.putManifest(archived))
    }
    return archived
  }

  async putManifest(record: ManifestRecord): Promise<void> {
    // Nothing lies under a digest that is not its own.
    if (digestOf(record.bytes, algorithmOf(record.digest)) === record.digest)
      this.#put(manifestKey(record.digest), { object: manifestObject(record), state: record.mediaType })
    await this.#front.putManifest(record)
  }

  async deleteManifest(digest: Digest): Promise<void> {
    this.#delete(manifestKey(digest))
    await this.#front.deleteManifest(digest)
  }

  async getTag(key: TagKey): Promise<TagRecord | undefined> {
    const name = tagObjectKey(key)
    const found = await this.#front.getTag(key)
    if (found) {
      this.#ensure(name, tagObject(found))
      return found
    }
    const archived = await this.#read(name, readTagObject)
    if (archived && name !== undefined) {
      this.#settle(name, stateOf(archived))
      await this.#restore(() => this.#front.putTag(key, archived))
    }
    return archived
  }

  async putTag(key: TagKey, record: TagRecord): Promise<void> {
    this.#put(tagObjectKey(key), { object: tagObject(record), state: stateOf(record), refreshMs: tagRefreshMs })
    this.#lists.delete(tagsPrefix(key.upstream, key.repository) ?? '')
    await this.#front.putTag(key, record)
  }

  async deleteTag(key: TagKey): Promise<void> {
    this.#delete(tagObjectKey(key))
    this.#lists.delete(tagsPrefix(key.upstream, key.repository) ?? '')
    await this.#front.deleteTag(key)
  }

  async knownTags(upstream: string, repository: string): Promise<readonly string[]> {
    const [known, archived] = await Promise.all([
      this.#front.knownTags(upstream, repository),
      this.#archivedTags(tagsPrefix(upstream, repository)),
    ])
    return archived.length === 0 ? known : [...new Set([...known, ...archived])].sort()
  }

  async getLink(upstream: string, repository: string, digest: Digest): Promise<Link | undefined> {
    const key = linkKey({ upstream, repository, digest })
    const found = await this.#front.getLink(upstream, repository, digest)
    if (found === 'confirmed') this.#ensure(key, linkObject)
    if (found || !(await this.#isLinked(key))) return found
    await this.#restoreLink(upstream, repository, digest)
    return 'confirmed'
  }

  async putLinks(upstream: string, repository: string, digests: readonly Digest[], link: Link): Promise<void> {
    for (const digest of link === 'confirmed' ? digests : []) {
      this.#absent.delete(linksPrefix(upstream, digest) ?? '')
      this.#put(linkKey({ upstream, repository, digest }), { object: linkObject, state: link })
    }
    await this.#front.putLinks(upstream, repository, digests, link)
  }

  async deleteLink(upstream: string, repository: string, digest: Digest): Promise<void> {
    this.#delete(linkKey({ upstream, repository, digest }))
    await this.#front.deleteLink(upstream, repository, digest)
  }

  async isConfirmedAt(upstream: string, digest: Digest): Promise<boolean> {
    if (await this.#front.isConfirmedAt(upstream, digest)) return true
    const link = await this.#anyLink(linksPrefix(upstream, digest))
    if (!link) return false
    await this.#restore(() => this.#front.putLinks(upstream, link.repository, [digest], 'confirmed'))
    return true
  }

  getDocument(key: string): Promise<StoredDocument | undefined> {
    return this.#front.getDocument(key)
  }

  putDocument(key: string, document: StoredDocument): Promise<void> {
    return this.#front.putDocument(key, document)
  }

  pending(): number {
    return this.#queue.size
  }

  idle(): Promise<void> {
    return this.#queue.idle()
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    // A bucket that is away now will hardly be back in that time.
    if (!this.#queue.isFailing) await this.#idleWithin(this.#options.closeMs ?? 3_000)
    const left = this.#queue.close()
    if (left > 0) this.#report('archive.unwritten', new Error(`${left} records were not archived before the end`))
    await this.#archive.close()
    await this.#front.close()
  }

  async #idleWithin(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>(resolve => (timer = setTimeout(resolve, ms)))
    await Promise.race([this.#queue.idle(), late])
    clearTimeout(timer)
  }

  /** Writes behind, unless the archive holds it in this state for less than `refreshMs`. */
  #put(key: string | undefined, { object, state, refreshMs = settledMs }: Put): void {
    if (key === undefined) return
    this.#absent.delete(key)
    const isPending = this.#queue.pending(key) !== undefined
    if (!isPending && this.#isSettled(key, state, refreshMs)) return
    this.#add(key, { kind: 'put', object, done: () => this.#settle(key, state) })
  }

  /** Writes behind what the store in front has and the archive may have lost, or was never told. */
  #ensure(key: string | undefined, object: ArchivedObject): void {
    if (key === undefined || this.#isSettled(key, undefined, settledMs)) return
    if (this.#queue.pending(key) !== undefined) return
    // What was there may be another state.
    this.#add(key, { kind: 'ensure', object, done: () => this.#settle(key, '') })
  }

  #delete(key: string | undefined): void {
    if (key === undefined) return
    this.#settled.delete(key)
    this.#add(key, { kind: 'delete' })
  }

  #add(key: string, write: Parameters<ArchiveQueue['add']>[1]): void {
    const isAdded = this.#queue.add(key, write)
    // Told once, not once per pull.
    if (!isAdded && !this.#isFull)
      this.#report('archive.queue_full', new Error('too many records wait for the archive: some are not archived'))
    this.#isFull = !isAdded
  }

  #isSettled(key: string, state: string | undefined, withinMs: number): boolean {
    const settled = this.#settled.get(key)
    if (settled === undefined || this.#clock.monotonic() - settled.at >= withinMs) return false
    return state === undefined || settled.state === state
  }

  #settle(key: string, state: string): void {
    this.#settled.set(key, { state, at: this.#clock.monotonic() })
  }

  /** What `decode` makes of the object, with what is under way counted as done. */
  async #read<Record>(
    key: string | undefined,
    decode: (object: ArchivedObject) => Record | undefined,
  ): Promise<Record | undefined> {
    if (key === undefined) return undefined
    const object = this.#comingAs(key) ?? { found: await this.#ask(key, () => this.#archive.get(key)) }
    // What was put or deleted while the archive answered is newer than its answer.
    const { found } = this.#comingAs(key) ?? object
    if (found === undefined) return undefined
    const record = decode(found)
    if (record !== undefined) return record
    this.#remember(key)
    this.#report('archive.corrupt', new Error(`${key} in the archive is not what it should be: it is ignored`))
    return undefined
  }

  /** What will lie under the key, when something is under way there. */
  #comingAs(key: string): { readonly found: ArchivedObject | undefined } | undefined {
    const pending = this.#queue.pending(key)
    return pending && { found: pending.kind === 'delete' ? undefined : pending.object }
  }

  async #isLinked(key: string | undefined): Promise<boolean> {
    if (key === undefined) return false
    const pending = this.#queue.pending(key)
    if (pending !== undefined) return pending.kind !== 'delete'
    const isThere = await this.#ask(key, async () => ((await this.#archive.has(key)) ? true : undefined))
    return isThere === true && this.#queue.pending(key)?.kind !== 'delete'
  }

  /** The repository was confirmed to hold the digest; where that is a manifest, so may it read what that names. */
  async #restoreLink(upstream: string, repository: string, digest: Digest): Promise<void> {
    this.#settle(linkKey({ upstream, repository, digest }) ?? '', 'confirmed')
    const manifest = await this.getManifest(digest)
    const named = manifest ? namedBy(manifest) : []
    await this.#restore(async () => {
      if (named.length > 0) await this.#front.putLinks(upstream, repository, named, 'named')
      await this.#front.putLinks(upstream, repository, [digest], 'confirmed')
    })
  }

  async #anyLink(prefix: string | undefined): Promise<ReturnType<typeof linkOfKey>> {
    if (prefix === undefined) return undefined
    const pending = this.#queue.pendingUnder(prefix)
    const [coming] = [...pending].find(([, kind]) => kind !== 'delete') ?? []
    if (coming !== undefined) return linkOfKey(coming)
    const listed = await this.#ask(prefix, async () => {
      const keys = await this.#archive.list({ prefix, limit: pending.size + 20 })
      return keys.length === 0 ? undefined : keys
    })
    return listed?.filter(key => this.#queue.pending(key)?.kind !== 'delete').flatMap(key => linkOfKey(key) ?? [])[0]
  }

  async #archivedTags(prefix: string | undefined): Promise<readonly string[]> {
    if (prefix === undefined) return []
    const pending = this.#queue.pendingUnder(prefix)
    const listed = new Set(await this.#listedTags(prefix))
    for (const [key, kind] of pending) {
      const tag = tagOfKey(key)?.tag
      if (tag === undefined) continue
      if (kind === 'delete') listed.delete(tag)
      else listed.add(tag)
    }
    return [...listed]
  }

  async #listedTags(prefix: string): Promise<readonly string[]> {
    const known = this.#lists.get(prefix)
    if (known && known.until > this.#clock.monotonic()) return known.tags
    const tags = await this.#ask(`list ${prefix}`, () => this.#listTags(prefix))
    if (tags) this.#lists.set(prefix, { tags, until: this.#clock.monotonic() + listMs })
    return tags ?? []
  }

  async #listTags(prefix: string): Promise<readonly string[]> {
    const tags: string[] = []
    let after: string | undefined
    do {
      const keys: readonly string[] = await this.#archive.list({ prefix, after, limit: pageSize })
      tags.push(...keys.flatMap(key => tagOfKey(key)?.tag ?? []))
      after = keys.at(-1)
    } while (after !== undefined && tags.length < maxTagNames)
    return tags
  }

  /** One question for all who ask at once. A failed one finds nothing; what is absent is not asked for again for a moment. */
  async #ask<Result>(name: string, question: () => Promise<Result | undefined>): Promise<Result | undefined> {
    if ((this.#absent.get(name) ?? Number.NEGATIVE_INFINITY) > this.#clock.monotonic()) return undefined
    const running = this.#reads.get(name) as Promise<Result | undefined> | undefined
    if (running) return running
    const asked = this.#answerOf(name, question).finally(() => this.#reads.delete(name))
    this.#reads.set(name, asked)
    return asked
  }

  async #answerOf<Result>(name: string, question: () => Promise<Result | undefined>): Promise<Result | undefined> {
    try {
      const result = await question()
      if (result === undefined) this.#remember(name)
      return result
    } catch (error) {
      this.#report('archive.read', error)
      return undefined
    }
  }

  #remember(name: string): void {
    this.#absent.set(name, this.#clock.monotonic() + absentMs)
  }

  /** What was found counts also when it cannot be put back. */
  async #restore(work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      this.#report('archive.restore', error)
    }
  }

  #report(operation: string, error: unknown): void {
    // An archive that is not asked for a while was reported when it failed.
    if (error instanceof S3Error && (error.reason === 'blocked' || error.reason === 'cancelled')) return
    this.#options.observer.storeFailed(operation, error)
  }
}

type Put = { readonly object: ArchivedObject; readonly state: string; readonly refreshMs?: number }

/** When it was checked is no part of what it is. */
const stateOf = ({ digest, mediaType, size }: TagRecord): string => `${digest} ${mediaType} ${size}`
