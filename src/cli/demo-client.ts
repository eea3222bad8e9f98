import { Agent, type Dispatcher } from 'undici'
import { type Algorithm, finish, hasher } from '../oci/digest.ts'

/** What one client saw while it pulled an image: everything is counted and hashed, nothing is kept. */
export type Pull = {
  readonly bytes: number
  readonly requests: number
  /** Milliseconds from asking for a layer to its first byte, for each layer. */
  readonly firstByteMs: readonly number[]
  /** What did not hash to its name. */
  readonly wrong: readonly string[]
}

export type PullOptions = {
  /** `http://127.0.0.1:<port>` of the registry or mirror. */
  readonly url: string
  readonly repository: string
  readonly tag: string
  readonly signal: AbortSignal
  readonly onBytes: (bytes: number) => void
}

// As containerd does by default: max_concurrent_downloads = 3.
const parallelLayers = 3

type Descriptor = { readonly digest: string; readonly size: number }

/**
 * Pulls an image as a node would: the manifest by its tag, then the configuration and the layers, over connections of its own.
 * Rejects when a request fails or a body is cut.
 */
export async function pullImage(options: PullOptions): Promise<Pull> {
  const dispatcher = new Agent({ connections: parallelLayers })
  const fetch = (path: string): Promise<Fetched> => fetchAndHash({ ...options, path, dispatcher })
  try {
    const top = await fetch(`manifests/${options.tag}`)
    const { config, layers } = JSON.parse(top.text) as { config: Descriptor; layers: readonly Descriptor[] }
    const waiting = [config, ...layers]
    const fetched: Fetched[] = [top]
    const wrong = top.computed === top.claimed ? [] : [`manifest ${options.tag}`]
    const work = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const blob = await fetch(`blobs/${next.digest}`)
        fetched.push(blob)
        if (blob.computed !== next.digest || blob.bytes !== next.size) wrong.push(next.digest)
      }
    }
    await Promise.all(Array.from({ length: parallelLayers }, work))
    return {
      bytes: fetched.reduce((sum, { bytes }) => sum + bytes, 0),
      requests: fetched.length,
      firstByteMs: fetched.slice(1).map(({ firstByteMs }) => firstByteMs),
      wrong,
    }
  } finally {
    await dispatcher.destroy()
  }
}

type Fetched = {
  /** Digest computed from the bytes. */
  readonly computed: string
  /** Docker-Content-Digest. */
  readonly claimed: string | undefined
  readonly bytes: number
  readonly firstByteMs: number
  /** The body when it is a manifest, else empty. */
  readonly text: string
}

async function fetchAndHash(
  options: PullOptions & { readonly path: string; readonly dispatcher: Dispatcher },
): Promise<Fetched> {
  const { url, repository, path, dispatcher, signal, onBytes } = options
  const start = performance.now()
  const { origin } = new URL(url)
  const { statusCode, headers, body } = await dispatcher.request({
    origin,
    path: `/v2/${repository}/${path}`,
    method: 'GET',
    signal,
  })
  if (statusCode !== 200) throw new Error(`GET ${path}: ${statusCode} ${await body.text()}`)
  const claimed = headers['docker-content-digest']?.toString()
  const isManifest = path.startsWith('manifests/')
  const algorithm: Algorithm = 'sha256'
  const hash = hasher(algorithm)
  const kept: Buffer[] = []
  let bytes = 0
  let firstByteMs = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    if (bytes === 0) firstByteMs = performance.now() - start
    hash.update(chunk)
    bytes += chunk.length
    onBytes(chunk.length)
    if (isManifest) kept.push(chunk)
  }
  return { computed: finish(algorithm, hash), claimed, bytes, firstByteMs, text: Buffer.concat(kept).toString() }
}
