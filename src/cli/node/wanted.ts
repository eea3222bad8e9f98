import { lookup } from 'node:dns/promises'
import { basename } from 'node:path'
import { isRegistryHost } from '../../config/address.ts'
import type { Config } from '../../config/config.ts'
import { ConfigError } from '../../config/problem.ts'
import { nearest } from '../../config/suggestion.ts'
import { describeError } from '../../log/redact.ts'
import { containerd } from '../../mirror/containerd.ts'
import { crio, podman } from '../../mirror/containers.ts'
import type { MirrorOptions } from '../../mirror/client.ts'
import { docker } from '../../mirror/docker.ts'
import { hostsTomlFiles } from '../../mirror/hosts-toml.ts'
import { mirrorOptions } from '../mirror.ts'
import type { WantedFile } from './own-files.ts'

/** The clients that read whole files, which can therefore be put in place and taken back without touching anything else. */
export const nodeClientNames = ['containerd', 'docker', 'podman', 'crio'] as const
export type NodeClientName = (typeof nodeClientNames)[number]

export type WantedOptions = {
  readonly client: string
  readonly url: string
  readonly upstream: readonly string[]
  readonly containerdVersion?: string
  readonly airGapped?: boolean
  readonly ca?: string
  /** true: write the address that the host of the URL has here. */
  readonly resolve?: boolean
}

export type Wanted = { readonly files: readonly WantedFile[]; readonly notes: readonly string[] }

type NodeClient = { readonly root: string; readonly files: (options: MirrorOptions) => WantedFile[] }

const hostsToml = (options: MirrorOptions): WantedFile[] =>
  hostsTomlFiles('.', options).map(({ path, text }) => ({ path: path.replace(/^\.\//, ''), text }))

/** The one file that podman and CRI-O read beside all others. */
const registriesConf =
  (client: typeof podman) =>
  (options: MirrorOptions): WantedFile[] =>
    client(options).files.map(({ path, text }) => ({ path: basename(path), text }))

const clients: Readonly<Record<NodeClientName, NodeClient>> = {
  containerd: { root: '/etc/containerd/certs.d', files: hostsToml },
  docker: { root: '/etc/docker/certs.d', files: hostsToml },
  podman: { root: '/etc/containers/registries.conf.d', files: registriesConf(podman) },
  crio: { root: '/etc/containers/registries.conf.d', files: registriesConf(crio) },
}

const notesOf: Readonly<Record<NodeClientName, (options: MirrorOptions) => readonly string[]>> = {
  // What containerd's page says of config.toml is said after a look at the file instead.
  containerd: options => containerd(options).notes.filter(note => !/config_path|--containerd-version/.test(note)),
  // daemon.json is shared with other settings, so it is not written.
  docker: options => [
    ...docker(options).notes.filter(note => !note.includes('daemon.json') && !note.includes('registry-mirrors')),
    'An older image store reads daemon.json instead, which is left alone: layover mirror docker prints what belongs there.',
  ],
  podman: options => podman(options).notes,
  crio: options => crio(options).notes,
}

/** The directory that this client reads. Throws ConfigError for another name. */
export const defaultRootOf = (client: string): string => clients[knownClient(client)].root

function knownClient(client: string): NodeClientName {
  const name = nodeClientNames.find(each => each === client)
  if (name !== undefined) return name
  throw usage('--client', `expected one of ${nodeClientNames.join(', ')}; for others see layover mirror --help`)
}

const usage = (where: string, message: string): ConfigError => new ConfigError([{ where, message }])

/** The files that these options mean. Throws ConfigError for options that mean nothing, and an error when a name has no address now. */
export async function wantedFiles(options: WantedOptions, config: Config): Promise<Wanted> {
  const client = knownClient(options.client)
  const { upstream, url: given, ...rest } = options
  const known = upstream.filter(name =>
    config.upstreams.some(each => each.name === name || each.aliases.includes(name)),
  )
  const others = upstream.filter(name => !known.includes(name))
  const read = mirrorOptions({ ...rest, url: given, upstream: known }, config)
  const meant: MirrorOptions = {
    ...read,
    url: options.resolve === true ? await resolved(read.url) : read.url,
    upstreams: [...(upstream.length > 0 && known.length === 0 ? [] : read.upstreams), ...others.map(stranger)],
    everyUpstream: upstream.length === 0,
  }
  return {
    files: clients[client].files(meant),
    notes: [...others.map(name => unknown(name, config)), ...notesOf[client](meant)],
  }
}

/** A registry that this configuration does not have. On a node there is none, so it is believed. */
function stranger(name: string): MirrorOptions['upstreams'][number] {
  if (isRegistryHost(name)) return { name, aliases: [], isDefault: false }
  throw usage('--upstream', `${JSON.stringify(name)} is no host, expected one as it stands in front of an image name`)
}

function unknown(name: string, { upstreams }: Config): string {
  const near = nearest(
    name,
    upstreams.map(each => each.name),
  )
  return `${name} is not built in: it must be an upstream of the Layover at --url${near === undefined ? '.' : `, unless ${near} was meant.`}`
}

/** Of several addresses always the same one, so that files do not change from look to look. */
async function resolved(url: URL): Promise<URL> {
  if (url.protocol === 'https:')
    throw usage('--resolve', 'is for http alone: a certificate is for the name, and the address would replace it')
  const addresses = await lookup(url.hostname.replace(/^\[(.*)\]$/, '$1'), { all: true }).catch((cause: unknown) => {
    throw new Error(`${url.hostname} has no address: ${describeError(cause)}`, { cause })
  })
  const [first] = addresses.map(({ address, family }) => (family === 6 ? `[${address}]` : address)).sort()
  if (first === undefined) throw new Error(`${url.hostname} has no address`)
  const direct = new URL(url)
  direct.hostname = first
  return direct
}
