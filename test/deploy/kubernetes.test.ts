import { readdirSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import type { Config } from '../../src/config/config.ts'
import { scratch } from '../real/harness/process.ts'
import { type Manifest, one, render, unknownKeys, validate } from './manifests.ts'
import { prometheusRule } from './prometheus-rule.ts'
import { configOf, read, repository } from './settings.ts'

const folder = 'deploy/kubernetes'
const overlays = ['embedded', 'distributed'] as const

type Port = { readonly name: string; readonly containerPort: number }
type Probe = { readonly httpGet: { readonly path: string; readonly port: string } }
type Container = {
  readonly env: readonly { readonly name: string; readonly value?: string }[]
  readonly ports: readonly Port[]
  readonly startupProbe: Probe
  readonly livenessProbe: Probe
  readonly readinessProbe: Probe
  readonly lifecycle: { readonly preStop: { readonly sleep: { readonly seconds: number } } }
  readonly resources: { readonly requests: Record<string, string>; readonly limits: Record<string, string> }
  readonly securityContext: unknown
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[]
}
type Volume = { readonly name: string; readonly emptyDir?: { readonly sizeLimit: string } }
type PodSpec = {
  readonly containers: readonly [Container]
  readonly volumes: readonly Volume[]
  readonly securityContext: unknown
  readonly terminationGracePeriodSeconds: number
}
type Rule = {
  readonly from?: readonly unknown[]
  readonly to?: readonly unknown[]
  readonly ports: readonly { readonly port: number }[]
}

const rendered = new Map<string, Manifest[]>()
beforeAll(async () => {
  for (const overlay of overlays) rendered.set(overlay, await render(`${folder}/overlays/${overlay}`))
})

const manifestsOf = (overlay: string): Manifest[] => rendered.get(overlay) ?? []
const specOf = (manifest: Manifest): Record<string, unknown> => manifest['spec'] as Record<string, unknown>

function podOf(manifests: readonly Manifest[]): PodSpec {
  const { template } = specOf(one(manifests, 'Deployment')) as { template: { spec: PodSpec } }
  return template.spec
}

/** What the process in the pod reads: the ConfigMap, the variables, and secrets that are there. */
function podConfig(manifests: readonly Manifest[]): Config {
  const pod = podOf(manifests)
  const env = Object.fromEntries(pod.containers[0].env.map(({ name, value = '' }) => [name, value]))
  const text = (one(manifests, 'ConfigMap')['data'] as Record<string, string>)['layover.yaml'] ?? ''
  const secrets = {
    '/run/secrets/layover/redis-password': 'a password',
    '/run/secrets/layover/replica-secret': 'x'.repeat(64),
  }
  const url = env['LAYOVER_REPLICA_URL']
  return configOf(
    { ...env, ...(url === undefined ? {} : { LAYOVER_REPLICA_URL: url.replace('$(POD_IP)', '10.1.2.3') }) },
    { [env['LAYOVER_CONFIG'] ?? '']: text, ...secrets },
  )
}

const rulesOf = (manifests: readonly Manifest[], direction: 'ingress' | 'egress'): Rule[] =>
  manifests.filter(({ kind }) => kind === 'NetworkPolicy').flatMap(policy => specOf(policy)[direction] as Rule[])

const gib = (text = ''): number => Number(/^(\d+)Gi$/.exec(text)?.[1]) * 2 ** 30

describe.each(overlays)('%s', overlay => {
  test('every document is what the API expects, with no key that it does not know', async () => {
    for (const manifest of manifestsOf(overlay)) await validate(manifest)
    expect(await unknownKeys(manifestsOf(overlay))).toBe('')
  })

  test('everything is in one namespace, which enforces the restricted standard', () => {
    const manifests = manifestsOf(overlay)
    expect(one(manifests, 'Namespace').metadata.labels).toMatchObject({
      'pod-security.kubernetes.io/enforce': 'restricted',
    })
    for (const { kind, metadata } of manifests.filter(each => each.kind !== 'Namespace'))
      expect([kind, metadata.namespace]).toEqual([kind, 'layover'])
  })

  test('the pod is as restricted as it can be', () => {
    const pod = podOf(manifestsOf(overlay))
    expect(pod.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 65532,
      seccompProfile: { type: 'RuntimeDefault' },
    })
    expect(pod.containers[0].securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
    expect(pod).toMatchObject({ automountServiceAccountToken: false, serviceAccountName: 'layover' })
    expect(one(manifestsOf(overlay), 'ServiceAccount')).toMatchObject({ automountServiceAccountToken: false })
  })

  test('the configuration is one, on the ports that containers, probes and Services name', () => {
    const manifests = manifestsOf(overlay)
    const config = podConfig(manifests)
    const [container] = podOf(manifests).containers
    const port = (name: string): number | undefined => container.ports.find(each => each.name === name)?.containerPort
    expect([port('registry'), port('admin')]).toEqual([config.listen.port, config.admin.port])
    // The kubelet's probes come from outside of the pod.
    expect(config.admin.host).toBe('0.0.0.0')
    const probes = [container.startupProbe, container.livenessProbe, container.readinessProbe]
    expect(probes.map(({ httpGet }) => httpGet)).toEqual([
      { path: '/livez', port: 'admin' },
      { path: '/livez', port: 'admin' },
      { path: '/readyz', port: 'admin' },
    ])
    expect(specOf(one(manifests, 'Service', 'layover'))).toMatchObject({
      trafficDistribution: 'PreferClose',
      ports: [{ port: 5000, targetPort: 'registry' }],
    })
    expect(container.volumeMounts).toContainEqual({ name: 'data', mountPath: config.dataDir })
  })

  test('a stop has time for running layers', () => {
    const pod = podOf(manifestsOf(overlay))
    const { drainMs } = podConfig(manifestsOf(overlay))
    const preStopMs = pod.containers[0].lifecycle.preStop.sleep.seconds * 1000
    expect(preStopMs).toBeGreaterThan(0)
    expect(pod.terminationGracePeriodSeconds * 1000).toBeGreaterThan(drainMs + preStopMs + 10_000)
  })

  test('the admin listener is for monitoring alone, and the metadata service of the cloud for nobody', () => {
    const admin = rulesOf(manifestsOf(overlay), 'ingress').filter(({ ports }) =>
      ports.some(({ port }) => port === 5001),
    )
    expect(admin).toEqual([
      {
        from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } }],
        ports: [{ port: 5001 }],
      },
    ])
    const ranges = rulesOf(manifestsOf(overlay), 'egress').flatMap(({ to = [] }) => to)
    expect(JSON.stringify(ranges)).toContain('"cidr":"0.0.0.0/0","except":["169.254.0.0/16"]')
  })

  test('requests what it needs, and holds no secret', () => {
    const manifests = manifestsOf(overlay)
    const { requests, limits } = podOf(manifests).containers[0].resources
    expect(Object.keys(requests)).toEqual(expect.arrayContaining(['cpu', 'memory']))
    // A limit on CPU would slow down exactly the moments that count.
    expect(Object.keys(limits)).not.toContain('cpu')
    expect(manifests.filter(({ kind }) => kind === 'Secret')).toEqual([])
    expect(specOf(one(manifests, 'PodDisruptionBudget'))).toMatchObject({ maxUnavailable: 1 })
  })

  test('with the monitoring component, the operator finds the admin Service and the alerts', async () => {
    const directory = await scratch('overlay')
    try {
      // A path between the two, because that is how kustomize wants it.
      const to = (path: string): string => relative(directory.path, join(repository, folder, path))
      const resources = [to(`overlays/${overlay}`)]
      await writeFile(
        join(directory.path, 'kustomization.yaml'),
        JSON.stringify({ namespace: 'layover', resources, components: [to('monitoring')] }),
      )
      const manifests = await render(directory.path)
      const added = [one(manifests, 'ServiceMonitor'), one(manifests, 'PrometheusRule')] as const
      for (const manifest of added) await validate(manifest)
      expect(await unknownKeys(added)).toBe('')
      const { selector, endpoints } = specOf(added[0]) as {
        selector: { matchLabels: Record<string, string> }
        endpoints: [{ port: string }]
      }
      const service = one(manifests, 'Service', 'layover-admin')
      expect(service.metadata.labels).toMatchObject(selector.matchLabels)
      expect(specOf(service)['ports']).toEqual([expect.objectContaining({ name: endpoints[0].port, port: 5001 })])
      // Only that one: the other Service has the same name label.
      expect(one(manifests, 'Service', 'layover').metadata.labels).not.toMatchObject(selector.matchLabels)
    } finally {
      await directory.remove()
    }
  })
})

describe('embedded', () => {
  test('one replica, whose budget leaves room on its volume', () => {
    const manifests = manifestsOf('embedded')
    expect(specOf(one(manifests, 'Deployment'))).toMatchObject({ replicas: 1, strategy: { type: 'Recreate' } })
    const claim = specOf(one(manifests, 'PersistentVolumeClaim')) as {
      resources: { requests: { storage: string } }
    }
    expect(podConfig(manifests).storage.maxBytes).toBeLessThan(gib(claim.resources.requests.storage) * 0.95)
  })
})

describe('distributed', () => {
  test('the replicas find each other under their own addresses, and nobody else reaches that port', () => {
    const manifests = manifestsOf('distributed')
    const config = podConfig(manifests)
    expect(config.replica).toMatchObject({ listen: { host: '0.0.0.0', port: 5002 } })
    expect(String(config.replica?.url)).toContain('10.1.2.3:5002')
    const among = [{ podSelector: { matchLabels: { 'app.kubernetes.io/name': 'layover' } } }]
    for (const direction of ['ingress', 'egress'] as const) {
      const rules = rulesOf(manifests, direction).filter(({ ports }) => ports.some(({ port }) => port === 5002))
      expect(rules).toEqual([{ [direction === 'ingress' ? 'from' : 'to']: among, ports: [{ port: 5002 }] }])
    }
    // No Service leads there.
    const services = manifests.filter(({ kind }) => kind === 'Service')
    expect(JSON.stringify(services)).not.toContain('5002')
  })

  test('the autoscaler alone says how many, and a CPU request is there to measure by', () => {
    const manifests = manifestsOf('distributed')
    expect(specOf(one(manifests, 'Deployment'))).not.toHaveProperty('replicas')
    expect(specOf(one(manifests, 'HorizontalPodAutoscaler'))).toMatchObject({
      scaleTargetRef: { kind: 'Deployment', name: one(manifests, 'Deployment').metadata.name },
      minReplicas: 3,
    })
    expect(podOf(manifests).containers[0].resources.requests).toHaveProperty('cpu')
  })

  test('the disk of a pod is larger than what Layover keeps on it', () => {
    const manifests = manifestsOf('distributed')
    const pod = podOf(manifests)
    const volume = gib(pod.volumes.find(({ name }) => name === 'data')?.emptyDir?.sizeLimit)
    const { requests, limits } = pod.containers[0].resources
    expect(podConfig(manifests).hotTier?.maxBytes).toBeLessThan(volume * 0.95)
    expect(gib(requests['ephemeral-storage'])).toBeGreaterThanOrEqual(volume)
    expect(gib(limits['ephemeral-storage'])).toBeGreaterThan(volume)
  })
})

test('the overlay of one’s own that the page shows is one', async () => {
  const [, shown = ''] = /```yaml\n# kustomization\.yaml\n(.*?)```/s.exec(read(`${folder}/README.md`)) ?? []
  const directory = await scratch('own')
  try {
    const here = relative(directory.path, repository).replace(/\/$/, '')
    await writeFile(join(directory.path, 'kustomization.yaml'), shown.replaceAll('../layover/', `${here}/`))
    await writeFile(join(directory.path, 'layover.yaml'), 'storage: { maxBytes: 7GiB }\n')
    const manifests = await render(directory.path)
    expect(JSON.stringify(podOf(manifests))).toContain('"image":"registry.acme.example/layover:0.1.0"')
    const config = one(manifests, 'ConfigMap')
    expect(config['data']).toEqual({ 'layover.yaml': 'storage: { maxBytes: 7GiB }\n' })
    expect(JSON.stringify(podOf(manifests).volumes)).toContain(`"configMap":{"name":"${config.metadata.name}"}`)
    expect(manifests.map(({ kind }) => kind)).toEqual(expect.arrayContaining(['ServiceMonitor', 'PrometheusRule']))
  } finally {
    await directory.remove()
  }
})

test('every file of every directory is used', () => {
  const directories = ['base', 'monitoring', ...overlays.map(overlay => `overlays/${overlay}`)]
  for (const directory of directories) {
    const kustomization = parse(read(`${folder}/${directory}/kustomization.yaml`)) as {
      resources?: string[]
      patches?: { path: string }[]
      configMapGenerator?: { files: string[] }[]
    }
    const used = [
      ...(kustomization.resources ?? []),
      ...(kustomization.patches ?? []).map(({ path }) => path),
      ...(kustomization.configMapGenerator ?? []).flatMap(({ files }) => files),
    ].filter(path => !path.startsWith('..'))
    const files = readdirSync(join(repository, folder, directory)).filter(name => name !== 'kustomization.yaml')
    expect([directory, used.sort()]).toEqual([directory, files.sort()])
  }
})

test('the PrometheusRule is what deploy/prometheus says: its first lines tell how it is made', () => {
  expect(read(`${folder}/monitoring/prometheus-rule.yaml`)).toBe(prometheusRule())
})
