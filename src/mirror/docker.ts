import { authorityOf, type Client, commonNotes, isHttp, type MirrorOptions, originOf } from './client.ts'
import { hostsTomlFiles } from './hosts-toml.ts'

/** dockerd: the older image store reads daemon.json (Docker Hub only), the containerd image store reads certs.d (every registry). */
export const docker: Client = options => {
  const hub = options.upstreams.find(({ name }) => name === 'docker.io')
  const files = hostsTomlFiles('/etc/docker/certs.d', options).map(({ path, text }) => ({
    path: `${path} (containerd image store, the default of fresh installations since Engine 29)`,
    text,
  }))
  if (hub?.isDefault === true)
    files.push({ path: '/etc/docker/daemon.json (overlay2 and other older stores)', text: daemonJson(options) })
  return { files, notes: [...notes(options, hub?.isDefault === true), ...commonNotes(options)] }
}

function daemonJson(options: MirrorOptions): string {
  const settings = {
    'registry-mirrors': [originOf(options)],
    ...(isHttp(options) ? { 'insecure-registries': [authorityOf(options)] } : {}),
  }
  return `${JSON.stringify(settings, undefined, 2)}\n`
}

function notes(options: MirrorOptions, hasDaemonJson: boolean): string[] {
  return [
    'Which store it is: docker info --format "{{ .DriverStatus }}" names io.containerd.snapshotter.v1 for the containerd image store.',
    ...(hasDaemonJson
      ? [
          'registry-mirrors serves Docker Hub only, whatever is configured; merge it into an existing daemon.json and restart dockerd.',
          'Fallback of daemon.json: to Docker Hub, when Layover does not answer.',
        ]
      : ['daemon.json was left out: its registry-mirrors need docker.io as the default upstream of Layover.']),
    options.airGapped
      ? 'Fallback of certs.d: none. daemon.json cannot switch the fallback off: close the way to Docker Hub on the network.'
      : 'Fallback of certs.d: to the registry of the image, for each request that Layover does not answer with content.',
    'hosts.toml is read at every pull: no restart. In rootless mode it lies under ~/.config/docker/certs.d.',
    ...(options.ca === undefined || isHttp(options)
      ? []
      : [`For daemon.json, copy the authority to /etc/docker/certs.d/${authorityOf(options)}/ca.crt.`]),
  ]
}
