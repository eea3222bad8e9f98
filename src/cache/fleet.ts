import type { Clock } from '../clock.ts'
import type { Observer } from '../log/observer.ts'
import type { Digest } from '../oci/digest.ts'
import type { HeldLease, Lease, Leases } from '../store/leases.ts'
import { type Peer, peerName } from '../upstream/peer.ts'
import { type UpstreamBlob, UpstreamError } from '../upstream/upstream.ts'
import type { Origin } from './origin.ts'
import { RelayedBody } from './relayed-body.ts'

/**
 * All replicas of this cache, as far as one download is concerned: of those that want a blob at the same time, one downloads it and the others
 * read from that one while it does. Nothing is right or wrong because of it: without leases, or when they say nonsense, every replica downloads by
 * itself, and every replica verifies every byte (F-52, F-66).
 */
export interface Fleet {
  /** The part of one download in it. It must be ended. */
  join(digest: Digest): FleetFill
  /** Lets go of every lease, so that the others need not wait for them to lapse. Safe to repeat. */
  close(): Promise<void>
}

export interface FleetFill {
  /**
   * The replica that downloads this blob, whichever it is at the moment. Who reads from it must have authorised its client before: the other
   * replica does not ask (T-11).
   *
   * `open` finds out who downloads: another replica, and the bytes are what it has and gets, also when it dies and the next one takes over; or
   * nobody, and this replica is the one from now on: `notFound`, once and for all. So does the body: it breaks when no other replica is left to read
   * from, and asking again says `notFound`. It belongs before the upstream's own origins.
   */
  readonly origin: Origin
  readonly standing: Standing
  /** To be called as bytes arrive, with how many have arrived in all. Cheap; this is what keeps the lease (F-53). */
  progressed(received: number): void
  /**
   * The download is over. `published`: the others can read the blob here, so the lease is kept for ten seconds, or for as long as `until` takes
   * (its upload to where all find it), at most a minute. Safe to repeat.
   */
  end(end: { readonly published: boolean; readonly until?: Promise<unknown> }): void
}

/**
 * - `undecided`: it was not asked yet
 * - `follower`: the bytes come from another replica
 * - `owner`: this replica downloads for all
 * - `alone`: this replica downloads for itself, because the leases or the other replica cannot be used
 */
export type Standing = 'undecided' | 'follower' | 'owner' | 'alone'

export type FleetDeps = {
  readonly leases: Leases
  /** Under which the others reach this replica. */
  readonly ownUrl: string
  /** The client of the replica at this URL; undefined for a URL that cannot be one. */
  readonly peerAt: (url: string) => Peer | undefined
  readonly clock: Clock
  readonly observer: Pick<Observer, 'storeFailed'>
}

const renewMs = 3_000
/** When nobody could tell whether the lease is still held, it is asked for again soon: it lives on for some seconds. */
const renewAgainMs = 1_000
/** How long others can be sent here for a blob that is downloaded: while it is uploaded, or where nothing says when it can be had elsewhere. */
const lingerMs = { uploading: 60_000, otherwise: 10_000 }
/** Who looked for the blob where all find it just before it was there asks for the lease a moment later: it is sent here rather than upstream. */
const settleMs = 3_000
/** Other replicas that are tried before this one goes alone. */
const maxHolders = 8
/** A holder whose lease was kept within this time is alive, also when it is too busy to answer. */
const aliveMs = 5_000
/** How often one that is alive and does not answer is asked again. Then this replica goes alone, and leaves it its lease. */
const maxUnanswered = 2
/** Connections to one holder that brought no byte: after these it counts as gone, whatever its lease says. */
const maxFruitless = 3

export function createFleet(deps: FleetDeps): Fleet {
  const members = new Set<Member>()
  return {
    join(digest) {
      const member = new Member(deps, digest, () => members.delete(member))
      members.add(member)
      return member
    },
    async close() {
      await Promise.all([...members].map(member => member.leave()))
    },
  }
}

class Member implements FleetFill {
  readonly origin: Origin
  readonly #deps: FleetDeps
  readonly #digest: Digest
  readonly #onLeft: () => void
  #standing: Standing = 'undecided'
  #lease: Lease | undefined
  #received = 0
  #renewedAt = 0
  #renewedBytes = 0
  #isRenewing = false
  #hasEnded = false
  #holder: string | undefined
  #openedAt = -1
  #fruitless = 0
  #lingering: NodeJS.Timeout | undefined
  #leaving: Promise<void> | undefined

  constructor(deps: FleetDeps, digest: Digest, onLeft: () => void) {
    this.#deps = deps
    this.#digest = digest
    this.#onLeft = onLeft
    this.origin = { kind: 'peer', name: peerName, open: (offset, signal, end) => this.#open(offset, signal, end) }
  }

  get standing(): Standing {
    return this.#standing
  }

  progressed(received: number): void {
    this.#received = received
    if (this.#isRenewing || this.#hasEnded || received <= this.#renewedBytes) return
    if (this.#lease === undefined && this.#standing !== 'alone') return
    if (this.#deps.clock.monotonic() - this.#renewedAt < renewMs) return
    this.#isRenewing = true
    const work = this.#lease ? this.#renew(this.#lease, received) : this.#goPublic()
    // Owned by the flag: nobody waits for it, and what goes wrong with leases is reported, not thrown.
    void work.finally(() => (this.#isRenewing = false))
  }

  end({ published, until }: { readonly published: boolean; readonly until?: Promise<unknown> }): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    // Nobody waits for any of it: what goes wrong is reported.
    if (published && this.#lease) this.#linger(this.#lease, until)
    else if (published && this.#standing === 'alone') void this.#offer(until)
    else void this.leave()
  }

  /** Gives the lease back. Safe to repeat. */
  leave(): Promise<void> {
    return (this.#leaving ??= this.#leave())
  }

  async #leave(): Promise<void> {
    this.#hasEnded = true
    clearInterval(this.#lingering)
    const lease = this.#lease
    this.#lease = undefined
    if (lease) await this.#tolerate(lease.release())
    // Last, so that a fleet that closes waits for it.
    this.#onLeft()
  }

  /** Side ranges are no matter of the fleet: far ahead of the download, the other replica has no bytes either. */
  async #open(offset: number, signal: AbortSignal, end: number | undefined): Promise<UpstreamBlob> {
    const blob = end === undefined ? await this.#follow(offset, signal) : undefined
    if (blob === undefined) throw new UpstreamError('notFound', peerName, 'no_owner', 'no other replica downloads it')
    return { ...blob, body: new RelayedBody(blob, position => this.#follow(position, signal)) }
  }

  /** The bytes at whoever downloads them; undefined: that is this replica from now on. */
  async #follow(offset: number, signal: AbortSignal): Promise<UpstreamBlob | undefined> {
    let gone = this.#isFruitless(offset) ? this.#holder : undefined
    let unanswered = 0
    for (let asked = 0; asked < maxHolders; asked++) {
      signal.throwIfAborted()
      const held = await this.#claim(gone)
      if (held === undefined) return undefined
      const holder = held.heldBy
      gone = undefined
      signal.throwIfAborted()
      try {
        const peer = this.#deps.peerAt(holder)
        if (!peer) break
        const blob = await peer.open(this.#digest, offset, signal)
        if (blob.offset > offset) {
          blob.body.destroy()
          break
        }
        this.#noteHolder(holder)
        return blob
      } catch (error) {
        signal.throwIfAborted()
        const isBusy = isSilence(error) && held.idleMs < aliveMs
        if (!isGone(error) || (isBusy && ++unanswered > maxUnanswered)) {
          this.#deps.observer.storeFailed('peer', error)
          break
        }
        if (!isBusy) gone = holder
      }
    }
    this.#goAlone()
    return undefined
  }

  /** Asks for the lease; gives who has it, or undefined when this replica goes by itself, with the lease or without. */
  async #claim(gone: string | undefined): Promise<HeldLease | undefined> {
    if (this.#standing === 'owner' || this.#standing === 'alone' || this.#hasEnded) return undefined
    if (gone !== undefined) await this.#releaseFor(gone)
    const claim = await this.#acquire(this.#deps.ownUrl)
    if (claim === undefined) this.#goAlone()
    else if ('heldBy' in claim) {
      if (claim.heldBy !== this.#deps.ownUrl) return claim
      this.#goAlone()
    } else this.#own(claim)
    return undefined
  }

  #goAlone(): void {
    this.#standing = 'alone'
    this.#renewedAt = this.#deps.clock.monotonic()
  }

  /** Who goes alone, because the store could not be asked or another was at it, is there for those who come later as soon as the lease is free. */
  async #goPublic(): Promise<void> {
    this.#renewedAt = this.#deps.clock.monotonic()
    const claim = await this.#acquire(this.#deps.ownUrl)
    if (claim && !('heldBy' in claim)) this.#own(claim)
  }

  /** What was downloaded without a lease can be read here as well, until all find it elsewhere. */
  async #offer(until: Promise<unknown> | undefined): Promise<void> {
    const claim = await this.#acquire(this.#deps.ownUrl)
    if (!claim || 'heldBy' in claim) return this.leave()
    this.#lease = claim
    if (!this.#leaving) return this.#linger(claim, until)
    this.#lease = undefined
    await this.#tolerate(claim.release())
  }

  /**
   * Lets go of a lease in the name of a replica that is dead, so that nobody waits for it to lapse. Only that replica's own lease can be taken like
   * this, as it would itself after a restart: once one of those who wait has it, the others get to know that one. If it is alive
   * after all, it finds its lease lost and finishes what it does.
   */
  async #releaseFor(url: string): Promise<void> {
    const claim = await this.#acquire(url)
    if (claim && !('heldBy' in claim)) await this.#tolerate(claim.release())
  }

  #own(lease: Lease): void {
    this.#standing = 'owner'
    // It ended while it was being asked for.
    if (this.#hasEnded) return void this.#tolerate(lease.release())
    this.#lease = lease
    this.#renewedAt = this.#deps.clock.monotonic()
    this.#renewedBytes = this.#received
  }

  async #renew(lease: Lease, received: number): Promise<void> {
    const { clock } = this.#deps
    this.#renewedAt = clock.monotonic()
    const isHeld = await this.#tolerate(lease.renew(received))
    if (this.#lease !== lease) return
    // A slow store has not taken it away: it is kept, and asked for again (F-60).
    if (isHeld === undefined) this.#renewedAt = clock.monotonic() - renewMs + renewAgainMs
    else this.#renewedBytes = received
    if (isHeld !== false) return
    // Lapsed because upstream stood still, or lost with the store: have it again if nobody else has it, and go on either way (F-63).
    this.#lease = undefined
    const claim = this.#hasEnded ? undefined : await this.#acquire(this.#deps.ownUrl)
    if (claim && !('heldBy' in claim)) this.#own(claim)
    else this.#goAlone()
  }

  #linger(lease: Lease, until: Promise<unknown> | undefined): void {
    const { clock } = this.#deps
    let deadline = clock.monotonic() + (until ? lingerMs.uploading : lingerMs.otherwise)
    let beats = 0
    const renew = (): void => {
      // Each one counts as progress, after the last byte: what goes on is the upload.
      void this.#tolerate(lease.renew(this.#received + ++beats))
    }
    renew()
    const settled = (): void => void (deadline = Math.min(deadline, clock.monotonic() + settleMs))
    this.#lingering = setInterval(() => {
      if (clock.monotonic() >= deadline) void this.leave()
      else renew()
    }, renewMs).unref()
    until?.then(settled, settled)
  }

  #noteHolder(holder: string): void {
    this.#standing = 'follower'
    this.#holder = holder
  }

  /** Counts connections that begin where the last one did. */
  #isFruitless(offset: number): boolean {
    this.#fruitless = offset === this.#openedAt ? this.#fruitless + 1 : 0
    this.#openedAt = offset
    return this.#fruitless >= maxFruitless
  }

  async #acquire(url: string): ReturnType<Leases['acquire']> {
    return await this.#tolerate(this.#deps.leases.acquire(this.#digest, { url }))
  }

  /** Leases are a help, not a condition. */
  async #tolerate<T>(work: Promise<T>): Promise<T | undefined> {
    try {
      return await work
    } catch (error) {
      this.#deps.observer.storeFailed('lease', error)
      return undefined
    }
  }
}

/** It died, stopped or has forgotten: somebody else should do it. A replica that refuses us is none of that. */
function isGone(error: unknown): boolean {
  return error instanceof UpstreamError && (error.failure === 'notFound' || error.failure === 'unavailable')
}

/** It may only be busy. */
function isSilence(error: unknown): boolean {
  return error instanceof UpstreamError && error.failure === 'unavailable' && error.reason === 'timeout'
}
