import type { Clock } from '../clock.ts'
import type { Observer } from '../log/observer.ts'
import type { ServedSource } from '../log/outcome.ts'
import type { MetadataStore } from '../store/stores.ts'
import type { Upstream } from '../upstream/upstream.ts'

/** What tag lists and referrers need alike: both are answers of upstream, kept for when it cannot answer. */
export type ListDependencies = {
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly settings: (upstream: string) => { readonly maxStaleMs: number }
  readonly metadata: MetadataStore
  readonly clock: Clock
  readonly observer: Observer
  /** Where the metadata store has its bytes. Default `disk`. */
  readonly storeSource?: ServedSource
  readonly random?: () => number
  readonly offline: boolean
}
