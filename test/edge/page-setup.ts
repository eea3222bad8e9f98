import type { RunningFill } from '../../src/cache/running-fill.ts'
import { createAdmin } from '../../src/edge/admin.ts'
import type { PageParts, PageStatus } from '../../src/edge/page/parts.ts'
import { TrafficHistory } from '../../src/metrics/history.ts'
import { createMetrics } from '../../src/metrics/metrics.ts'
import { describeStatus } from '../../src/metrics/status.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { createLocator } from '../../src/routing/locate.ts'
import type { BlobEntry, Catalog, Page } from '../../src/store/catalog.ts'
import type { ManifestRecord } from '../../src/store/stores.ts'
import { FakeClock } from '../fakes/clock.ts'

const empty = { entries: [], next: undefined } satisfies Page<never>

/** A catalog with nothing in it. */
export const emptyCatalog: Catalog = {
  repositories: async () => empty,
  tags: async () => empty,
  manifests: async () => empty,
  tag: async () => undefined,
  manifest: async () => undefined,
  holders: async () => ({ repositories: new Map(), complete: true }),
}

/** A catalog with one repository, whose manifests these are. */
export const catalogOf = (records: readonly ManifestRecord[], change: Partial<Catalog> = {}): Catalog => ({
  ...emptyCatalog,
  manifest: async (_upstream, _repository, digest) => records.find(record => record.digest === digest),
  ...change,
})

export type Shown = {
  readonly fills?: readonly RunningFill[]
  readonly status?: Partial<PageStatus>
  readonly catalog?: Catalog
  readonly blobs?: ReadonlyMap<Digest, BlobEntry>
  readonly parts?: Partial<PageParts>
}

const upstreams = [
  { name: 'docker.io', aliases: [], default: true },
  { name: 'registry.example.com:5000', aliases: [], default: false },
]

/** The admin app with a page that shows this. */
export function createPage({
  fills = [],
  status = {},
  catalog = emptyCatalog,
  blobs = new Map(),
  parts = {},
}: Shown = {}) {
  const clock = new FakeClock()
  const metrics = createMetrics({ upstreams: upstreams.map(({ name }) => name), version: '1.2.3' })
  const history = new TrafficHistory({ clock, read: () => metrics.snapshot().traffic })
  history.close()
  const ending = new AbortController()
  const errors: Error[] = []
  const statusOf = (): PageStatus => ({
    ...describeStatus({
      version: '1.2.3',
      uptimeSeconds: 60,
      upstreams: upstreams.map(({ name }) => ({
        name,
        health: () => ({ state: 'closed', unreachableSince: undefined, blockedUntil: undefined, lastError: undefined }),
      })),
      storage: { blobs: 0, blobBytes: 0, manifests: 0, manifestBytes: 0, reservedBytes: 0, maxBytes: 1024 ** 3 },
      snapshot: metrics.snapshot(),
    }),
    ...status,
  })
  const app = createAdmin({
    metrics,
    status: statusOf,
    readiness: () => ({ ready: true, reasons: [] }),
    onError: error => errors.push(error),
    page: {
      status: statusOf,
      fills: () => fills,
      history,
      catalog,
      blobs: { blobs: digests => new Map([...blobs].filter(([digest]) => digests.includes(digest))) },
      upstreams: upstreams.map(({ name, aliases, default: isDefault }) => ({ name, aliases, isDefault })),
      locate: name =>
        createLocator(upstreams).locate({ name, host: undefined, query: new URLSearchParams(), basePath: '' }),
      listen: () => ({ host: '0.0.0.0', port: 5000 }),
      machine: 'Cache-1',
      admin: { host: '127.0.0.1', port: 5001 },
      clock,
      ending: ending.signal,
      ...parts,
    },
  })
  const browse = (path: string, headers: Record<string, string> = {}): Promise<Response> =>
    Promise.resolve(
      app.request(`http://localhost:5001${path}`, {
        headers: { accept: 'text/html', host: 'localhost:5001', ...headers },
      }),
    )
  const text = async (path: string): Promise<string> => (await browse(path)).text()
  return { app, browse, text, clock, metrics, ending, errors }
}
