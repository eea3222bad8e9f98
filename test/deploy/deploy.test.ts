import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { loadConfig } from '../../src/config/load.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const read = (path: string): string => readFileSync(`${root}${path}`, 'utf8')

/** `KEY: value` and `KEY=value` of our own variables, wherever a file of deploy/ or the Dockerfile sets them. */
function variablesIn(text: string): Record<string, string> {
  const uncommented = text.replace(/^\s*#.*$/gm, '')
  const set = [...uncommented.matchAll(/\b(LAYOVER_[A-Z_]+)(?:=|: )(\S+)/g)]
  return Object.fromEntries(set.map(([, name = '', value = '']) => [name, value.replaceAll('"', '')]))
}

/** The configuration that a process would have with these variables and no file. */
const configOf = (env: Record<string, string>) => loadConfig({ env, cwd: '/', readFile: missing })

function missing(path: string): never {
  throw Object.assign(new Error(`no ${path}`), { code: 'ENOENT' })
}

describe('the image', () => {
  const dockerfile = read('Dockerfile')

  test('sets only variables that the configuration knows, and keeps its data in the volume', () => {
    const config = configOf(variablesIn(dockerfile))
    expect(config.dataDir).toBe('/data')
    expect(dockerfile).toContain(`VOLUME ${config.dataDir}\n`)
    expect(dockerfile).toContain(`EXPOSE ${config.listen.port} ${config.admin.port}\n`)
  })

  test('does not open the admin listener by itself', () => {
    expect(configOf(variablesIn(dockerfile)).admin.host).toBe('127.0.0.1')
  })

  test('runs as nobody in particular, and no script of a dependency runs while it is built', () => {
    expect(dockerfile).toMatch(/^USER 65532:65532$/m)
    expect(dockerfile).toContain('npm ci --omit=dev --ignore-scripts')
  })

  test('holds everything that is copied into it: .dockerignore lets it through', () => {
    const copied = [...dockerfile.matchAll(/^COPY (?!--)(.+) \S+$/gm)].flatMap(([, sources = '']) => sources.split(' '))
    const allowed = read('.dockerignore')
      .split('\n')
      .filter(line => line.startsWith('!'))
      .map(line => line.slice(1))
    expect(copied.length).toBeGreaterThan(3)
    expect(allowed).toEqual(expect.arrayContaining(copied))
  })
})

describe('compose and systemd', () => {
  type Service = { readonly environment: Record<string, string>; readonly ports: string[]; readonly volumes: string[] }
  const compose = parse(read('deploy/compose.yaml')) as { services: { layover: Service }; volumes: object }
  const { environment, ports, volumes } = compose.services.layover

  test('compose sets what the configuration knows and publishes the admin listener on loopback alone', () => {
    const config = configOf(environment)
    expect(ports).toEqual([
      `${config.listen.port}:${config.listen.port}`,
      `127.0.0.1:${config.admin.port}:${config.admin.port}`,
    ])
    expect(volumes).toEqual(['data:/data'])
    expect(compose.volumes).toHaveProperty('data')
  })

  test('the systemd unit sets what the configuration knows', () => {
    const variables = variablesIn(read('deploy/systemd/layover.service').replaceAll('%S', '/var/lib'))
    expect(configOf(variables).dataDir).toBe('/var/lib/layover')
  })

  test('a stop waits longer than running layers are waited for', () => {
    const { drainMs } = configOf({})
    const waits = [
      /stop_grace_period: (\d+)s/.exec(read('deploy/compose.yaml')),
      /TimeoutStopSec=(\d+)s/.exec(read('deploy/systemd/layover.service')),
      /terminationGracePeriodSeconds: (\d+)/.exec(read('deploy/kubernetes/base/deployment.yaml')),
    ].map(match => Number(match?.[1]) * 1000)
    for (const wait of waits) expect(wait).toBeGreaterThan(drainMs + 5000)
  })
})

describe('the kubernetes base', () => {
  const folder = 'deploy/kubernetes/base/'

  test('every file of it is used, and is YAML', () => {
    const { resources } = parse(read(`${folder}kustomization.yaml`)) as { resources: string[] }
    const files = readdirSync(`${root}${folder}`).filter(
      name => name !== 'kustomization.yaml' && name !== 'layover.yaml',
    )
    expect([...resources].sort()).toEqual(files.sort())
    const problems = files.flatMap(name => parseAllDocuments(read(`${folder}${name}`)).flatMap(({ errors }) => errors))
    expect(problems).toEqual([])
  })

  test('its configuration is one, on the ports that its containers and probes name', () => {
    const config = loadConfig({
      file: 'layover.yaml',
      cwd: '/etc/layover',
      readFile: () => read(`${folder}layover.yaml`),
    })
    const deployment = read(`${folder}deployment.yaml`)
    expect(deployment).toContain(`name: registry\n              containerPort: ${config.listen.port}\n`)
    expect(deployment).toContain(`name: admin\n              containerPort: ${config.admin.port}\n`)
    expect(config.dataDir).toBe('/data')
    // The kubelet's probes come from outside of the pod.
    expect(config.admin.host).toBe('0.0.0.0')
  })

  test('the storage budget leaves room on its volume', () => {
    const [, gib] = /storage: (\d+)Gi/.exec(read(`${folder}volume.yaml`)) ?? []
    const { storage } = loadConfig({ file: 'layover.yaml', cwd: '/', readFile: () => read(`${folder}layover.yaml`) })
    expect(storage.maxBytes).toBeLessThan(Number(gib) * 2 ** 30 * 0.95)
  })
})
