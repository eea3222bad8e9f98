import { Cluster, type RedisCommander } from 'ioredis'
import type { Clock } from '../clock.ts'
import { isDigest, type Digest } from '../oci/digest.ts'
import { isRepository } from '../oci/name.ts'
import type { Catalog, ManifestEntry, Page, PageRequest, TagEntry } from './catalog.ts'
import type { RedisConnection } from './redis-connection.ts'
import { redisKeys, type RedisKeys } from './redis-keys.ts'
import { decodeManifest, decodeTag, isTagName } from './redis-records.ts'
import type { ManifestRecord } from './stores.ts'

export type RedisCatalogOptions = {
  readonly connection: RedisConnection
  readonly keyPrefix: string
  readonly clock: Clock
  readonly limits?: Partial<CatalogLimits>
}

export type CatalogLimits = {
  /** Keys that one look goes through, whosever they are. */
  readonly keys: number
  /** Links that are remembered of it: about 250 bytes each. */
  readonly links: number
  /** How long a look is good for. */
  readonly forMs: number
}

const defaultLimits: CatalogLimits = { keys: 200_000, links: 50_000, forMs: 30_000 }
const keysPerScan = 1_000
const manifestsLookedUp = 500

/** What one look found: repositories of each upstream and the digests that each is known to hold, and the same the other way round. */
type Look = {
  readonly upstreams: ReadonlyMap<string, Repositories>
  readonly holders: ReadonlyMap<string, Holders>
  readonly cut: boolean
}
type Repositories = Map<string, Set<Digest>>
type Holders = ReadonlyMap<Digest, readonly string[]>

/**
 * Reads the records in Redis without a use being noted. Redis has no list of what it holds, so the keys are gone through by SCAN, as far as the limits allow;
 * all questions of the next half minute are answered from that. What rests only in the archive of the bucket shows once it is asked for by a pull.
 * Rejects with a RedisFailure when Redis is away, or allows no SCAN.
 */
export class RedisCatalog implements Catalog {
  readonly #connection: RedisConnection
  readonly #keys: RedisKeys
  readonly #clock: Clock
  readonly #limits: CatalogLimits
  readonly #pattern: string
  #look: { readonly at: number; readonly result: Promise<Look> } | undefined
  #forgetting: NodeJS.Timeout | undefined

  constructor({ connection, keyPrefix, clock, limits = {} }: RedisCatalogOptions) {
    this.#connection = connection
    this.#keys = redisKeys(keyPrefix)
    this.#clock = clock
    this.#limits = { ...defaultLimits, ...limits }
    this.#pattern = `${keyPrefix.replace(/[\\*?[\]^-]/g, String.raw`\$&`)}:1:[ln]:{*`
  }

  async repositories(upstream: string, page: PageRequest): Promise<Page<string>> {
    const { upstreams, cut } = await this.#looked()
    const names = [...(upstreams.get(upstream)?.keys() ?? [])]
    return { ...pageOf(names, page), cut }
  }

  async tags(upstream: string, repository: string, page: PageRequest): Promise<Page<TagEntry>> {
    const key = this.#keys.tagNames(upstream, repository)
    const names = await this.#ask(commands => commands.zrange(key, '0', '-1'))
    const { entries, next } = pageOf(names.filter(isTagName).sort(), page)
    const tags = await Promise.all(entries.map(tag => this.tag(upstream, repository, tag)))
    // The name of a tag may outlive its record.
    return { entries: tags.filter(tag => tag !== undefined), next }
  }

  async manifests(upstream: string, repository: string, page: PageRequest): Promise<Page<ManifestEntry>> {
    const { after = '', limit } = page
    const { upstreams, cut } = await this.#looked()
    const all = [...(upstreams.get(upstream)?.get(repository) ?? [])].filter(digest => digest > after).sort()
    const looked = all.slice(0, manifestsLookedUp)
    const found = (await Promise.all(looked.map(digest => this.#manifestEntry(digest)))).filter(
      entry => entry !== undefined,
    )
    const entries = found.slice(0, limit)
    const more = found.length > limit ? entries.at(-1)?.digest : all.length > looked.length ? looked.at(-1) : undefined
    return { entries, next: more, cut }
  }

  async tag(upstream: string, repository: string, tag: string): Promise<TagEntry | undefined> {
    const value = await this.#ask(commands => commands.getBuffer(this.#keys.tag({ upstream, repository, tag })))
    const record = value === null ? undefined : decodeTag(value)
    return record && { tag, ...record }
  }

  async manifest(upstream: string, repository: string, digest: Digest): Promise<ManifestRecord | undefined> {
    const link = this.#keys.link(upstream, repository, digest)
    if ((await this.#ask(commands => commands.getBuffer(link))) === null) return undefined
    const value = await this.#ask(commands => commands.getBuffer(this.#keys.manifest(digest)))
    return value === null ? undefined : decodeManifest(digest, value)
  }

  async holders(
    upstream: string,
    digests: readonly Digest[],
    { except, limit }: { readonly except: string; readonly limit: number },
  ): ReturnType<Catalog['holders']> {
    const { holders, cut } = await this.#looked()
    const holdersOf = (digest: Digest): string[] => {
      // One more, because `except` may be among them.
      const first =
        holders
          .get(upstream)
          ?.get(digest)
          ?.slice(0, limit + 1) ?? []
      return first.filter(repository => repository !== except).slice(0, limit)
    }
    return { repositories: new Map(digests.map(digest => [digest, holdersOf(digest)])), complete: !cut }
  }

  /** Only its size and type: the bytes stay where they are. */
  async #manifestEntry(digest: Digest): Promise<ManifestEntry | undefined> {
    const key = this.#keys.manifest(digest)
    const length = await this.#ask(commands => commands.strlen(key))
    if (length === 0) return undefined
    const head = await this.#ask(commands => commands.getrange(key, 0, 255))
    const mediaType = head.split('\n', 1)[0] ?? ''
    return { digest, mediaType, size: Math.max(0, length - mediaType.length - 1), lastUsed: undefined }
  }

  /** One look for all who ask; a failed one is not kept. */
  #looked(): Promise<Look> {
    const now = this.#clock.monotonic()
    if (this.#look && now - this.#look.at < this.#limits.forMs) return this.#look.result
    const result = this.#goThrough()
    this.#look = { at: now, result }
    result.catch(() => (this.#look = undefined))
    clearTimeout(this.#forgetting)
    this.#forgetting = setTimeout(() => (this.#look = undefined), this.#limits.forMs).unref()
    return result
  }

  async #goThrough(): Promise<Look> {
    const upstreams = new Map<string, Repositories>()
    let keys = 0
    let links = 0
    let cut = false
    for (const node of await this.#ask(nodesOf)) {
      let cursor = '0'
      do {
        const [next, found] = await this.#ask(() =>
          node.scan(cursor, 'MATCH', this.#pattern, 'COUNT', String(keysPerScan)),
        )
        for (const key of found) links += note(upstreams, key)
        keys += keysPerScan
        cursor = next
        cut ||= cursor !== '0' && (keys >= this.#limits.keys || links >= this.#limits.links)
      } while (cursor !== '0' && !cut)
    }
    const sorted = new Map([...upstreams].map(([upstream, found]) => [upstream, inOrder(found)]))
    return {
      upstreams: sorted,
      holders: new Map([...sorted].map(([upstream, found]) => [upstream, turned(found)])),
      cut,
    }
  }

  #ask<Result>(work: (commands: RedisCommander) => Promise<Result>): Promise<Result> {
    return this.#connection.run('look', work)
  }
}

/** SCAN goes through the keys of one node. */
async function nodesOf(commands: RedisCommander): Promise<readonly RedisCommander[]> {
  return commands instanceof Cluster ? commands.nodes('master') : [commands]
}

/** SCAN gives keys in no order. */
const inOrder = (found: Repositories): Repositories => new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)))

/** Who holds each digest, in order: to go through all repositories for each blob of an image would hold up every pull (T-42). */
function turned(found: Repositories): Holders {
  const holders = new Map<Digest, string[]>()
  for (const [repository, digests] of found)
    for (const digest of digests) {
      const known = holders.get(digest)
      if (known) known.push(repository)
      else holders.set(digest, [repository])
    }
  return holders
}

/** Gives how many links it added. What is no key of ours, or holds no names, is passed over (F-64). */
function note(upstreams: Map<string, Repositories>, key: string): number {
  const [, upstream = '', repository = '', digest] = /:[ln]:\{(\S+) (\S+)\}(?::(\S+))?$/.exec(key) ?? []
  if (upstream === '' || !isRepository(repository)) return 0
  const repositories = upstreams.get(upstream) ?? new Map<string, Set<Digest>>()
  upstreams.set(upstream, repositories)
  const digests = repositories.get(repository) ?? new Set<Digest>()
  repositories.set(repository, digests)
  if (digest === undefined || !isDigest(digest)) return 0
  digests.add(digest)
  return 1
}

function pageOf(
  sorted: readonly string[],
  { after = '', limit }: PageRequest,
): { readonly entries: readonly string[]; readonly next: string | undefined } {
  const rest = sorted.filter(name => name > after)
  const entries = rest.slice(0, limit)
  return { entries, next: rest.length > limit ? entries.at(-1) : undefined }
}
