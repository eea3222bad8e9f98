import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { errorCode, get, head, untilStored } from '../edge/pulling.ts'
import { FakeClock } from '../fakes/clock.ts'
import { ociManifestType, pseudoRandomBytes } from '../fakes/image.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'

const dockerManifestType = 'application/vnd.docker.distribution.manifest.v2+json'

let company: FakeRegistry
let evil: FakeRegistry
let clock: FakeClock
let layover: TestLayover

beforeEach(async () => {
  company = await startFakeRegistry()
  evil = await startFakeRegistry()
  clock = new FakeClock()
  layover = await startTestLayover({ upstreams: { 'company.test': company, 'evil.test': evil }, clock })
})
afterEach(async () => {
  await layover.close()
  await Promise.all([company.stop(), evil.stop()])
})

/** An OCI image whose manifest leaves out its media type, which the image spec allows. */
function untyped(registry: FakeRegistry, repository: string, tag: string, mediaType: string) {
  const config = Buffer.from('{"architecture":"amd64","os":"linux"}')
  const document = {
    schemaVersion: 2,
    config: {
      mediaType: 'application/vnd.oci.image.config.v1+json',
      digest: registry.addBlobTo(repository, config),
      size: config.length,
    },
    layers: [],
  }
  return registry.addManifest(repository, tag, document, mediaType)
}

describe('the media type of a manifest that does not say its own', () => {
  const lies = [dockerManifestType, 'application/vnd.evil.thing+json', 'application/vnd.oci.image.index.v1+json']

  test.each(lies)('T-17, T-22: %s from one repository is not served to another', async lie => {
    const digest = untyped(evil, 'attacker/image', 'poison', lie)
    untyped(company, 'team/app', 'v1', ociManifestType)
    await get(layover, '/v2/evil.test/attacker/image/manifests/poison')
    for (const reference of ['v1', digest]) {
      const { status, headers } = await get(layover, `/v2/company.test/team/app/manifests/${reference}`)
      expect([status, headers['content-type']]).toEqual([200, ociManifestType])
    }
  })

  test.each(lies)('T-17, T-22: %s that comes later changes nothing, also after a restart', async lie => {
    const digest = untyped(evil, 'attacker/image', 'poison', lie)
    untyped(company, 'team/app', 'v1', ociManifestType)
    await get(layover, `/v2/company.test/team/app/manifests/${digest}`)
    await get(layover, '/v2/evil.test/attacker/image/manifests/poison')
    await get(layover, `/v2/evil.test/attacker/image/manifests/${digest}`)
    layover = await layover.restart()
    const { status, headers } = await get(layover, `/v2/company.test/team/app/manifests/${digest}`)
    expect([status, headers['content-type']]).toEqual([200, ociManifestType])
  })
})

describe('a manifest that lies about sizes', () => {
  test('T-23: hides no blob from a repository that describes it rightly', async () => {
    const { layers, config } = company.image('team/app', 'v1')
    const [layer] = layers
    if (!layer) throw new Error('the image has a layer')
    company.addBlobTo('attacker/image', layer.bytes)
    company.addManifest(
      'attacker/image',
      'lie',
      {
        schemaVersion: 2,
        mediaType: ociManifestType,
        config: {
          mediaType: 'application/vnd.oci.image.config.v1+json',
          digest: config.digest,
          size: config.size,
        },
        layers: [
          { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: layer.digest, size: layer.size - 1 },
        ],
      },
      ociManifestType,
    )
    await get(layover, '/v2/attacker/image/manifests/lie')
    expect((await get(layover, `/v2/attacker/image/blobs/${layer.digest}`)).status).toBe(502)
    await get(layover, '/v2/team/app/manifests/v1')
    const honest = await get(layover, `/v2/team/app/blobs/${layer.digest}`)
    expect(honest.status).toBe(200)
    expect(honest.body.equals(layer.bytes)).toBe(true)
  })
})

describe('an upstream that claims what it does not have', () => {
  test('T-11: a HEAD that names a digest of another upstream does not open its manifest', async () => {
    const secret = company.image('team/secret', 'v1')
    await get(layover, '/v2/company.test/team/secret/manifests/v1')
    evil.image('attacker/image', 'v1', { seed: 'own' })
    await get(layover, '/v2/evil.test/attacker/image/manifests/v1')
    clock.advance(3_600_000)
    evil.settings.headers = { 'docker-content-digest': secret.digest }
    const claimed = { status: 200, headers: { 'docker-content-digest': secret.digest } }
    evil.fault({ method: 'HEAD', times: 100 }, { kind: 'status', ...claimed })
    for (const reference of ['v1', secret.digest]) {
      const { body } = await get(layover, `/v2/evil.test/attacker/image/manifests/${reference}`)
      expect(body.toString()).not.toContain(secret.config.digest)
    }
  })
})

describe('a digest that another repository brought', () => {
  test('T-11: answers GET, HEAD, ranges and conditions as one that nobody has', async () => {
    const bytes = pseudoRandomBytes(50_000, 'secret')
    const cached = company.addBlobTo('team/secret', bytes)
    const absent = digestOf(Buffer.from('nowhere'))
    const manifest = company.image('team/secret', 'v1').digest
    await get(layover, `/v2/team/secret/blobs/${cached}`)
    await get(layover, '/v2/team/secret/manifests/v1')
    await untilStored(layover)
    evil.image('attacker/image', 'v1', { seed: 'own' })
    const variants = [
      {},
      { range: 'bytes=0-0' },
      { range: 'bytes=99999999-' },
      { range: 'bytes=0-0,2-2' },
      { 'if-none-match': '*' },
    ]
    const answers = async (kind: string, digest: string) => {
      const seen: unknown[] = []
      for (const repository of ['company.test/other/image', 'evil.test/attacker/image'])
        for (const extra of [...variants, { 'if-none-match': `"${digest}"` }])
          for (const ask of [get, head]) {
            const { status, headers, body } = await ask(layover, `/v2/${repository}/${kind}/${digest}`, extra)
            seen.push({ status, headers: { ...headers, date: '' }, body: body.toString().replaceAll(digest, '…') })
          }
      return seen
    }
    expect(await answers('blobs', cached)).toEqual(await answers('blobs', absent))
    expect(await answers('manifests', manifest)).toEqual(await answers('manifests', absent))
    for (const digest of [cached, manifest])
      expect(errorCode(await get(layover, `/v2/other/image/blobs/${digest}`))).toBe('BLOB_UNKNOWN')
  })

  test('T-11: and the same while upstream cannot be asked', async () => {
    const cached = company.addBlobTo('team/secret', pseudoRandomBytes(50_000, 'secret'))
    const absent = digestOf(Buffer.from('nowhere'))
    await get(layover, `/v2/team/secret/blobs/${cached}`)
    await untilStored(layover)
    await company.stop()
    const answer = async (digest: string, ask: typeof get) => {
      const { status, headers, body } = await ask(layover, `/v2/other/image/blobs/${digest}`)
      return { status, names: Object.keys(headers), body: body.toString().replaceAll(digest, '…') }
    }
    // Until nobody is asked any more: before, a message may tell which of several attempts it was that failed.
    for (let time = 0; time < 5; time++) await answer(absent, get)
    for (const ask of [get, head]) expect(await answer(cached, ask)).toEqual(await answer(absent, ask))
  })
})

describe('an answer about one repository', () => {
  test.each([400, 401, 403])('T-23: HEAD refused with %i in one does not cost the others their HEAD', async status => {
    const { digest } = company.image('team/app', 'v1')
    await get(layover, '/v2/team/app/manifests/v1')
    company.fault({ method: 'HEAD', path: /odd/, times: 10 }, { kind: 'status', status })
    await get(layover, `/v2/odd/name/manifests/${digest}`)
    clock.advance(600_000)
    await get(layover, '/v2/team/app/manifests/v1')
    expect(company.count({ method: 'HEAD', path: /team/ })).toBe(1)
    expect(company.count({ method: 'GET', path: /team/ })).toBe(1)
  })
})
