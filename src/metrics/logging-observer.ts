import { type Clock, systemClock } from '../clock.ts'
import type { Log } from '../log/log.ts'
import type { FillEnded, Observer } from '../log/observer.ts'

const quietMs = 60_000

/** Counts everything and logs what an operator should see: one line for each download that failed, each answer that was refused for its content, each store failure, each change of an upstream's state, and downloads that were not kept. */
export function loggingObserver(counting: Observer, log: Log, clock: Clock = systemClock): Observer {
  const tellUncached = uncachedTeller(log, clock)
  const states = new Map<string, string>()
  return {
    upstreamRequest: event => counting.upstreamRequest(event),
    upstreamBytes: (upstream, kind, bytes) => counting.upstreamBytes(upstream, kind, bytes),
    upstreamRateLimit: (upstream, limit) => counting.upstreamRateLimit(upstream, limit),
    upstreamState(upstream, state) {
      counting.upstreamState(upstream, state)
      const before = states.get(upstream) ?? 'closed'
      states.set(upstream, state)
      if (state === before) return
      if (state === 'open') log.warn({ upstream }, 'upstream cannot be reached; serving what is cached')
      if (state === 'closed') log.info({ upstream }, 'upstream answers again')
    },
    fillStarted: upstream => counting.fillStarted(upstream),
    fillResumed(upstream, reason) {
      counting.fillResumed(upstream, reason)
      log.info({ upstream, reason }, 'download resumed')
    },
    fillEnded(event) {
      counting.fillEnded(event)
      if (event.outcome === 'failed') log.warn(event, 'download failed')
      else log.debug(event, 'download ended')
      if (event.outcome === 'uncached') tellUncached(event)
    },
    contentRejected({ upstream, kind, digest, reason }) {
      counting.contentRejected({ upstream, kind, digest, reason })
      log.warn({ upstream, kind, digest, reason }, 'refused what upstream sent')
    },
    revalidated: (upstream, result) => counting.revalidated(upstream, result),
    evicted(blobs, bytes, reason) {
      counting.evicted(blobs, bytes, reason)
      log.debug({ blobs, bytes, reason }, 'evicted')
    },
    storeFailed(operation, error) {
      counting.storeFailed(operation, error)
      log.warn({ operation, error }, 'a store failed; the pull went on')
    },
    sharedRequest: (operation, outcome, seconds) => counting.sharedRequest(operation, outcome, seconds),
    sharedBytes: (direction, bytes) => counting.sharedBytes(direction, bytes),
    redisCommand: (outcome, seconds) => counting.redisCommand(outcome, seconds),
    leaseSettled: result => counting.leaseSettled(result),
    peerBytes: (direction, bytes) => counting.peerBytes(direction, bytes),
  }
}

/** One line the first time, then at most one in a minute, with how many downloads it stands for: a full disk concerns every pull. */
function uncachedTeller(log: Log, clock: Clock): (event: FillEnded) => void {
  let count = 0
  let toldAt: number | undefined
  return ({ upstream, digest, bytes }) => {
    count += 1
    const now = clock.monotonic()
    if (toldAt !== undefined && now - toldAt < quietMs) return
    log.warn(
      { upstream, digest, bytes, count },
      'not cached: downloads were streamed and not kept; is there room in the data directory and in storage.maxBytes?',
    )
    toldAt = now
    count = 0
  }
}
