import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { Digest } from '../oci/digest.ts'
import type { Target } from '../routing/target.ts'
import { type Upstream, UpstreamError } from '../upstream/upstream.ts'
import { createFlights } from './flights.ts'
import { ageOf, type Moment, momentOf } from './freshness.ts'

/**
 * How long the right to a repository is good without upstream's word (T-16, docs/adr/0010). Known in this process only: after a start upstream is asked
 * with the first use.
 */
export interface RightsAge {
  /** Upstream just gave or acknowledged something of this repository. */
  heard(target: Target): void
  /** The right needs no question now. Always true where rights do not age. */
  isFresh(target: Target): boolean
  /**
   * False: upstream says that the repository may not have this digest any more. Asks when it is time, one question for all who wait; true as well when
   * upstream cannot answer within {@link patienceMs}.
   */
  stillHolds(target: Target, digest: Digest, kind: 'manifest' | 'blob'): Promise<boolean>
}

export type RightsAgeDependencies = {
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly clock: Clock
  readonly offline: boolean
  /** Undefined: rights of this upstream do not age. */
  readonly maxAgeMs: (upstream: string) => number | undefined
}

/** A client that waits for what is cached should not notice that upstream stands still. */
const patienceMs = 3_000
/** An upstream that could not answer is left alone for so long. */
const pauseMs = 60_000
const rememberedRepositories = 20_000

export function createRightsAge({ upstreams, clock, offline, maxAgeMs }: RightsAgeDependencies): RightsAge {
  const heardAt = new LRUCache<string, Moment>({ max: rememberedRepositories })
  /** Until when upstream is not asked about the repository (monotonic). */
  const paused = new LRUCache<string, number>({ max: rememberedRepositories })
  const questions = createFlights<boolean>()

  const heard = (target: Target): void => {
    if (maxAgeMs(target.upstream) !== undefined) heardAt.set(keyOf(target), momentOf(clock))
  }

  const isFresh = (target: Target): boolean => {
    const maxAge = maxAgeMs(target.upstream)
    if (maxAge === undefined) return true
    const at = heardAt.get(keyOf(target))
    return at !== undefined && ageOf(at, clock) < maxAge
  }

  const cannotAsk = (target: Target, upstream: Upstream | undefined): boolean =>
    offline ||
    upstream === undefined ||
    upstream.health().state === 'open' ||
    (paused.get(keyOf(target)) ?? Number.NEGATIVE_INFINITY) > clock.monotonic()

  const ask = async (upstream: Upstream, question: Question, abandoned: AbortSignal): Promise<boolean> => {
    const { target } = question
    try {
      await acknowledged(upstream, question, AbortSignal.any([abandoned, AbortSignal.timeout(patienceMs)]))
      heard(target)
      return true
    } catch (error) {
      if (isWithdrawal(error)) return false
      paused.set(keyOf(target), clock.monotonic() + pauseMs)
      return true
    }
  }

  return {
    heard,
    isFresh,
    async stillHolds(target, digest, kind) {
      if (isFresh(target)) return true
      const upstream = upstreams.get(target.upstream)
      if (upstream === undefined || cannotAsk(target, upstream)) return true
      const question = { target, digest, kind }
      const { value } = await questions.share(`${keyOf(target)} ${digest}`, signal => ask(upstream, question, signal))
      return value
    },
  }
}

type Question = { readonly target: Target; readonly digest: Digest; readonly kind: 'manifest' | 'blob' }

async function acknowledged(
  upstream: Upstream,
  { target, digest, kind }: Question,
  signal: AbortSignal,
): Promise<void> {
  const { repository } = target
  if (kind === 'blob') {
    await upstream.headBlob(repository, digest, { signal })
    return
  }
  const head = await upstream.headManifest(repository, digest, { signal })
  // A registry that refuses HEAD may refuse only that; its answer to GET is what counts (F-32).
  if (head.digest === undefined) await upstream.getManifest(repository, digest, { signal })
}

/**
 * Upstream does not let us have it (any more). A password of ours that it does not take, or that cannot be read, says nothing about the repository:
 * somebody changed it and forgot us.
 */
export function isWithdrawal(error: unknown): boolean {
  if (!(error instanceof UpstreamError)) return false
  if (error.failure === 'notFound') return true
  return error.failure === 'denied' && error.reason !== 'bad_credentials' && error.reason !== 'credentials'
}

const keyOf = ({ upstream, repository }: Target): string => `${upstream} ${repository}`
