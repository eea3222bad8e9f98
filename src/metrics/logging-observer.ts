import type { Log } from '../log/log.ts'
import type { Observer } from '../log/observer.ts'

/** Counts everything and logs what an operator should see: one line for each download that failed, each answer that was refused for its content, each store failure, each change of an upstream's state. */
export function loggingObserver(counting: Observer, log: Log): Observer {
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
    },
    contentRejected({ upstream, kind, digest, reason }) {
      counting.contentRejected({ upstream, kind, digest, reason })
      log.warn({ upstream, kind, digest, reason }, 'refused what upstream sent')
    },
    evicted(blobs, bytes) {
      counting.evicted(blobs, bytes)
      log.debug({ blobs, bytes }, 'evicted')
    },
    storeFailed(operation, error) {
      counting.storeFailed(operation, error)
      log.warn({ operation, error }, 'a store failed; the pull went on')
    },
    sharedRequest: (operation, outcome) => counting.sharedRequest(operation, outcome),
    sharedBytes: (direction, bytes) => counting.sharedBytes(direction, bytes),
  }
}
