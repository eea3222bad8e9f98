import type { Blobs } from '../cache/blobs.ts'
import { createFleet, type Fleet } from '../cache/fleet.ts'
import type { Clock } from '../clock.ts'
import type { ReplicaConfig } from '../config/config.ts'
import { createReplicaListener } from '../edge/replica-listener.ts'
import type { WriteWatch } from '../edge/send-bytes.ts'
import { type RunningServer, startServer } from '../edge/server.ts'
import type { Log } from '../log/log.ts'
import type { Observer } from '../log/observer.ts'
import type { Leases } from '../store/leases.ts'
import type { Tracer } from '../tracing/tracer.ts'
import { createPeers } from '../upstream/peer.ts'
import { readReplicaSecret } from '../upstream/replica-signature.ts'

export type ReplicaOptions = {
  readonly config: ReplicaConfig
  readonly leases: Leases
  readonly clock: Clock
  readonly observer: Observer
  readonly log: Log
  readonly tracer: Tracer
}

/** This process as one replica of several. */
export type Replica = {
  readonly fleet: Fleet
  /** Answers the other replicas. */
  listen(parts: { readonly blobs: Blobs; readonly watch: WriteWatch }): Promise<RunningServer>
  close(): Promise<void>
}

/** Rejects when the secret cannot be used. */
export async function createReplica({
  config,
  leases,
  clock,
  observer,
  log,
  tracer,
}: ReplicaOptions): Promise<Replica> {
  const secret = await readReplicaSecret(config.secretFile)
  const peers = createPeers({ secret, clock, tracer, onBytes: bytes => observer.peerBytes('read', bytes) })
  const fleet = createFleet({ leases, ownUrl: config.url, peerAt: url => peers.at(url), clock, observer })
  return {
    fleet,
    listen: ({ blobs, watch }) => {
      const handler = createReplicaListener({
        openHere: (digest, signal) => blobs.openHere(digest, signal),
        secret,
        clock,
        watch,
        tracer,
        onSent: bytes => observer.peerBytes('sent', bytes),
        onError: error => log.warn({ error }, 'another replica could not be answered'),
      })
      return startServer({ address: config.listen, handler, maxConnections: maxReplicaConnections })
    },
    close: async () => {
      await fleet.close()
      await peers.close()
    },
  }
}

/** One for each download that another replica reads here. */
const maxReplicaConnections = 4_096
