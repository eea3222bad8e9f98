/** The container runtimes that `layover mirror` knows. */
export const clientNames = [
  'containerd',
  'docker',
  'podman',
  'crio',
  'k3s',
  'rke2',
  'talos',
  'buildkit',
  'kind',
] as const
export type ClientName = (typeof clientNames)[number]

export type MirrorOptions = {
  /** How nodes reach Layover: scheme, host, port; no path. */
  readonly url: URL
  /** The registries that the node shall pull through Layover. */
  readonly upstreams: readonly MirroredUpstream[]
  /** true: no choice was made, so a wildcard may stand for all of them. */
  readonly everyUpstream: boolean
  readonly containerdVersion: ContainerdVersion | undefined
  /** true: nothing may fall back to the registry itself. */
  readonly airGapped: boolean
  /** Absolute path, on the node, of the authority behind an https URL. */
  readonly ca: string | undefined
}

export type MirroredUpstream = {
  readonly name: string
  readonly aliases: readonly string[]
  readonly isDefault: boolean
}

export type ContainerdVersion = { readonly major: number; readonly minor: number }

/** What to write on a node, and what whoever writes it should know. Every note is one line. */
export type NodeSetup = { readonly files: readonly NodeFile[]; readonly notes: readonly string[] }
export type NodeFile = { readonly path: string; readonly text: string }
export type Client = (options: MirrorOptions) => NodeSetup

/** `http://cache:5000`, without a slash at its end. */
export const originOf = ({ url }: MirrorOptions): string => url.origin

/** `cache:5000`: host and port as most clients want them. The port of the scheme may be left out. */
export const authorityOf = ({ url }: MirrorOptions): string => url.host

export const isHttp = ({ url }: MirrorOptions): boolean => url.protocol === 'http:'

/** Notes that hold for every client. */
export function commonNotes(options: MirrorOptions): string[] {
  const { url } = options
  return [
    ...(/^(localhost|127\.[\d.]+|\[::1\])$/.test(url.hostname)
      ? [
          `${url.hostname} means the node itself: give --url an address that the nodes reach, unless Layover runs on each of them.`,
        ]
      : []),
    ...(isHttp(options) && options.ca !== undefined ? ['--ca has no meaning for an http URL and was left out.'] : []),
    'Do not pull the image of Layover itself through Layover: a node that starts it must get it from elsewhere.',
  ]
}
