import { hostname } from 'node:os'
import { isUnspecified } from '../config/address.ts'
import type { Config } from '../config/config.ts'
import { ConfigError } from '../config/problem.ts'
import { nearest } from '../config/suggestion.ts'
import {
  type ClientName,
  clientNames,
  type ContainerdVersion,
  type MirrorOptions,
  type NodeSetup,
} from '../mirror/client.ts'
import { clients } from '../mirror/clients.ts'
import { isUndialable, problemOfUrl, urlOfListener } from '../mirror/url.ts'
import { exitCode } from './exit.ts'
import { type ConfigOptions, readConfigFor, reportConfigError } from './options.ts'
import type { Terminal } from './terminal.ts'

export type MirrorCommandOptions = ConfigOptions & {
  readonly url?: string
  readonly upstream: readonly string[]
  readonly containerdVersion?: string
  readonly airGapped?: boolean
  readonly ca?: string
}

/** Prints the node configuration of one client. Gives the exit code. */
export function mirror(client: string, options: MirrorCommandOptions, terminal: Terminal): number {
  try {
    const name = clientNames.find(each => each === client)
    if (name === undefined) throw usage('client', wrongClient(client))
    const { config } = readConfigFor(options, terminal)
    const { files, notes } = clients[name](mirrorOptions(options, config))
    terminal.out(describeSetup({ files, notes: [...notes, ...addressNotes(options, config)] }))
    return exitCode.ok
  } catch (error) {
    return reportConfigError(error, terminal)
  }
}

const usage = (where: string, message: string): ConfigError => new ConfigError([{ where, message }])

/** Clients that read what another one reads. */
const readsFilesOf: Readonly<Record<string, ClientName>> = {
  skopeo: 'podman',
  buildah: 'podman',
  nerdctl: 'containerd',
  buildx: 'buildkit',
}

function wrongClient(client: string): string {
  const other = Object.hasOwn(readsFilesOf, client) ? readsFilesOf[client] : undefined
  if (other !== undefined) return `${client} reads the files of ${other}: layover mirror ${other}`
  const near = nearest(client, clientNames)
  return `expected one of ${clientNames.join(', ')}${near === undefined ? '' : `, did you mean ${near}?`}`
}

/** What the options of `mirror` and of `node install` mean, with what is configured. Throws ConfigError. */
export function mirrorOptions(options: MirrorCommandOptions, config: Config): MirrorOptions {
  const configured = config.upstreams.map(({ name, aliases, default: isDefault }) => ({ name, aliases, isDefault }))
  const names = options.upstream.map(asked => {
    const found = configured.find(({ name, aliases }) => name === asked || aliases.includes(asked))
    if (found !== undefined) return found.name
    const near = nearest(
      asked,
      configured.map(({ name }) => name),
    )
    throw usage(
      '--upstream',
      `${JSON.stringify(asked)} is not configured${near === undefined ? '' : `, did you mean ${near}?`}`,
    )
  })
  return {
    url: readUrl(options.url, config),
    upstreams: configured.filter(({ name }) => names.length === 0 || names.includes(name)),
    everyUpstream: names.length === 0,
    containerdVersion: readVersion(options.containerdVersion),
    airGapped: options.airGapped ?? false,
    ca: readCaPath(options.ca),
  }
}

function readUrl(given: string | undefined, config: Config): URL {
  if (given === undefined) return ownUrl(config)
  const problem = problemOfUrl(given)
  if (problem !== undefined)
    throw usage(
      '--url',
      `${problem}: expected the URL that nodes reach this registry at, such as http://cache.example.com:5000`,
    )
  const url = new URL(given)
  if (isUndialable(url)) throw usage('--url', `nobody can dial ${url.hostname}: write the address that the nodes know`)
  return url
}

function addressNotes({ url }: MirrorCommandOptions, { listen }: Config): string[] {
  if (url !== undefined || !isUnspecified(listen.host)) return []
  return [
    `${hostname().toLowerCase()} is the name of this machine: the nodes must be able to resolve it, else give --url an address that they reach.`,
  ]
}

function ownUrl({ listen }: Config): URL {
  if (listen.port === 0) throw usage('--url', 'is needed, because listen has port 0')
  const url = urlOfListener(listen, hostname())
  if (url === undefined) throw usage('--url', 'is needed, because the name of this machine is no host name')
  return url
}

function readVersion(given: string | undefined): ContainerdVersion | undefined {
  if (given === undefined) return undefined
  const [, major, minor] = /^v?(\d{1,3})\.(\d{1,3})(?:\.\S*)?$/.exec(given) ?? []
  if (major === undefined || minor === undefined)
    throw usage('--containerd-version', `expected a version such as 1.7 or 2.2, got ${JSON.stringify(given)}`)
  return { major: Number(major), minor: Number(minor) }
}

/** It goes into TOML and YAML strings, where quotes and backslashes would need escaping that no real path needs. */
function readCaPath(given: string | undefined): string | undefined {
  if (given === undefined || /^\/[\w./@+-]+$/.test(given)) return given
  throw usage('--ca', 'expected the absolute path of a PEM file on the node, such as /etc/ssl/layover.pem')
}

function describeSetup({ files, notes }: NodeSetup): string {
  const shownFiles = files.map(({ path, text }) => `# ── ${path}\n${text.trimEnd()}\n`)
  const shownNotes = notes.map(note => `#  - ${note}`)
  return `${shownFiles.join('\n')}\n# Notes\n${shownNotes.join('\n')}\n`
}
