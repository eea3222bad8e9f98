import type { RedisCommander } from 'ioredis'
import type { Clock } from '../clock.ts'
import type { RedisConfig } from '../config/config.ts'
import type { Log } from '../log/log.ts'
import type { Observer } from '../log/observer.ts'
import type { Digest } from '../oci/digest.ts'
import { RedisConnection, type RedisState, type RedisWork } from './redis-connection.ts'
import { redisFailure } from './redis-error.ts'
import { redisKeys, type RedisKeys } from './redis-keys.ts'
import {
  decodeDocument,
  decodeLink,
  decodeManifest,
  decodeTag,
  encodeDocument,
  encodeManifest,
  encodeTag,
  isTagName,
} from './redis-records.ts'
import { RedisTouches } from './redis-touches.ts'
import type { Link, ManifestRecord, MetadataStore, StoredDocument, TagKey, TagRecord } from './stores.ts'

export type RedisMetadataOptions = {
  readonly config: RedisConfig
  readonly clock: Clock
  readonly observer: Observer
  /** Told when Redis is back; that it went is told by the observer. */
  readonly log?: Pick<Log, 'info'> | undefined
  /** How long a record that nobody uses stays. */
  readonly ttlMs?: number | undefined
  /** A connection that is used by others too; whoever opened it closes it. */
  readonly connection?: RedisConnection | undefined
}

export type RedisMetadataStore = MetadataStore & {
  /** What this replica knows of Redis; asks nobody. */
  usage(): RedisState
}

const day = 24 * 60 * 60_000
export const defaultRecordTtlMs = 30 * day
/** How long the start waits to learn whether Redis answers: longer than a healthy one takes, short enough to start without it. */
const firstAnswerMs = 2000
/** The answer of last resort for tags/list; beyond this the tags that were put first are left out. */
const maxTagNames = 10_000
/** Commands in flight for one manifest. Images have a hundred layers at most. */
const linksAtOnce = 128
/** Larger lists are not worth a slow Redis. */
const maxDocumentBytes = 1024 * 1024

/**
 * Opens records in Redis. Never rejects because Redis is away: until it answers, everything is a miss (F-59). Rejects when the
 * configuration cannot be used at all.
 */
export async function openRedisMetadata(options: RedisMetadataOptions): Promise<RedisMetadataStore> {
  const { config, clock, observer, log, ttlMs = defaultRecordTtlMs } = options
  const connection = options.connection ?? new RedisConnection({ config, observer, log })
  await connection.settled(firstAnswerMs)
  const touches = new RedisTouches({ connection, ttlMs, monotonic: () => clock.monotonic() })
  return new RedisMetadata({
    connection,
    keys: redisKeys(config.keyPrefix),
    touches,
    ttlMs,
    observer,
    ownsConnection: options.connection === undefined,
  })
}

type Parts = {
  readonly connection: RedisConnection
  readonly keys: RedisKeys
  readonly touches: RedisTouches
  readonly ttlMs: number
  readonly observer: Observer
  readonly ownsConnection: boolean
}

/** The record and its name in the list, by Redis' own clock (F-42). KEYS: record, names. ARGV: value, tag, TTL, most names. */
const putTagScript = `
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1`

/**
 * Records in Redis: every key may be gone at any time, alone, or hold anything (F-62, F-64). What cannot be read is a miss and what cannot
 * be written is forgotten; the connection tells once that Redis is away, so none of it rejects.
 */
class RedisMetadata implements RedisMetadataStore {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  async getManifest(digest: Digest): Promise<ManifestRecord | undefined> {
    return this.#get(this.#parts.keys.manifest(digest), value => decodeManifest(digest, value))
  }

  async putManifest(record: ManifestRecord): Promise<void> {
    const key = this.#parts.keys.manifest(record.digest)
    await this.#write([key], commands => commands.set(key, encodeManifest(record), 'PX', this.#ttlMs))
  }

  async deleteManifest(digest: Digest): Promise<void> {
    await this.#delete(this.#parts.keys.manifest(digest))
  }

  async getTag(key: TagKey): Promise<TagRecord | undefined> {
    const found = await this.#get(this.#parts.keys.tag(key), decodeTag)
    if (found) this.#parts.touches.note(this.#parts.keys.tagNames(key.upstream, key.repository))
    return found
  }

  async putTag(key: TagKey, record: TagRecord): Promise<void> {
    const names = [this.#parts.keys.tag(key), this.#parts.keys.tagNames(key.upstream, key.repository)]
    await this.#write(names, commands =>
      commands.eval(putTagScript, names.length, ...names, encodeTag(record), key.tag, this.#ttlMs, maxTagNames),
    )
  }

  async deleteTag(key: TagKey): Promise<void> {
    const names = this.#parts.keys.tagNames(key.upstream, key.repository)
    await this.#delete(this.#parts.keys.tag(key))
    await this.#work('removal', [names], commands => commands.zrem(names, key.tag))
  }

  async knownTags(upstream: string, repository: string): Promise<readonly string[]> {
    const key = this.#parts.keys.tagNames(upstream, repository)
    const names = await this.#work('read', [key], commands => commands.zrange(key, '0', '-1'))
    return (names ?? []).filter(isTagName).sort()
  }

  async getLink(upstream: string, repository: string, digest: Digest): Promise<Link | undefined> {
    return this.#get(this.#parts.keys.link(upstream, repository, digest), decodeLink)
  }

  /** Some at a time: of thousands at once, the last would have no answer in time, which looks as if Redis were away (T-42). */
  async putLinks(upstream: string, repository: string, digests: readonly Digest[], link: Link): Promise<void> {
    for (let at = 0; at < digests.length; at += linksAtOnce)
      await this.#putLinks(upstream, repository, digests.slice(at, at + linksAtOnce), link)
  }

  async deleteLink(upstream: string, repository: string, digest: Digest): Promise<void> {
    const confirmed = this.#parts.keys.confirmedAt(upstream, digest)
    await this.#work('removal', [confirmed], commands => commands.srem(confirmed, repository))
    await this.#delete(this.#parts.keys.link(upstream, repository, digest))
  }

  async isConfirmedAt(upstream: string, digest: Digest): Promise<boolean> {
    const key = this.#parts.keys.confirmedAt(upstream, digest)
    const repositories = await this.#work('read', [key], commands => commands.scard(key))
    if (repositories === undefined || repositories === 0) return false
    this.#parts.touches.note(key)
    return true
  }

  async getDocument(key: string): Promise<StoredDocument | undefined> {
    return this.#get(this.#parts.keys.document(key), decodeDocument)
  }

  async putDocument(key: string, document: StoredDocument): Promise<void> {
    if (document.bytes.byteLength > maxDocumentBytes) return
    const name = this.#parts.keys.document(key)
    await this.#write([name], commands => commands.set(name, encodeDocument(document), 'PX', this.#ttlMs))
  }

  usage(): RedisState {
    return this.#parts.connection.state()
  }

  async close(): Promise<void> {
    await this.#parts.touches.flush()
    if (this.#parts.ownsConnection) this.#parts.connection.close()
  }

  get #ttlMs(): number {
    return this.#parts.ttlMs
  }

  async #putLinks(upstream: string, repository: string, digests: readonly Digest[], link: Link): Promise<void> {
    if (link === 'named') {
      const keys = digests.map(digest => this.#parts.keys.link(upstream, repository, digest))
      // A confirmed link stays what it is.
      const put = (commands: RedisCommander) =>
        Promise.all(keys.map(key => commands.set(key, link, 'PX', this.#ttlMs, 'NX')))
      return this.#write([], put)
    }
    await Promise.all(
      digests.map(async digest => {
        const key = this.#parts.keys.link(upstream, repository, digest)
        const confirmed = this.#parts.keys.confirmedAt(upstream, digest)
        await this.#write([key, confirmed], commands =>
          Promise.all([
            commands.set(key, link, 'PX', this.#ttlMs),
            commands.sadd(confirmed, repository),
            commands.pexpire(confirmed, this.#ttlMs),
          ]),
        )
      }),
    )
  }

  /** What `decode` makes of the value; one it cannot read is deleted (F-64). */
  async #get<Record>(key: string, decode: (value: Buffer) => Record | undefined): Promise<Record | undefined> {
    const value = await this.#work('read', [key], commands => commands.getBuffer(key))
    if (value === undefined || value === null) return undefined
    const record = decode(value)
    if (record === undefined) {
      this.#parts.observer.storeFailed('redis.garbage', new Error(`${key} holds no such record: it is deleted`))
      await this.#delete(key)
    } else this.#parts.touches.note(key)
    return record
  }

  async #delete(...keys: readonly string[]): Promise<void> {
    // One by one: keys of one record may lie in different slots.
    await this.#work('removal', [], commands => Promise.all(keys.map(key => commands.del(key))))
  }

  /** What stands in the way of a write and is of another type goes, and the write is done once more. */
  async #write(keys: readonly string[], work: (commands: RedisCommander) => Promise<unknown>): Promise<void> {
    try {
      await this.#parts.connection.run('write', work)
    } catch (error) {
      if (redisFailure(error).code !== 'WRONGTYPE') return
      await this.#delete(...keys)
      await this.#work('write', [], work)
    }
  }

  /** Undefined: Redis could not. Keys of another type than expected are deleted. */
  async #work<Result>(
    kind: RedisWork,
    keys: readonly string[],
    work: (commands: RedisCommander) => Promise<Result>,
  ): Promise<Result | undefined> {
    try {
      return await this.#parts.connection.run(kind, work)
    } catch (error) {
      if (redisFailure(error).code === 'WRONGTYPE' && keys.length > 0) await this.#delete(...keys)
      return undefined
    }
  }
}
