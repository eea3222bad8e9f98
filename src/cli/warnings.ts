import { readFileSync } from 'node:fs'
import { formatAddress, isLoopback } from '../config/address.ts'
import type { Config, UpstreamConfig } from '../config/config.ts'

/** What an operator must know before anyone else finds out: one sentence each, without secrets. */
export function loudWarnings(config: Config, readFile = (path: string) => readFileSync(path, 'utf8')): string[] {
  const warnings: string[] = []
  const listen = formatAddress(config.listen)
  const withCredentials = config.upstreams
    .filter(upstream => mayHaveCredentials(upstream, readFile))
    .map(({ name }) => name)
  if (withCredentials.length > 0)
    warnings.push(
      `credentials are configured for ${withCredentials.join(', ')}: everything that these credentials can read is readable by whoever reaches ${listen}`,
    )
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
  return warnings
}

const overHttp = ({ url, mirrors }: UpstreamConfig): boolean => [url, ...mirrors].some(each => each.startsWith('http:'))

/** A docker config.json counts when it names this registry, or hands everything to a credential store. */
function mayHaveCredentials(upstream: UpstreamConfig, readFile: (path: string) => string): boolean {
  const { credentials } = upstream
  if (credentials?.kind !== 'dockerConfig') return credentials !== undefined
  try {
    const file = JSON.parse(readFile(credentials.path)) as Record<string, unknown>
    if (typeof file['credsStore'] === 'string' && file['credsStore'] !== '') return true
    const sections = [file['auths'], file['credHelpers']]
    const named = new Set(sections.flatMap(section => Object.keys(section ?? {})).map(hostOf))
    return [upstream.name, ...upstream.aliases].some(name => named.has(name))
  } catch {
    // It was readable and JSON when the configuration was read; if not any more, better one warning too many.
    return true
  }
}

/** `https://index.docker.io/v1/` → `index.docker.io` */
const hostOf = (key: string): string => key.replace(/^[a-z]+:\/\//, '').replace(/\/.*$/, '')
