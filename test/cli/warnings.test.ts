import { expect, test } from 'vitest'
import { loudWarnings } from '../../src/cli/warnings.ts'
import { loadConfig } from '../../src/config/load.ts'

const largeDisk = (): number => Number.MAX_SAFE_INTEGER

function warningsOf(
  yaml: string,
  dockerConfig: unknown = {},
  diskSize: (path: string) => number | undefined = largeDisk,
) {
  const readFile = (path: string): string => (path.endsWith('layover.yaml') ? yaml : JSON.stringify(dockerConfig))
  return loudWarnings(loadConfig({ cwd: '/etc', readFile }), readFile, diskSize)
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
  expect(loudWarnings(config, gone, largeDisk)).toEqual([
    expect.stringMatching(/^credentials are configured for quay\.io: /),
  ])
})

test('F-34: a budget larger than the file system is said in words, also before the directory is there', () => {
  const asked: string[] = []
  const small = (path: string): number => {
    asked.push(path)
    if (path.startsWith('/srv/')) throw Object.assign(new Error('not there'), { code: 'ENOENT' })
    return 10 * 1024 ** 3
  }
  const yaml = (size: string): string => `{dataDir: /srv/layover/data, storage: {maxBytes: ${size}}}`
  expect(warningsOf(yaml('10GiB'), {}, small)).toEqual([])
  expect(warningsOf(yaml('11GiB'), {}, small)).toEqual([
    'storage.maxBytes is 11GiB, but the file system of /srv/layover/data has only 10GiB: the disk will be full before the cache is, and whatever else is on it suffers',
  ])
  expect(asked.slice(0, 3)).toEqual(['/srv/layover/data', '/srv/layover', '/srv'])
})

test('a file system that does not tell its size is nothing to warn of', () => {
  expect(warningsOf('', {}, () => undefined)).toEqual([])
  const broken = (): never => {
    throw new Error('statfs is not known here')
  }
  expect(warningsOf('', {}, broken)).toEqual([])
})
