import { setImmediate as nextTurn } from 'node:timers/promises'
import { isDigest, type Digest } from '../oci/digest.ts'
import type { BlobCatalog, BlobEntry, Catalog, ManifestEntry, Page, PageRequest, TagEntry } from './catalog.ts'
import type { Row, Sqlite } from './sqlite.ts'
import type { ManifestRecord } from './stores.ts'

/** Links that one page of manifests looks at: some milliseconds. A page ends there, however few manifests were among them. */
const linksPerPage = 2_000
/** Repositories among which holders are looked for, and how many in one turn of the event loop. */
const repositoriesSearched = 500
const repositoriesPerTurn = 25
const digestsSearched = 64

/** Reads the embedded index by statements of its own, which touch and repair nothing. Each reads a bounded number of rows, by an index. */
export class SqliteCatalog implements Catalog, BlobCatalog {
  readonly #statements: ReturnType<typeof prepare>

  constructor(sqlite: Sqlite) {
    this.#statements = prepare(sqlite)
  }

  async repositories(upstream: string, { after = '', limit }: PageRequest): Promise<Page<string>> {
    const entries: string[] = []
    let last = after
    // One look-up in the index for each: however many links a repository has, they are jumped over.
    while (entries.length < limit) {
      const next = this.#nextRepository(upstream, last)
      if (next === undefined) return { entries, next: undefined }
      entries.push(next)
      last = next
    }
    return { entries, next: this.#nextRepository(upstream, last) === undefined ? undefined : last }
  }

  async tags(upstream: string, repository: string, { after = '', limit }: PageRequest): Promise<Page<TagEntry>> {
    const rows = this.#statements.tags.all(upstream, repository, after, limit + 1)
    return {
      entries: rows.slice(0, limit).flatMap(row => tagEntry(row) ?? []),
      next: rows.length > limit ? text(rows[limit - 1]?.tag) : undefined,
    }
  }

  async manifests(upstream: string, repository: string, page: PageRequest): Promise<Page<ManifestEntry>> {
    const { after = '', limit } = page
    const links = this.#statements.links.all(upstream, repository, after, linksPerPage + 1)
    const entries: ManifestEntry[] = []
    for (const [index, row] of links.entries()) {
      const { digest } = row
      if (index === linksPerPage || entries.length === limit) return { entries, next: text(links[index - 1]?.digest) }
      const entry = typeof digest === 'string' ? manifestEntry(this.#statements.manifestHead.get(digest)) : undefined
      if (entry) entries.push(entry)
    }
    return { entries, next: undefined }
  }

  async tag(upstream: string, repository: string, tag: string): Promise<TagEntry | undefined> {
    return tagEntry(this.#statements.tag.get(upstream, repository, tag))
  }

  async manifest(upstream: string, repository: string, digest: Digest): Promise<ManifestRecord | undefined> {
    if (!this.#isLinked(upstream, repository, digest)) return undefined
    const row = this.#statements.manifest.get(digest)
    if (!(row?.bytes instanceof Uint8Array)) return undefined
    return { digest, mediaType: text(row.media_type), bytes: row.bytes }
  }

  async holders(
    upstream: string,
    digests: readonly Digest[],
    { except, limit }: { readonly except: string; readonly limit: number },
  ): ReturnType<Catalog['holders']> {
    const repositories = new Map<Digest, string[]>()
    const searched = digests.slice(0, digestsSearched)
    let last = ''
    for (let count = 0; count < repositoriesSearched; count++) {
      const repository = this.#nextRepository(upstream, last)
      if (repository === undefined) return { repositories, complete: searched.length === digests.length }
      last = repository
      if (repository !== except) this.#collect({ upstream, repository, digests: searched, limit, repositories })
      // Pulls go first.
      if (count % repositoriesPerTurn === repositoriesPerTurn - 1) await nextTurn()
    }
    return { repositories, complete: false }
  }

  blobs(digests: readonly Digest[]): ReadonlyMap<Digest, BlobEntry> {
    const found = digests.flatMap(digest => {
      const row = this.#statements.blob.get(digest)
      return row ? [[digest, { size: Number(row.size), lastUsed: Number(row.last_used) }] as const] : []
    })
    return new Map(found)
  }

  #nextRepository(upstream: string, after: string): string | undefined {
    const next = this.#statements.nextRepository.get(upstream, after)?.repository
    return typeof next === 'string' ? next : undefined
  }

  #isLinked(upstream: string, repository: string, digest: Digest): boolean {
    return this.#statements.link.get(upstream, repository, digest) !== undefined
  }

  #collect({ upstream, repository, digests, limit, repositories }: Search): void {
    for (const digest of digests) {
      const known = repositories.get(digest) ?? []
      if (known.length >= limit || !this.#isLinked(upstream, repository, digest)) continue
      repositories.set(digest, [...known, repository])
    }
  }
}

type Search = {
  readonly upstream: string
  readonly repository: string
  readonly digests: readonly Digest[]
  readonly limit: number
  readonly repositories: Map<Digest, string[]>
}

function prepare(sqlite: Sqlite) {
  const one = 'upstream = ? AND repository = ?'
  return {
    nextRepository: sqlite.prepare(
      'SELECT repository FROM links WHERE upstream = ? AND repository > ? ORDER BY repository LIMIT 1',
    ),
    tags: sqlite.prepare(
      `SELECT tag, digest, media_type, size, checked_at FROM tags WHERE ${one} AND tag > ? ORDER BY tag LIMIT ?`,
    ),
    tag: sqlite.prepare(`SELECT tag, digest, media_type, size, checked_at FROM tags WHERE ${one} AND tag = ?`),
    links: sqlite.prepare(`SELECT digest FROM links WHERE ${one} AND digest > ? ORDER BY digest LIMIT ?`),
    link: sqlite.prepare(`SELECT 1 FROM links WHERE ${one} AND digest = ?`),
    manifestHead: sqlite.prepare('SELECT digest, size, last_used, media_type FROM manifests WHERE digest = ?'),
    manifest: sqlite.prepare('SELECT media_type, bytes FROM manifests WHERE digest = ?'),
    blob: sqlite.prepare("SELECT size, last_used FROM blobs WHERE digest = ? AND state = 'present'"),
  }
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '')

function tagEntry(row: Row | undefined): TagEntry | undefined {
  const digest = text(row?.digest)
  if (row === undefined || !isDigest(digest)) return undefined
  return {
    tag: text(row.tag),
    digest,
    mediaType: text(row.media_type),
    size: Number(row.size),
    checkedAt: Number(row.checked_at),
  }
}

function manifestEntry(row: Row | undefined): ManifestEntry | undefined {
  const digest = text(row?.digest)
  if (row === undefined || !isDigest(digest)) return undefined
  return {
    digest,
    mediaType: text(row.media_type),
    size: Number(row.size),
    lastUsed: Number(row.last_used),
  }
}
