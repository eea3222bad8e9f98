import { type Client, commonNotes, type ContainerdVersion, type NodeFile } from './client.ts'
import { containerdFallback, hostsTomlFiles } from './hosts-toml.ts'

const certsDirectory = '/etc/containerd/certs.d'

/** containerd, nerdctl and everything that reads its certs.d. */
export const containerd: Client = options => {
  const { containerdVersion: version } = options
  return {
    files: [...hostsTomlFiles(certsDirectory, options), ...configPathFiles(version)],
    notes: [
      ...containerdFallback(options),
      'hosts.toml is read at every pull: no restart is needed for it.',
      ...versionNotes(version),
      'A directory for one registry wins over _default, completely: look for older ones under certs.d.',
      ...commonNotes(options),
    ],
  }
}

const readsCertsByDefault = ({ major, minor }: ContainerdVersion): boolean => major > 2 || (major === 2 && minor >= 2)

/** Before 2.2, certs.d is read only when config_path names it; the plugin has another name since 2.0. */
function configPathFiles(version: ContainerdVersion | undefined): NodeFile[] {
  if (version !== undefined && readsCertsByDefault(version)) return []
  const variants = [
    ...(version === undefined || version.major >= 2
      ? [{ what: 'containerd 2.0 and 2.1', head: 'version = 3', plugin: 'io.containerd.cri.v1.images' }]
      : []),
    ...(version === undefined || version.major < 2
      ? [{ what: 'containerd 1.x', head: 'version = 2', plugin: 'io.containerd.grpc.v1.cri' }]
      : []),
  ]
  return variants.map(({ what, head, plugin }) => ({
    path: `/etc/containerd/config.toml (${what}: merge into what is there, then restart containerd)`,
    text: `${head}\n[plugins."${plugin}".registry]\n  config_path = "${certsDirectory}"\n`,
  }))
}

function versionNotes(version: ContainerdVersion | undefined): string[] {
  if (version === undefined)
    return [
      'containerd 2.2 and later read certs.d by themselves; with --containerd-version this output has only what that version needs.',
      'Do not add "referrers" to capabilities by hand: containerd before 2.2 then ignores the whole file, without a word.',
    ]
  return readsCertsByDefault(version)
    ? []
    : ['config_path is needed once; containerd 2.2 and later have it by default.']
}
