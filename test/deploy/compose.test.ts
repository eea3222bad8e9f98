import { existsSync } from 'node:fs'
import { cp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { run, runOk, scratch } from '../real/harness/process.ts'
import { configOf, read, repository } from './settings.ts'

type Service = {
  readonly image: string
  readonly environment?: Readonly<Record<string, string>>
  readonly ports?: readonly string[]
  readonly volumes?: readonly string[]
  readonly networks?: readonly string[]
  readonly depends_on?: readonly string[]
  readonly healthcheck?: { readonly test: readonly string[] }
  readonly stop_grace_period?: string
  readonly read_only?: boolean
  readonly cap_drop?: readonly string[]
}
type Compose = {
  readonly services: Readonly<Record<string, Service>> & { readonly layover: Service }
  readonly volumes: object
  readonly networks?: Readonly<Record<string, { readonly internal?: boolean } | null>>
}

const files = ['compose.yaml', 'compose.embedded.yaml'] as const
const composeOf = (file: string): Compose => parse(read(`deploy/${file}`), { uniqueKeys: true }) as Compose
const everyVolume = ({ services }: Compose): string[] => Object.values(services).flatMap(({ volumes = [] }) => volumes)

/** `${NAME:-default}` as the command line would fill it in without variables; a variable without a default is an error. */
const filledIn = (env: Readonly<Record<string, string>> = {}): Record<string, string> =>
  Object.fromEntries(
    Object.entries(env).map(([name, value]) => [
      name,
      value.replace(/\$\{\w+(?::-([^}]*))?\}/g, (_, fallback?: string) => {
        if (fallback === undefined) throw new Error(`${name} needs a variable that has no default`)
        return fallback
      }),
    ]),
  )

describe.each(files)('%s', file => {
  const compose = composeOf(file)
  const { layover } = compose.services

  test('sets what the configuration knows, and publishes the admin listener on loopback alone', () => {
    const config = configOf(filledIn(layover.environment))
    expect(layover.ports).toEqual([
      `${config.listen.port}:${config.listen.port}`,
      `127.0.0.1:${config.admin.port}:${config.admin.port}`,
    ])
    // Published ports lead to the container's own address.
    expect(config.admin.host).toBe('0.0.0.0')
  })

  test('docker compose accepts it, without a variable or a file of one’s own', async () => {
    const path = join(repository, 'deploy', file)
    const asked = ['run', 'docker-compose', '--file', path, 'config', '--format', 'json']
    const said = await run(join(repository, '.ci/debian13'), asked)
    expect([said.code, said.stderr]).toEqual([0, ''])
    const { services } = JSON.parse(said.stdout) as Compose
    expect(Object.keys(services).sort()).toEqual(Object.keys(compose.services).sort())
    // What it fills in is what the other tests here read.
    expect(services.layover.environment).toEqual(filledIn(layover.environment))
  })

  test('every mounted file exists, and every volume and network is declared', () => {
    const sources = everyVolume(compose).map(volume => volume.split(':')[0] ?? '')
    const missing = (source: string): boolean =>
      source.startsWith('.') ? !existsSync(join(repository, 'deploy', source)) : !Object.hasOwn(compose.volumes, source)
    expect(sources.filter(missing)).toEqual([])
    const networks = Object.values(compose.services).flatMap(({ networks: used = [] }) => used)
    for (const name of networks) expect(compose.networks).toHaveProperty(name)
  })

  test('no port is published twice, and all but the registry’s on loopback', () => {
    const ports = Object.values(compose.services).flatMap(service => service.ports ?? [])
    const published = ports.map(port => port.split(':').at(-2))
    expect(new Set(published).size).toBe(published.length)
    expect(ports.filter(port => !port.startsWith('127.0.0.1:'))).toEqual(['5000:5000'])
  })

  test('Layover’s container is read-only, without rights, and checked by its own command', () => {
    expect(layover).toMatchObject({
      read_only: true,
      cap_drop: ['ALL'],
      security_opt: ['no-new-privileges:true'],
      volumes: ['data:/data'],
    })
    const [, ...command] = layover.healthcheck?.test ?? []
    expect(command).toEqual(JSON.parse(/HEALTHCHECK .* CMD (\[.*\])/.exec(read('Dockerfile'))?.[1] ?? '[]'))
  })

  test('a stop waits longer than running layers are waited for', () => {
    const { drainMs } = configOf(filledIn(layover.environment))
    expect(Number.parseInt(layover.stop_grace_period ?? '', 10) * 1000).toBeGreaterThan(drainMs + 5000)
  })

  test('every image has a version', () => {
    for (const { image } of Object.values(compose.services)) {
      expect(image).toMatch(/:v?\d[\w.-]*$/)
      expect(image).not.toMatch(/:latest/)
    }
  })
})

describe('compose.yaml', () => {
  const compose = composeOf('compose.yaml')
  const { layover, redis, s3, prometheus, grafana } = compose.services

  test('Layover finds Redis and the bucket under the names, ports and keys that they have', () => {
    const config = configOf(filledIn(layover.environment))
    expect(JSON.stringify(config.redis?.endpoint)).toContain('redis:6379')
    expect(config.s3).toMatchObject({ bucket: filledIn(s3?.environment)['S3_BUCKET'], pathStyle: true })
    expect(String(config.s3?.endpoint)).toContain('http://s3:8333')
    for (const key of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'])
      expect(layover.environment?.[key]).toBe(s3?.environment?.[key])
  })

  test('Redis and the bucket are reached by Layover alone', () => {
    expect(compose.networks?.['back']).toEqual({ internal: true })
    for (const service of [redis, s3]) expect([service?.networks, service?.ports]).toEqual([['back'], undefined])
    const inBack = Object.entries(compose.services).filter(([, { networks = [] }]) => networks.includes('back'))
    expect(inBack.map(([name]) => name).sort()).toEqual(['layover', 'redis', 's3'])
  })

  test('Prometheus takes its configuration and the rules, and scrapes Layover’s admin listener', async () => {
    const directory = await scratch('prometheus')
    try {
      const inside = new Map(
        (prometheus?.volumes ?? []).map(each => [each.split(':')[1] ?? '', each.split(':')[0] ?? '']),
      )
      for (const name of ['prometheus.yml', 'rules.yml'])
        await cp(join(repository, 'deploy', inside.get(`/etc/prometheus/${name}`) ?? ''), join(directory.path, name))
      const path = join(directory.path, 'prometheus.yml')
      await writeFile(path, (await readFile(path, 'utf8')).replaceAll('/etc/prometheus', directory.path))
      const said = await runOk('promtool', ['check', 'config', path])
      expect(said).toMatch(/1 rule files? found/)
      expect(said).toContain('rules found')
    } finally {
      await directory.remove()
    }
    const { global, scrape_configs: jobs } = parse(read('deploy/compose/prometheus.yml')) as {
      global: { scrape_interval: string }
      scrape_configs: { job_name: string; static_configs: { targets: string[] }[] }[]
    }
    const config = configOf(filledIn(layover.environment))
    expect(jobs).toEqual([{ job_name: 'layover', static_configs: [{ targets: [`layover:${config.admin.port}`] }] }])
    const { datasources } = parse(read('grafana/provisioning/datasources/prometheus.yml')) as {
      datasources: [{ url: string; jsonData: { timeInterval: string } }]
    }
    expect(datasources[0]).toMatchObject({
      url: 'http://prometheus:9090',
      jsonData: { timeInterval: global.scrape_interval },
    })
  })

  test('Grafana finds the dashboards where its provisioning looks for them', () => {
    const { providers } = parse(read('grafana/provisioning/dashboards/layover.yml')) as {
      providers: [{ options: { path: string } }]
    }
    expect(grafana?.volumes).toContain(`../grafana/dashboards:${providers[0].options.path}:ro`)
  })
})
