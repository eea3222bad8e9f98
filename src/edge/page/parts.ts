import type { RunningFill } from '../../cache/running-fill.ts'
import type { Clock } from '../../clock.ts'
import type { Address } from '../../config/config.ts'
import type { TrafficHistory } from '../../metrics/history.ts'
import type { Status } from '../../metrics/status.ts'
import type { MirroredUpstream } from '../../mirror/client.ts'
import type { BlobCatalog, Catalog } from '../../store/catalog.ts'

/** What `/status` says. */
export type PageStatus = Status

/** All that the pages show. Reading any of it changes nothing and asks no upstream. */
export type PageParts = {
  readonly status: () => PageStatus | Promise<PageStatus>
  readonly fills: () => readonly RunningFill[]
  readonly history: Pick<TrafficHistory, 'sample' | 'hour' | 'day'>
  readonly catalog: Catalog
  readonly blobs: BlobCatalog
  readonly upstreams: readonly MirroredUpstream[]
  /** Which upstream and repository a name means, as it would for a pull. Throws a RegistryError for what means none. */
  readonly locate: (name: string) => { readonly upstream: string; readonly repository: string }
  /** Where the registry listens, and what this machine is called: for how to point a client here. */
  readonly listen: () => Address
  readonly machine: string
  /** Where this listener listens: on loopback, requests must name this machine (DNS rebinding). */
  readonly admin: Address
  readonly clock: Clock
  /** Aborted when Layover begins to stop: who looks on is told so by the end of the stream. */
  readonly ending: AbortSignal
}
