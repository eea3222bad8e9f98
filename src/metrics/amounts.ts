import { LRUCache } from 'lru-cache'

/**
 * The figures that outlive the process, by name. Per upstream, with its name after a space; the others are of the whole cache.
 * - `served`, `fetched`: body bytes, as in `layover_served_bytes_total` and `layover_upstream_bytes_total`
 * - `requests`, `hits`: answers with content, and those of them that began no download
 * - `pulls`, `asked`: manifests by GET, that clients got and that the upstream gave
 */
export const upstreamAmounts = ['served', 'fetched', 'requests', 'hits', 'pulls', 'asked'] as const
export type UpstreamAmount = (typeof upstreamAmounts)[number]

/**
 * - `s3_writes`, `s3_reads`: requests to the bucket by how they are billed
 * - `s3_bytes`: uploaded bytes; `s3_byte_hours`: each of them times the hours from {@link epoch} to its upload, see {@link storedByteHours}
 * - `peer_bytes`: read from other replicas
 */
export const cacheAmounts = ['s3_writes', 's3_reads', 's3_bytes', 's3_byte_hours', 'peer_bytes'] as const
export type CacheAmount = (typeof cacheAmounts)[number]

export type Amounts = ReadonlyMap<string, number>

export const nameOf = (amount: UpstreamAmount, upstream: string): string => `${amount} ${upstream}`

type Parts = { readonly amount: UpstreamAmount; readonly upstream: string }

/** The same few names stand under every month. Bounded, because totals in Redis may hold anything. */
const partsByName = new LRUCache<string, Parts | 'none'>({ max: 4096 })

/** The parts of a name; undefined: it is not one of an upstream. */
export function partsOf(name: string): Parts | undefined {
  const known = partsByName.get(name)
  if (known !== undefined) return known === 'none' ? undefined : known
  const space = name.indexOf(' ')
  const amount = upstreamAmounts.find(each => each === name.slice(0, space))
  const parts = amount === undefined ? undefined : { amount, upstream: name.slice(space + 1) }
  partsByName.set(name, parts ?? 'none')
  return parts
}

/** Where hours are counted from: small numbers keep their digits. */
const epoch = Date.UTC(2026, 0, 1)

export const hoursAt = (now: number): number => (now - epoch) / 3_600_000

/**
 * How many bytes have been stored for how many hours by `now`: nobody has to be there while they lie, since all of them lie since their upload.
 * Of `bytes` uploaded at the times in `byteHours`: bytes × now − Σ bytes × upload.
 */
export function storedByteHours({ bytes, byteHours }: { bytes: number; byteHours: number }, now: number): number {
  return Math.max(0, bytes * hoursAt(now) - byteHours)
}
