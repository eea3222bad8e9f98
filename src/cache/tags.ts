import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { Target } from '../routing/target.ts'
import type { MetadataStore, TagRecord } from '../store/stores.ts'
import { type Asked, ageOf, isFresh, type Moment, momentOf, momentOfRecord, nextQuestionAfterMs } from './freshness.ts'

/** A tag as it was last seen at upstream, with what only this process knows about it. */
export type TagEntry = {
  readonly record: TagRecord
  readonly checkedAt: Moment
  /** What upstream warned about when it gave the manifest (P-103). */
  readonly warnings: readonly string[]
  /** Set after a failed question: not asked again before. */
  readonly postponed: { readonly until: Moment; readonly why: string } | undefined
}

export type Confirmation = {
  readonly pointer: Omit<TagRecord, 'checkedAt'>
  readonly askedAt: Asked
  readonly warnings: readonly string[]
}

/** Tag records: memory in front of the store. */
export interface Tags {
  /** From memory alone, fresh or not. */
  peek(target: Target, tag: string): TagEntry | undefined
  /** From memory while that is fresh; else what the store has, when another replica has asked upstream since. */
  find(target: Target, tag: string, ttlMs: number): Promise<TagEntry | undefined>
  /** Upstream says that the tag is this manifest. The manifest and its links are stored before (F-65). */
  confirm(target: Target, tag: string, confirmation: Confirmation): Promise<void>
  /** Upstream could not be asked: keep what is known, and let it rest. */
  postpone(target: Target, tag: string, entry: TagEntry, why: string, retryAfterMs: number | undefined): void
  remove(target: Target, tag: string): Promise<void>
}

/** About 500 bytes each: 32 Ki tags are 16 MiB. */
const rememberedTags = 32_768

export function createTags(deps: {
  readonly metadata: MetadataStore
  readonly clock: Clock
  readonly random: () => number
}): Tags {
  const { clock, metadata } = deps
  const memory = new LRUCache<string, TagEntry>({ max: rememberedTags })

  const load = async (target: Target, tag: string, ttlMs: number): Promise<TagEntry | undefined> => {
    const record = await metadata.getTag({ upstream: target.upstream, repository: target.repository, tag })
    if (!record) return undefined
    const checkedAt = momentOfRecord(record.checkedAt, ttlMs, clock)
    return { record, checkedAt, warnings: [], postponed: undefined }
  }

  return {
    peek: (target, tag) => memory.get(tagKey(target, tag)),
    async find(target, tag, ttlMs) {
      const key = tagKey(target, tag)
      const known = memory.get(key)
      if (known && isFresh(ageOf(known.checkedAt, clock), ttlMs)) return known
      const stored = await load(target, tag, ttlMs)
      if (!stored || (known && stored.record.checkedAt <= known.record.checkedAt)) return known
      memory.set(key, stored)
      return stored
    },
    async confirm(target, tag, { pointer, askedAt, warnings }) {
      const record: TagRecord = { ...pointer, checkedAt: askedAt.wall }
      memory.set(tagKey(target, tag), { record, checkedAt: askedAt.moment, warnings, postponed: undefined })
      await metadata.putTag({ upstream: target.upstream, repository: target.repository, tag }, record)
    },
    postpone(target, tag, entry, why, retryAfterMs) {
      const until = (momentOf(clock) + nextQuestionAfterMs(retryAfterMs, deps.random())) as Moment
      memory.set(tagKey(target, tag), { ...entry, postponed: { until, why } })
    },
    async remove(target, tag) {
      memory.delete(tagKey(target, tag))
      await metadata.deleteTag({ upstream: target.upstream, repository: target.repository, tag })
    },
  }
}

// Names and tags hold no white space, so no two tags share a key (T-24).
export const tagKey = (target: Target, tag: string): string => `${target.upstream} ${target.repository} ${tag}`
