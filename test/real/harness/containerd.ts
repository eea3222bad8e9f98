import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Finished, run, runOk, scratch, start } from './process.ts'

/** A containerd of the test's own: state, socket and mirrors in a temporary directory. */
export type Containerd = {
  /** Its certs.d. */
  readonly hostsDirectory: string
  /** Writes `hosts.toml` for a registry host, or for `_default`. */
  configureHost(host: string, hostsToml: string): Promise<void>
  /** `ctr images pull`: resolve, fetch and unpack. */
  pull(reference: string, ...flags: readonly string[]): Promise<Finished>
  /** Name and target digest of every image that it has. */
  images(): Promise<ReadonlyMap<string, string>>
  /** Digests in its content store, which verified each of them. */
  content(): Promise<readonly string[]>
  close(): Promise<void>
}

const namespace = 'test'

export async function startContainerd(): Promise<Containerd> {
  if (process.getuid?.() !== 0) throw new Error('containerd unpacks layers with their owners: run these tests as root')
  const directory = await scratch('ctr')
  const socket = join(directory.path, 's')
  const hosts = join(directory.path, 'hosts')
  const configPath = join(directory.path, 'config.toml')
  await mkdir(hosts)
  await writeFile(configPath, containerdConfig(directory.path, socket))
  const ctr = ['-a', socket, '-n', namespace]
  const running = await start({
    command: 'containerd',
    args: ['--config', configPath],
    ready: async () => (await run('ctr', [...ctr, 'version'])).code === 0,
  })
  return {
    hostsDirectory: hosts,
    async configureHost(host, hostsToml) {
      // containerd 1.6 looks for `<host>_<port>_`, and for `<host>:<port>` after it.
      await mkdir(join(hosts, host), { recursive: true })
      await writeFile(join(hosts, host, 'hosts.toml'), hostsToml)
    },
    // The native snapshotter copies files: it works where overlayfs cannot be mounted.
    pull: (reference, ...flags) =>
      run('ctr', [...ctr, 'images', 'pull', '--snapshotter', 'native', '--hosts-dir', hosts, ...flags, reference]),
    async images() {
      const lines = (await runOk('ctr', [...ctr, 'images', 'list'])).split('\n').slice(1)
      return new Map(lines.map(line => line.split(/\s+/)).map(([name = '', , digest = '']) => [name, digest]))
    },
    content: async () =>
      (await runOk('ctr', [...ctr, 'content', 'list', '--quiet'])).split('\n').filter(line => line !== ''),
    async close() {
      await running.end()
      await directory.remove()
    },
  }
}

function containerdConfig(directory: string, socket: string): string {
  return `version = 2
root = "${directory}/root"
state = "${directory}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.overlayfs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
]
[grpc]
  address = "${socket}"
[ttrpc]
  address = "${socket}t"
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "1h"
`
}
