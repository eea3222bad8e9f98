import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { Observer } from '../log/observer.ts'
import type { Outcome, ServedSource } from '../log/outcome.ts'
import type { MetadataStore, StoredDocument } from '../store/stores.ts'
import { createFlights } from './flights.ts'
import { forgivingMetadata } from './forgiving-metadata.ts'
import {
  ageOf,
  askedNow,
  isFresh,
  type Moment,
  mayServeStale,
  momentOf,
  momentOfRecord,
  nextQuestionAfterMs,
  staleWarning,
} from './freshness.ts'
import { isNoInformation, reasonOf, retryAfterOf } from './upstream-failure.ts'

/**
 * Answers of list endpoints: fresh for a short time, one question upstream for all who ask at once, and the old answer,
 * marked, while upstream cannot be asked (P-78, P-84).
 */
export interface Documents {
  /** Rejects with whatever `fetch` threw when there is nothing old that may be served. */
  get(question: Question): Promise<Answer>
}

export type Question = {
  /** Unique for the exact question; holds no secrets. */
  readonly key: string
  readonly upstream: string
  readonly ttlMs: (document: Document) => number
  readonly maxStaleMs: number
  /** The signal fires when nobody waits any more. */
  readonly fetch: (signal: AbortSignal) => Promise<Document>
  /** Whether the answer also goes to the store, to outlive this process. False for what a client could vary without end. */
  readonly keep: (document: Document) => boolean
  readonly signal: AbortSignal | undefined
}

export type Document = Pick<StoredDocument, 'bytes' | 'mediaType' | 'attributes'>

export type Answer = {
  readonly document: Document
  readonly outcome: Outcome
  readonly source: ServedSource
  /** One word, when the outcome is `stale`. */
  readonly staleReason?: string | undefined
  readonly ageMs: number
  readonly warnings: readonly string[]
}

export type DocumentsDependencies = {
  readonly metadata: MetadataStore
  readonly clock: Clock
  readonly observer: Observer
  readonly memoryBytes?: number
  /** Where the metadata store has its bytes. Default `disk`. */
  readonly storeSource?: ServedSource
  readonly random?: () => number
  readonly offline: boolean
}

type Entry = { readonly document: Document; readonly storedAt: Moment; askAgainAt: Moment; why: string }

type Found = { readonly entry: Entry; readonly source: ServedSource }

const defaultMemoryBytes = 16 * 1024 * 1024
/** Larger answers are kept in memory only: a store of small records is no place for them. */
const maxKeptBytes = 1024 * 1024

export function createDocuments(deps: DocumentsDependencies): Documents {
  const { clock } = deps
  const random = deps.random ?? Math.random
  const metadata = forgivingMetadata(deps.metadata, deps.observer)
  const flights = createFlights<Answer>()
  const memory = new LRUCache<string, Entry>({
    maxSize: deps.memoryBytes ?? defaultMemoryBytes,
    sizeCalculation: (entry, key) => entry.document.bytes.length + key.length * 2 + 300,
  })

  const remember = (key: string, document: Document, storedAt: Moment): Entry => {
    const entry: Entry = { document, storedAt, askAgainAt: storedAt, why: '' }
    memory.set(key, entry)
    return entry
  }

  const find = async ({ key, ttlMs }: Question): Promise<Found | undefined> => {
    const known = memory.get(key)
    if (known) return { entry: known, source: 'memory' }
    const stored = await metadata.getDocument(key)
    if (!stored) return undefined
    const entry = remember(key, stored, momentOfRecord(stored.storedAt, ttlMs(stored), clock))
    return { entry, source: deps.storeSource ?? 'disk' }
  }

  const stale = (question: Question, { entry, source }: Found, ageMs: number): Answer => ({
    document: entry.document,
    outcome: 'stale',
    source,
    staleReason: entry.why,
    ageMs,
    warnings: [staleWarning(question.upstream, entry.why, ageMs)],
  })

  const fetched = async (question: Question, abandoned: AbortSignal): Promise<Answer> => {
    const askedAt = askedNow(clock)
    const document = await question.fetch(abandoned)
    remember(question.key, document, askedAt.moment)
    if (question.keep(document) && document.bytes.length <= maxKeptBytes)
      await metadata.putDocument(question.key, { ...document, storedAt: askedAt.wall })
    return { document, outcome: 'fill', source: 'fill', ageMs: 0, warnings: [] }
  }

  const answer = async (question: Question, abandoned: AbortSignal): Promise<Answer> => {
    const found = await find(question)
    if (!found) return fetched(question, abandoned)
    const { entry, source } = found
    const ageMs = ageOf(entry.storedAt, clock)
    if (isFresh(ageMs, question.ttlMs(entry.document)))
      return { document: entry.document, outcome: 'hit', source, ageMs, warnings: [] }
    const usable = deps.offline || mayServeStale(ageMs, question.maxStaleMs)
    if (usable && entry.why !== '' && momentOf(clock) < entry.askAgainAt) return stale(question, found, ageMs)
    try {
      return await fetched(question, abandoned)
    } catch (error) {
      if (!usable || !isNoInformation(error)) throw error
      entry.why = reasonOf(error)
      entry.askAgainAt = (momentOf(clock) + nextQuestionAfterMs(retryAfterOf(error), random())) as Moment
      return stale(question, found, ageMs)
    }
  }

  return {
    async get(question) {
      const { value, joined } = await flights.share(
        question.key,
        abandoned => answer(question, abandoned),
        question.signal,
      )
      return joined && value.outcome === 'fill' ? { ...value, outcome: 'joined' } : value
    },
  }
}
