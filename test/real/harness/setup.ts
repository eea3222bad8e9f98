import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeAuthority } from './authority.ts'
import { type LayoverOptions, type LayoverProcess, startLayoverProcess } from './layover.ts'
import { scratch } from './process.ts'
import { type LoggedRequest, type Registry, startRegistry } from './registry.ts'
import { attached, images } from './samples.ts'
import { startTokenServer } from './token-server.ts'

/** The name that clients use. It resolves nowhere (RFC 6761), so a client that goes around Layover fails. */
export const upstreamName = 'registry.test'

/** A registry with every sample in it, and what Layover needs to know to pull from it. */
export type Origin = {
  readonly registry: Registry
  readonly upstream: Readonly<Record<string, unknown>>
  close(): Promise<void>
}

/** Plain http, no questions asked. */
export async function anonymousOrigin(): Promise<Origin> {
  const registry = await startRegistry()
  await pushSamples(registry)
  return { registry, upstream: { url: registry.url, insecure: true }, close: () => registry.close() }
}

/** TLS by an authority that no system trusts, and bearer tokens for one account only. */
export async function guardedOrigin(): Promise<Origin> {
  const directory = await scratch('origin')
  const authority = await writeAuthority(directory.path)
  const account = { username: 'ci', password: 'only-for-this-test' }
  const passwordFile = join(directory.path, 'password')
  await writeFile(passwordFile, account.password, { mode: 0o600 })
  const tokens = await startTokenServer(authority, account)
  const registry = await startRegistry({ authority, tokens })
  await pushSamples(registry)
  return {
    registry,
    upstream: {
      url: registry.url,
      ca: authority.caPath,
      username: account.username,
      passwordFile,
      realmHosts: [new URL(tokens.realm).host],
    },
    async close() {
      await registry.close()
      await tokens.close()
      await directory.remove()
    },
  }
}

async function pushSamples(registry: Registry): Promise<void> {
  for (const { repository, tag, image } of [...images, ...attached]) await registry.push(repository, tag, image)
  registry.forgetRequests()
}

/** Layover in front of an origin, which it knows as {@link upstreamName} and by default. */
export function layoverBefore(
  { upstream }: Pick<Origin, 'upstream'>,
  settings: Readonly<Record<string, unknown>> = {},
): Promise<LayoverProcess> {
  // One millisecond: every pull by tag asks upstream, so what is served without it is served because it is gone.
  const upstreams: LayoverOptions['upstreams'] = {
    'docker.io': false,
    [upstreamName]: { default: true, tagTtl: '1ms', ...upstream },
  }
  return startLayoverProcess({ upstreams, settings })
}

/** How often each blob was downloaded, by digest. */
export function blobDownloads(requests: readonly LoggedRequest[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const request of requests.filter(isBlobDownload)) {
    const digest = /sha256:[0-9a-f]{64}/.exec(request.path)?.[0] ?? request.path
    counts.set(digest, (counts.get(digest) ?? 0) + 1)
  }
  return counts
}

export const isBlobDownload = ({ method, path, status }: LoggedRequest): boolean =>
  method === 'GET' && path.includes('/blobs/') && status < 300
