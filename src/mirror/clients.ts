import { buildkit } from './buildkit.ts'
import type { Client, ClientName } from './client.ts'
import { containerd } from './containerd.ts'
import { crio, podman } from './containers.ts'
import { docker } from './docker.ts'
import { k3s, rke2 } from './k3s.ts'
import { kind } from './kind.ts'
import { talos } from './talos.ts'

/** What to write on a node, for each runtime: pure, so that the command line and the page say the same. */
export const clients: Readonly<Record<ClientName, Client>> = {
  containerd,
  docker,
  podman,
  crio,
  k3s,
  rke2,
  talos,
  buildkit,
  kind,
}
