import { readFileSync, statfsSync } from 'node:fs'
import { dirname } from 'node:path'
import { formatAddress, isLoopback } from '../config/address.ts'
import type { Config, UpstreamConfig } from '../config/config.ts'
import { formatSize } from '../config/size.ts'

type ReadFile = (path: string) => string

/** Bytes of the file system that holds the path; undefined where the system does not say. Throws when the path is not there. */
type DiskSize = (path: string) => number | undefined

/** What an operator must know before anyone else finds out: one sentence each, without secrets. */
export function loudWarnings(
  config: Config,
  readFile: ReadFile = path => readFileSync(path, 'utf8'),
  diskSize: DiskSize = sizeOfDisk,
): string[] {
  const warnings: string[] = []
  const listen = formatAddress(config.listen)
  const withCredentials = config.upstreams
    .filter(upstream => mayHaveCredentials(upstream, readFile))
    .map(({ name }) => name)
  if (withCredentials.length > 0)
    warnings.push(
      `credentials are configured for ${withCredentials.join(', ')}: everything that these credentials can read is readable by whoever reaches ${listen}`,
    )
  for (const path of filesWithHelpers(config, readFile))
    warnings.push(`${path} names credential helpers: they are not run, only the entries of its auths are used`)
  for (const upstream of config.upstreams.filter(({ insecure }) => insecure))
    warnings.push(
      `${upstream.name} is insecure: ${overHttp(upstream) ? 'plain http is used' : 'certificates are not verified'}, so whoever is on the way can read what is pulled and decide what a tag means`,
    )
  for (const upstream of config.upstreams.filter(each => overHttp(each) && mayHaveCredentials(each, readFile)))
    warnings.push(`the password for ${upstream.name} goes over plain http`)
  if (!isLoopback(config.admin.host))
    warnings.push(
      `the admin listener ${formatAddress(config.admin)} is not on loopback: metrics and status are open to whoever reaches it`,
    )
  const disk = diskUnder(config.dataDir, diskSize)
  if (disk !== undefined && config.storage.maxBytes > disk)
    warnings.push(
      `storage.maxBytes is ${formatSize(config.storage.maxBytes)}, but the file system of ${config.dataDir} has only ${formatSize(disk)}: the disk will be full before the cache is, and whatever else is on it suffers`,
    )
  return warnings
}

function sizeOfDisk(path: string): number | undefined {
  const { blocks, bsize } = statfsSync(path)
  return blocks === 0 ? undefined : blocks * bsize
}

/** Asks the nearest directory above when `path` is not created yet. */
function diskUnder(path: string, diskSize: DiskSize): number | undefined {
  try {
    return diskSize(path)
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT'
    return missing && dirname(path) !== path ? diskUnder(dirname(path), diskSize) : undefined
  }
}

const overHttp = ({ url, mirrors }: UpstreamConfig): boolean => [url, ...mirrors].some(each => each.startsWith('http:'))

/** A docker config.json counts when it holds credentials of this registry. */
function mayHaveCredentials(upstream: UpstreamConfig, readFile: ReadFile): boolean {
  const { credentials, name, aliases, url } = upstream
  if (credentials?.kind !== 'dockerConfig') return credentials !== undefined
  const file = readDockerConfig(credentials.path, readFile)
  // It was readable and JSON when the configuration was read; if not any more, better one warning too many.
  if (file === undefined) return true
  const hosts = new Set([name, ...aliases, new URL(url).host])
  return Object.entries(file['auths'] ?? {}).some(
    ([key, entry]) => hosts.has(hostOf(key)) && Object.keys((entry as object | null) ?? {}).length > 0,
  )
}

/** Files whose credentials lie with a helper program, which is never run here: that registry would be asked anonymously. */
function filesWithHelpers(config: Config, readFile: ReadFile): string[] {
  const paths = config.upstreams.flatMap(({ credentials }) =>
    credentials?.kind === 'dockerConfig' ? [credentials.path] : [],
  )
  return [...new Set(paths)].filter(path => {
    const { credsStore, credHelpers } = readDockerConfig(path, readFile) ?? {}
    return Boolean(credsStore) || Object.keys(credHelpers ?? {}).length > 0
  })
}

function readDockerConfig(path: string, readFile: ReadFile): Record<string, unknown> | undefined {
  try {
    return JSON.parse(readFile(path)) as Record<string, unknown>
  } catch {
    return undefined
  }
}

/** `https://index.docker.io/v1/` → `index.docker.io` */
const hostOf = (key: string): string => key.replace(/^[a-z]+:\/\//, '').replace(/\/.*$/, '')
