import { digestOf, type Digest } from '../oci/digest.ts'
import type { Question } from './questions.ts'
import type { TagKey } from './stores.ts'

/** Names of keys. What stands in braces decides the slot in a cluster: keys that one command touches share it. */
export type RedisKeys = ReturnType<typeof redisKeys>

/** The version of the records under the keys. Another form of record takes another number, so that old and new replicas run side by side. */
const recordVersion = 1

/** Names hold no white space, so no two things share a key (T-24). */
export function redisKeys(keyPrefix: string) {
  const start = `${keyPrefix}:${recordVersion}`
  return {
    manifest: (digest: Digest): string => `${start}:m:{${digest}}`,
    tag: ({ upstream, repository, tag }: TagKey): string => `${start}:t:{${upstream} ${repository}}:${tag}`,
    tagNames: (upstream: string, repository: string): string => `${start}:n:{${upstream} ${repository}}`,
    link: (upstream: string, repository: string, digest: Digest): string =>
      `${start}:l:{${upstream} ${repository}}:${digest}`,
    confirmedAt: (upstream: string, digest: Digest): string => `${start}:c:{${upstream} ${digest}}`,
    // Keys of documents are opaque and may be of any length.
    document: (key: string): string => `${start}:d:{${digestOf(Buffer.from(key)).slice(7)}}`,
    question: ({ upstream, repository, reference }: Question): string =>
      `${start}:q:{${upstream} ${repository}}:${reference}`,
    lease: (digest: Digest): string => `${start}:o:{${digest}}`,
    // One slot for all of them: a batch goes into several at once.
    totals: {
      months: `${start}:s:{totals}`,
      days: (month: string): string => `${start}:s:{totals}:${month}`,
      hours: (day: string): string => `${start}:s:{totals}:${day}`,
      writer: (life: string): string => `${start}:s:{totals}:w:${life}`,
      leader: `${start}:s:{totals}:leader`,
    },
  }
}
