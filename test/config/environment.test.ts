import { describe, expect, test } from 'vitest'
import { readEnvironmentLayer, variableOf } from '../../src/config/environment.ts'
import { allKeys } from '../../src/config/keys.ts'
import { Settings } from '../../src/config/settings.ts'
import { problemsOf, read } from './reading.ts'

describe('variables', () => {
  test('every key has one, and it reaches its key', () => {
    for (const { path, kind } of allKeys()) {
      const settings = new Settings()
      settings.open(['upstreams', 'quay.io'])
      const name = variableOf(path).replace('<NAME>', 'QUAY_IO')
      const text = { text: 'x', number: '7', boolean: 'true', list: 'a.io, b.io' }[kind]
      expect([name, readEnvironmentLayer({ [name]: text }, settings)]).toEqual([name, []])
      const expected = { text: 'x', number: 7, boolean: true, list: ['a.io', 'b.io'] }[kind]
      expect([name, settings.get(path.map(part => (part === '*' ? 'quay.io' : part)))]).toEqual([name, expected])
    }
  })

  test('no two keys share a variable', () => {
    const names = allKeys().map(({ path }) => variableOf(path))
    expect(new Set(names).size).toBe(names.length)
    expect(names).toEqual(
      expect.arrayContaining([
        'LAYOVER_LISTEN',
        'LAYOVER_DATA_DIR',
        'LAYOVER_STORAGE_MAX_BYTES',
        'LAYOVER_UPSTREAMS_<NAME>_TAG_TTL',
        'LAYOVER_UPSTREAMS_<NAME>_TIMEOUTS_CONNECT',
      ]),
    )
  })

  test('an upstream is meant by its name in capitals, with _ for every other sign', () => {
    const { config } = read('upstreams: {my-registry.example.com:5000: {username: u}}', {
      env: {
        LAYOVER_UPSTREAMS_MY_REGISTRY_EXAMPLE_COM_5000_PASSWORD: 'p',
        LAYOVER_UPSTREAMS_REGISTRY_K8S_IO_TAG_TTL: '1h',
        LAYOVER_UPSTREAMS_NVCR_IO: 'false',
      },
    })
    const find = (name: string) => config.upstreams.find(each => each.name === name)
    expect(find('my-registry.example.com:5000')?.credentials).toEqual({
      kind: 'password',
      username: 'u',
      password: 'p',
    })
    expect(find('registry.k8s.io')?.tagTtlMs).toBe(3_600_000)
    expect(find('nvcr.io')).toBeUndefined()
  })

  test('the longest name that fits is meant', () => {
    const { config } = read('upstreams: {a.io: {}, a.io:5000: {}}', {
      env: { LAYOVER_UPSTREAMS_A_IO_5000_TAG_TTL: '1s' },
    })
    expect(config.upstreams.filter(each => each.tagTtlMs === 1000).map(({ name }) => name)).toEqual(['a.io:5000'])
  })

  test('a new upstream is named by _NAME, in any order', () => {
    const { config } = read('', {
      env: { LAYOVER_UPSTREAMS_ACME_TAG_TTL: '1s', LAYOVER_UPSTREAMS_ACME_NAME: 'registry.acme.example' },
    })
    expect(config.upstreams.at(-1)).toMatchObject({
      name: 'registry.acme.example',
      tagTtlMs: 1000,
      url: 'https://registry.acme.example',
    })
    expect(problemsOf('', { env: { LAYOVER_UPSTREAMS_ACME_NAME: 'acme' } })).toEqual([
      'LAYOVER_UPSTREAMS_ACME_NAME: expected the host of a registry in lower case, such as registry.example.com',
    ])
  })

  test('names that look the same in capitals must be set in the file', () => {
    expect(
      problemsOf('upstreams: {a-b.io: {}, a.b.io: {}}', { env: { LAYOVER_UPSTREAMS_A_B_IO_TAG_TTL: '1s' } }),
    ).toEqual(['LAYOVER_UPSTREAMS_A_B_IO_TAG_TTL: can mean a-b.io and a.b.io: set it in the file instead'])
  })

  test('an empty variable is not set', () => {
    expect(read('', { env: { LAYOVER_LISTEN: '', LAYOVER_NONSENSE: '' } }).config.listen.port).toBe(5000)
  })

  test('unknown ones fail, with a suggestion', () => {
    expect(problemsOf('', { env: { LAYOVER_LISTN: ':1' } })).toEqual([
      'LAYOVER_LISTN: no such setting. Did you mean LAYOVER_LISTEN?',
    ])
    expect(problemsOf('', { env: { LAYOVER_UPSTREAMS_QUAY_IO_TAGTTL: '1s' } })).toEqual([
      'LAYOVER_UPSTREAMS_QUAY_IO_TAGTTL: no such setting. Did you mean LAYOVER_UPSTREAMS_QUAY_IO_TAG_TTL?',
    ])
    expect(problemsOf('', { env: { LAYOVER_UPSTREAMS_NOWHERE_AT_ALL: 'x' } })[0]).toContain(
      'LAYOVER_UPSTREAMS_<ANY>_NAME',
    )
  })

  test('a Kubernetes service that is called layover does not keep it from starting', () => {
    const env = {
      LAYOVER_SERVICE_HOST: '10.0.0.1',
      LAYOVER_SERVICE_PORT: '5000',
      LAYOVER_SERVICE_PORT_REGISTRY: '5000',
      LAYOVER_PORT: 'tcp://10.0.0.1:5000',
      LAYOVER_PORT_5000_TCP: 'tcp://10.0.0.1:5000',
      LAYOVER_PORT_5000_TCP_PROTO: 'tcp',
      LAYOVER_PORT_5000_TCP_PORT: '5000',
      LAYOVER_PORT_5000_TCP_ADDR: '10.0.0.1',
      LAYOVER_ADMIN_SERVICE_HOST: '10.0.0.2',
      LAYOVER_ADMIN_PORT: 'tcp://10.0.0.2:5001',
    }
    expect(problemsOf('', { env })).toEqual([])
    expect(problemsOf('', { env: { LAYOVER_PORT: '5000' } })).toHaveLength(1)
  })
})
