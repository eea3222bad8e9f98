/**
 * How a request was answered; the same words in metrics, logs and the status page; `Cache-Status` says them in the terms of RFC 9211.
 * - `hit`: from this cache, upstream was not asked
 * - `joined`: attached to a download that was already running
 * - `fill`: this request started the download
 * - `revalidated`: a cached tag that upstream confirmed
 * - `stale`: cached, served because upstream could not answer
 * - `redirected`: sent to where the bytes are
 * - `denied`: refused by policy or rights
 * - `error`: not answered with content
 */
export type Outcome = 'hit' | 'joined' | 'fill' | 'revalidated' | 'stale' | 'redirected' | 'denied' | 'error'

/**
 * Where the bytes of an answer came from.
 * - `memory`: this process, or Redis (and what Redis fetched from the archive in the bucket)
 * - `disk`: this replica's blobs and its index
 * - `fill`: a download that runs, and what was just fetched
 * - `s3`, `peer`: the same, where the download's first bytes came from the bucket or from another replica
 * - `redirect`: the bucket, by the client itself
 */
export type ServedSource = 'memory' | 'disk' | 's3' | 'peer' | 'fill' | 'redirect'

const hits: ReadonlySet<string> = new Set<Outcome>(['hit', 'joined', 'revalidated', 'stale', 'redirected'])
const content: ReadonlySet<string> = new Set<Outcome>(['hit', 'joined', 'fill', 'revalidated', 'stale', 'redirected'])

/** The client got content, or was sent to it. */
export const isContent = (outcome: string): boolean => content.has(outcome)

/** The client got content, and no download began for it: what every hit rate counts, over {@link isContent}. */
export const isHit = (outcome: string): boolean => hits.has(outcome)
