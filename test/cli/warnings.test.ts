import { expect, test } from 'vitest'
import { loudWarnings } from '../../src/cli/warnings.ts'
import { loadConfig } from '../../src/config/load.ts'

function warningsOf(yaml: string, dockerConfig: unknown = {}): string[] {
  const readFile = (path: string): string => (path.endsWith('layover.yaml') ? yaml : JSON.stringify(dockerConfig))
  return loudWarnings(loadConfig({ cwd: '/etc', readFile }), readFile)
}

test('a plain configuration has nothing to warn of', () => expect(warningsOf('')).toEqual([]))

test('T-11: a shared docker config.json concerns the registries that it has credentials for, under all of their names', () => {
  const dockerConfig = {
    auths: { 'https://index.docker.io/v1/': { auth: 'eDp5' }, 'ghcr.io': { auth: 'eDp5' }, 'quay.io': {} },
  }
  expect(warningsOf('dockerConfig: d.json', dockerConfig)).toEqual([
    'credentials are configured for docker.io, ghcr.io: everything that these credentials can read is readable by whoever reaches 0.0.0.0:5000',
  ])
})

test('credential helpers are not run, so they are mentioned, once', () => {
  const line = '/etc/d.json names credential helpers: they are not run, only the entries of its auths are used'
  expect(warningsOf('dockerConfig: d.json', { credsStore: 'desktop' })).toEqual([line])
  expect(warningsOf('dockerConfig: d.json', { credHelpers: { 'quay.io': 'x' } })).toEqual([line])
})

test('a docker config.json that cannot be read any more counts as credentials', () => {
  const readFile = (path: string): string =>
    path.endsWith('.yaml') ? 'upstreams: {quay.io: {dockerConfig: d.json}}' : '{}'
  const config = loadConfig({ cwd: '/etc', readFile })
  const gone = (): never => {
    throw new Error('gone')
  }
  expect(loudWarnings(config, gone)).toEqual([expect.stringMatching(/^credentials are configured for quay\.io: /)])
})
