import { authorityOf, type Client, commonNotes, isHttp, type MirroredUpstream, type MirrorOptions } from './client.ts'

const file = '/etc/containers/registries.conf.d/50-layover.conf'

/** podman, buildah and skopeo. */
export const podman: Client = options => ({
  files: [{ path: file, text: registriesConf(options) }],
  notes: [
    ...notes(options),
    'It is read at every command. Without root: ~/.config/containers/registries.conf.d/.',
    ...commonNotes(options),
  ],
})

export const crio: Client = options => ({
  files: [{ path: file, text: registriesConf(options) }],
  notes: [...notes(options), 'CRI-O reads it after: systemctl reload crio', ...commonNotes(options)],
})

/** https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md */
function registriesConf(options: MirrorOptions): string {
  return options.upstreams.map(upstream => registry(upstream, options)).join('\n')
}

function registry(upstream: MirroredUpstream, options: MirrorOptions): string {
  const segment = pathSegment(upstream)
  if (segment === undefined)
    return `# ${upstream.name} is not mirrored: a port cannot stand inside a path. Give it an alias without a port in Layover.\n`
  const location = `${authorityOf(options)}/${segment}`
  const insecure = isHttp(options) ? ['insecure = true'] : []
  const lines = options.airGapped
    ? ['[[registry]]', `prefix = "${upstream.name}"`, `location = "${location}"`, ...insecure]
    : [
        '[[registry]]',
        `prefix = "${upstream.name}"`,
        `location = "${upstream.name}"`,
        '[[registry.mirror]]',
        `location = "${location}"`,
        ...insecure,
      ]
  return `${lines.join('\n')}\n`
}

/** How this upstream is spelled in a path. The reference grammar has no colon there. */
function pathSegment({ name, aliases }: MirroredUpstream): string | undefined {
  return [name, ...aliases].find(each => !each.includes(':'))
}

function notes(options: MirrorOptions): string[] {
  return [
    options.airGapped
      ? 'Fallback: none. Names stay as they are, every pull goes to Layover.'
      : 'Fallback: to the registry itself. It is chosen once per image, by the manifest: a blob that fails later fails the pull.',
    'There is no wildcard: a registry that is not listed here is pulled directly.',
    'Credentials of the registry are not sent to the mirror: Layover needs its own for private images.',
    ...(options.ca === undefined || isHttp(options)
      ? []
      : [`Copy the authority ${options.ca} to /etc/containers/certs.d/${authorityOf(options)}/ca.crt.`]),
  ]
}
