import type { Outcome } from '../log/outcome.ts'
import { outcomes } from './labels.ts'
import type { Series } from './series.ts'

/** Bytes over the two links of one upstream since the start. */
export type Traffic = {
  readonly servedBytes: number
  /** All that was fetched from it: content, tokens, wasted and repeated bytes, prefetch. */
  readonly upstreamBytes: number
  /** `servedBytes − upstreamBytes`. Below 0 when more was fetched than anyone asked for. */
  readonly savedBytes: number
}

/** The counters since the start as plain numbers, for /status. */
export type MetricsSnapshot = {
  readonly requests: number
  /** Pings of `/v2/` are not among them. */
  readonly requestsByOutcome: Readonly<Record<Outcome, number>>
  readonly traffic: Traffic
  /** By configured upstream name. */
  readonly upstreams: Readonly<Record<string, Traffic & { readonly upstreamRequests: number }>>
  readonly fills: {
    readonly running: number
    readonly published: number
    readonly uncached: number
    readonly failed: number
    readonly cancelled: number
    readonly resumed: number
  }
  readonly evicted: { readonly blobs: number; readonly bytes: number }
  readonly storeFailures: number
  readonly clients: { readonly connections: number; readonly aborts: number }
}

export const traffic = (servedBytes: number, upstreamBytes: number): Traffic => ({
  servedBytes,
  upstreamBytes,
  savedBytes: servedBytes - upstreamBytes,
})

/** Adds up the series. Cheap: some hundred additions. */
export function takeSnapshot(series: Series, upstreams: readonly string[]): MetricsSnapshot {
  const byUpstream = upstreams.map(upstream => ({
    upstream,
    ...traffic(series.served.sum({ upstream }), series.fetched.sum({ upstream })),
    upstreamRequests: series.upstreamRequests.sum({ upstream }),
  }))
  const fills = (outcome: string): number => series.fills.sum({ outcome })
  // A ping of `/v2/` is answered by itself and says nothing of the cache.
  const answers = (outcome: string): number =>
    series.requests.sum({ outcome }) - series.requests.sum({ outcome, kind: 'base' })
  const byOutcome = outcomes.map(outcome => [outcome, answers(outcome)] as const)
  return {
    requests: series.requests.sum(),
    // The keys are `outcomes`, which holds every Outcome.
    requestsByOutcome: Object.fromEntries(byOutcome) as Record<Outcome, number>,
    traffic: traffic(
      byUpstream.reduce((sum, { servedBytes }) => sum + servedBytes, 0),
      byUpstream.reduce((sum, { upstreamBytes }) => sum + upstreamBytes, 0),
    ),
    upstreams: Object.fromEntries(byUpstream.map(({ upstream, ...figures }) => [upstream, figures])),
    fills: {
      running: series.running.sum(),
      published: fills('published'),
      uncached: fills('uncached'),
      failed: fills('failed'),
      cancelled: fills('cancelled'),
      resumed: series.resumed.sum(),
    },
    evicted: { blobs: series.evictedBlobs.sum(), bytes: series.evictedBytes.sum() },
    storeFailures: series.storeFailures.sum(),
    clients: { connections: series.connections.value, aborts: series.aborts.value },
  }
}
