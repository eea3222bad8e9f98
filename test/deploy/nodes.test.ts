import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { layover } from '../cli/process.ts'
import { scratch } from '../real/harness/process.ts'
import { type Manifest, one, render, unknownKeys, validate } from './manifests.ts'

type Pod = {
  readonly containers: readonly [
    {
      readonly args: readonly string[]
      readonly securityContext: unknown
      readonly volumeMounts: readonly { readonly mountPath: string }[]
    },
  ]
  readonly volumes: readonly { readonly hostPath: { readonly path: string } }[]
}

const rendered: Record<'install' | 'uninstall', Manifest[]> = { install: [], uninstall: [] }
beforeAll(async () => {
  for (const way of ['install', 'uninstall'] as const) rendered[way] = await render(`deploy/nodes/${way}`)
})

const podOf = (manifests: readonly Manifest[]): Pod =>
  (one(manifests, 'DaemonSet')['spec'] as { template: { spec: Pod } }).template.spec

describe.each(['install', 'uninstall'] as const)('%s', way => {
  test('every document is what the API expects, with no key that it does not know', async () => {
    for (const manifest of rendered[way]) await validate(manifest)
    expect(await unknownKeys(rendered[way])).toBe('')
  })

  test('of the node it has one directory, and of rights none', () => {
    const pod = podOf(rendered[way])
    expect(pod.volumes.map(({ hostPath }) => hostPath)).toEqual([
      { path: '/etc/containerd/certs.d', type: 'DirectoryOrCreate' },
    ])
    const [container] = pod.containers
    expect(container.volumeMounts).toEqual([{ name: 'certs', mountPath: '/etc/containerd/certs.d' }])
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
    expect(pod).toMatchObject({ automountServiceAccountToken: false })
    for (const key of ['hostNetwork', 'hostPID', 'hostIPC']) expect(pod).not.toHaveProperty(key)
  })
})

test('its arguments are ones that the command line takes, and they write, and take back', async () => {
  const directory = await scratch('nodes')
  try {
    const root = join(directory.path, 'certs.d')
    // Another place and a name that resolves here; the rest to the letter, but for staying.
    const here = (args: readonly string[]): string[] =>
      args
        .filter(arg => arg !== '--hold' && arg !== '--take-back')
        .map(arg =>
          arg.replace('/etc/containerd/certs.d', root).replace('layover.layover.svc.cluster.local', 'localhost'),
        )
    const [install, uninstall] = [podOf(rendered.install), podOf(rendered.uninstall)].map(pod => pod.containers[0].args)
    expect(install).toEqual(expect.arrayContaining(['--hold', '--take-back', '--resolve']))
    expect(uninstall).toContain('--hold')
    expect(await layover(here(install ?? []), { cwd: directory.path })).toMatchObject({ code: 0, err: '' })
    expect(existsSync(join(root, '_default/hosts.toml'))).toBe(true)
    expect(await layover(here(uninstall ?? []), { cwd: directory.path })).toMatchObject({ code: 0, err: '' })
    expect(existsSync(join(root, '_default'))).toBe(false)
  } finally {
    await directory.remove()
  }
})
