import type { FakeImage } from '../fakes/image.ts'
import type { TestLayover } from '../fakes/layover.ts'
import type { FakeRegistry } from '../fakes/registry.ts'
import { openStream } from '../edge/pulling.ts'

/** Asks, reads to the end or to where it is cut, and gives the status. What came is of no interest here. */
export async function ask(layover: TestLayover, path: string, headers: Record<string, string> = {}): Promise<number> {
  const stream = await openStream(layover, path, headers)
  await stream.rest()
  return stream.response.statusCode ?? 0
}

export const manifestPath = (upstream: string, repository: string, reference: string): string =>
  `/v2/${upstream}/${repository}/manifests/${reference}`

export const blobPath = (upstream: string, repository: string, digest: string): string =>
  `/v2/${upstream}/${repository}/blobs/${digest}`

/** A pull as a node makes it: the tag, the manifest by digest, all blobs. */
export async function pull(
  layover: TestLayover,
  upstream: string,
  repository: string,
  image: FakeImage,
  tag = 'latest',
) {
  await ask(layover, manifestPath(upstream, repository, tag))
  await ask(layover, manifestPath(upstream, repository, image.digest))
  for (const { digest } of [image.config, ...image.layers]) await ask(layover, blobPath(upstream, repository, digest))
}

/** Both clients read the same download: the second comes while the first one waits in the middle of it. */
export async function together(
  registry: FakeRegistry,
  digest: string,
  first: () => ReturnType<typeof openStream>,
  second: () => ReturnType<typeof openStream>,
): Promise<void> {
  const gate = registry.gate({ method: 'GET', path: new RegExp(digest), afterBytes: 20_000 })
  const one = await first()
  await gate.reached
  const other = await second()
  await other.read(1_000)
  gate.release()
  await Promise.all([one.rest(), other.rest()])
}
