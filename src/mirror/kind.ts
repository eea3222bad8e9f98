import { type Client, commonNotes, isHttp } from './client.ts'
import { containerdFallback, hostsTomlFiles } from './hosts-toml.ts'

const hostDirectory = './layover-certs.d'

/** kind: containerd in containers; a directory of the host is mounted as its certs.d. https://kind.sigs.k8s.io/docs/user/local-registry/ */
export const kind: Client = options => ({
  files: [
    ...hostsTomlFiles(hostDirectory, options),
    { path: 'kind.yaml (kind create cluster --config kind.yaml)', text: clusterYaml },
  ],
  notes: [
    ...containerdFallback(options),
    'The URL must be reachable from the node containers: the address of this machine on the docker network, or host.docker.internal with Docker Desktop.',
    'kind before 0.27 also needs containerdConfigPatches that set config_path to /etc/containerd/certs.d.',
    ...(options.ca === undefined || isHttp(options)
      ? []
      : [`Mount the authority too: ${options.ca} is a path inside the node containers.`]),
    ...commonNotes(options),
  ],
})

const clusterYaml = `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    extraMounts:
      - hostPath: ${hostDirectory}
        containerPath: /etc/containerd/certs.d
        readOnly: true
`
