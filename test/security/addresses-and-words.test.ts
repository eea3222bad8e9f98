import { describe, expect, test } from 'vitest'
import { redactText } from '../../src/log/redact.ts'
import { ManifestRefused, readManifest } from '../../src/oci/manifest.ts'
import { classOf } from '../../src/upstream/addresses.ts'
import { acceptRealm } from '../../src/upstream/realm.ts'
import { nextHop } from '../../src/upstream/redirects.ts'

describe('T-1: a realm that looks like the registry’s own', () => {
  test.each([
    ['https://registry.example.com', 'https://evil.test\\@registry.example.com/'],
    ['https://registry.example.com', 'https://registry.example.com\t.evil.test/'],
    ['https://registry.example.com', 'https://registry.example.com%2eevil.test/'],
    ['https://registry.example.com', 'https://ехample.com/'],
    ['https://registry.example.com', 'https://example.com..evil.test/'],
    ['https://registry.example.com', 'https://evil.test#.example.com'],
    ['https://registry.example.com', 'https://evil.test?.example.com'],
    ['https://registry.example.com', 'https:///evil.test'],
    ['https://registry.example.com', '//registry.example.com/'],
    ['https://registry.example.com', 'https://com/'],
    ['https://registry.prod.svc.cluster.local', 'https://tokens.evil.svc.cluster.local/'],
    ['https://registry.service.consul', 'https://evil.service.consul/'],
    ['https://ip-10-0-0-1.eu-west-1.compute.internal', 'https://ip-10-0-0-2.eu-west-1.compute.internal/'],
  ])('%s may not name %j', (registry, realm) => {
    expect(acceptRealm({ realm, registry: new URL(registry), realmHosts: [] })).toHaveProperty('refused')
  })
})

describe('T-2: an address in disguise', () => {
  test.each([
    ['::ffff:0:169.254.169.254', 'never'],
    ['::ffff:0:7f00:1', 'loopback'],
    ['::ffff:0:10.0.0.1', 'private'],
    ['2002:7f00:1::', 'loopback'],
    ['64:ff9b::10.0.0.1', 'private'],
    ['64:ff9b:1::7f00:1', 'never'],
    ['2001:0:4136:e378:8000:63bf:3fff:fdd2', 'never'],
  ])('%s is %s', (address, expected) => expect(classOf(address)).toBe(expected))

  test.each([
    'https://0x7f.1/',
    'https://2130706433/',
    'https://017700000001/',
    'https://①②⑦.⓪.⓪.①/',
    'https://127.0.0.1./',
    'https://[::ffff:0:7f00:1]/',
    'https://[::ffff:a9fe:a9fe]/',
    'https://[fe80::1%25eth0]/',
    'https://user:password@cdn.example.com/',
  ])('no redirect leads to %s', location => {
    const registry = new URL('https://registry.example.com')
    const hop = { upstream: 'u', from: registry, location, registry, redirectHosts: [] }
    expect(() => nextHop({ ...hop, foreign: { kind: 'foreign', from: 'public' } })).toThrow(/redirects/)
  })
})

test.each(['<', '"', "'", '`', '\\', '>'])('T-10: a password with %s in a URL is not shown', character => {
  const shown = redactText(`GET https://user:start${character}canary-77@registry.example.com/v2/?x=1 failed`)
  expect(shown).not.toMatch(/canary|start/)
  expect(shown).toContain('registry.example.com')
})

/** Objects of the same 60 keys, in an order of its own each. */
function shuffled(count: number): string {
  const object = (step: number): string =>
    `{${Array.from({ length: 60 }, (_, index) => `"a${(index * (1 + (step % 60))) % 61}${index > 30 ? step : ''}":1`).join(',')}}`
  return Array.from({ length: count }, (_, step) => object(step)).join(',')
}

describe('T-42: four megabytes made of next to nothing', () => {
  const type = 'application/vnd.oci.image.manifest.v1+json'
  const image = (more: string): Buffer => Buffer.from(`{"schemaVersion":2,"config":{},${more}}`)

  test.each([
    ['objects', image(`"layers":[${'{},'.repeat(1_300_000)}{}]`)],
    ['lists', image(`"layers":[],"x":[${'[],'.repeat(1_300_000)}[]]`)],
  ])('%s are refused before they are built', (_, bytes) => {
    expect(() => readManifest(bytes, type)).toThrow(ManifestRefused)
  })

  const keys = (count: number, value: string): string =>
    Array.from({ length: count }, (_, index) => `"k${index}":${value}`).join(',')

  test.each([
    ['annotations', image(`"layers":[],"annotations":{${keys(300_000, '""')}}`)],
    ['objects with keys in ever other orders', image(`"layers":[],"x":[${shuffled(4_000)}]`)],
    ['keys', image(`"layers":[],"x":[${`{${keys(100, '1')}},`.repeat(3_000)}1]`)],
    [
      'short texts',
      image(`"layers":[],"x":[${Array.from({ length: 300_000 }, (_, index) => `"${index}"`).join(',')}]`),
    ],
  ])('%s, which take long to build, are refused', (_, bytes) => {
    expect(bytes.length).toBeLessThan(4 * 1024 * 1024)
    expect(() => readManifest(bytes, type)).toThrow('more keys, strings or objects than any manifest')
  })

  test('what is only large is accepted: 24,000 layers, 4,000 platforms with annotations, 8,000 annotations', () => {
    const hex = (index: number): string => index.toString(16).padStart(64, '0')
    const layer = (index: number) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: `sha256:${hex(index)}`,
      size: index,
    })
    const layers = Array.from({ length: 24_000 }, (_, index) => layer(index))
    expect(readManifest(image(`"layers":${JSON.stringify(layers)}`), type)).toMatchObject({ truncated: true })
    const platform = { architecture: 'amd64', os: 'linux', variant: 'v8', 'os.version': '10.0' }
    const annotations = { 'vnd.docker.reference.type': 'attestation-manifest', 'vnd.docker.reference.digest': hex(1) }
    const manifests = Array.from({ length: 4_000 }, (_, index) => ({ ...layer(index), platform, annotations }))
    expect(
      readManifest(Buffer.from(JSON.stringify({ schemaVersion: 2, manifests })), undefined).manifests,
    ).toHaveLength(4_000)
    expect(readManifest(image(`"layers":[],"annotations":{${keys(8_000, '"v"')}}`), type).annotations?.size).toBe(4096)
  })
})
