import type { Digest } from '../oci/digest.ts'
import type { SharedBlobs } from '../store/stores.ts'
import { type Upstream, UpstreamError } from '../upstream/upstream.ts'
import type { Origin } from './origin.ts'

/** What the repository on whose behalf a download runs may have (T-11). */
export interface RepositoryRight {
  /** True when the bytes may be given to it without asking upstream. */
  isHeld(): Promise<boolean>
  /** Asks upstream under this repository; rejects when it does not confirm. */
  confirm(signal: AbortSignal): Promise<void>
}

export type UpstreamOriginsOptions = {
  readonly upstream: Upstream
  readonly repository: string
  readonly digest: Digest
  /** Queues behind what clients wait for. */
  readonly background: boolean
}

/** The upstream's own URL, then its mirrors. They look at the repository's rights by themselves. */
export function upstreamOrigins({ upstream, repository, digest, background }: UpstreamOriginsOptions): Origin[] {
  return Array.from({ length: upstream.sources }, (_, source) => ({
    kind: 'upstream',
    name: `${upstream.name}#${source}`,
    open: (offset, signal, end) =>
      upstream.getBlob(repository, digest, {
        offset,
        source,
        signal,
        background,
        ...(end === undefined ? {} : { end }),
      }),
  }))
}

/** In errors, logs and metrics. */
const sharedName = 'shared'

export type SharedOriginOptions = {
  readonly shared: SharedBlobs
  readonly digest: Digest
  readonly right: RepositoryRight
}

/**
 * The store that replicas share, as one more place to read a blob from. What it holds is here already: without a right upstream confirms first.
 * Whatever it cannot do is `unavailable`, and no word about upstream.
 */
export function sharedOrigin({ shared, digest, right }: SharedOriginOptions): Origin {
  const absent = (): UpstreamError =>
    new UpstreamError('notFound', sharedName, 'not_found', 'the shared store does not have it')
  const ask = async <T>(signal: AbortSignal, work: () => Promise<T | undefined>): Promise<T> => {
    const answer = await work().catch((cause: unknown) => {
      signal.throwIfAborted()
      throw new UpstreamError('unavailable', sharedName, 'shared_store', 'the shared store cannot be asked', { cause })
    })
    if (answer === undefined) throw absent()
    return answer
  }
  return {
    kind: 'shared',
    name: sharedName,
    async open(offset, signal, end) {
      if (!(await right.isHeld())) {
        // One request to the store before one to upstream: most of what needs confirming is not there.
        await ask(signal, () => shared.size(digest, signal))
        await confirmed(right, sharedName, signal)
      }
      const options = { offset, signal, ...(end === undefined ? {} : { end }) }
      return { ...(await ask(signal, () => shared.open(digest, options))), etag: undefined }
    },
  }
}

/**
 * The replica that downloads the blob now, as one more place to read it from. Who that is shows only by asking it, so the right is looked at
 * between its answer and its first byte.
 */
export function peerOrigin(peer: Origin, right: RepositoryRight): Origin {
  return {
    kind: 'peer',
    name: peer.name,
    async open(offset, signal, end) {
      const blob = await peer.open(offset, signal, end)
      // It may break while the right is looked at. Whoever reads it then finds it broken; an error that nobody listens for would end the process.
      blob.body.on('error', () => undefined)
      try {
        if (!(await right.isHeld())) await confirmed(right, peer.name, signal)
        return blob
      } catch (error) {
        blob.body.destroy()
        throw error
      }
    },
  }
}

/** Upstream's refusal closes this way only; the download then asks upstream for the bytes, and its answer is what counts. */
async function confirmed(right: RepositoryRight, origin: string, signal: AbortSignal): Promise<void> {
  await right.confirm(signal).catch((cause: unknown) => {
    signal.throwIfAborted()
    throw new UpstreamError('denied', origin, 'denied', 'upstream did not confirm it for this repository', { cause })
  })
}
