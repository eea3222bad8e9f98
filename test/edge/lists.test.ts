import { describe, expect, test } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { ociIndexType, ociManifestType } from '../fakes/image.ts'
import { errorCode, get, head, usingLayover } from './pulling.ts'

const room = usingLayover()

function tagged(...tags: string[]): void {
  for (const tag of tags) room.registry.image('team/app', tag)
}

const list = async (target: string): Promise<{ name: string; tags: string[]; link: string | undefined }> => {
  const { status, headers, body } = await get(room.layover, target)
  expect([status, headers['content-type']]).toEqual([200, 'application/json'])
  const { name, tags } = JSON.parse(body.toString()) as { name: string; tags: string[] }
  return { name, tags, link: headers.link }
}

describe('tags', () => {
  test('P-74: in lexical order, under the name that the client used', async () => {
    tagged('b', 'a', 'C', '10', '9', '_x')
    expect(await list('/v2/team/app/tags/list')).toEqual({
      name: 'team/app',
      tags: ['10', '9', 'C', '_x', 'a', 'b'],
      link: undefined,
    })
    expect((await list('/v2/fake.test/team/app/tags/list')).name).toBe('team/app')
  })

  test('P-74: an unknown repository is 404, one without tags an empty list', async () => {
    const answer = await get(room.layover, '/v2/nowhere/tags/list')
    expect([answer.status, errorCode(answer)]).toEqual([404, 'NAME_UNKNOWN'])
    room.registry.image('untagged', undefined)
    expect((await list('/v2/untagged/tags/list')).tags).toEqual([])
  })

  test.each([
    ['/v2/team/app/tags/list', '/v2/team/app/tags/list?n=2&last=b'],
    ['/v2/fake.test/team/app/tags/list', '/v2/fake.test/team/app/tags/list?n=2&last=b'],
    ['/fake.test/v2/team/app/tags/list', '/fake.test/v2/team/app/tags/list?n=2&last=b'],
    ['/v2/team/app/tags/list?ns=fake.test', '/v2/team/app/tags/list?n=2&last=b&ns=fake.test'],
    ['/v2/%74eam/app/tags/list', '/v2/team/app/tags/list?n=2&last=b'],
  ])('P-75, P-76, P-110: the pages of %s lead through its own addresses', async (target, second) => {
    tagged('a', 'b', 'c', 'd', 'e')
    const found: string[] = []
    let page = await list(`${target}${target.includes('?') ? '&' : '?'}n=2`)
    expect(page.link).toBe(`<${second}>; rel="next"`)
    for (;;) {
      found.push(...page.tags)
      const next = /^<(.+)>; rel="next"$/.exec(page.link ?? '')?.[1]
      if (next === undefined) break
      expect(page.tags).toHaveLength(2)
      page = await list(next)
    }
    expect(found).toEqual(['a', 'b', 'c', 'd', 'e'])
  })

  test('P-75: last works without n, n=0 is empty without a link, and n must be a number', async () => {
    tagged('a', 'b', 'c')
    expect((await list('/v2/team/app/tags/list?last=a')).tags).toEqual(['b', 'c'])
    expect(await list('/v2/team/app/tags/list?n=0')).toEqual({ name: 'team/app', tags: [], link: undefined })
    for (const n of ['-1', 'x', '1.5', '%00', '']) {
      const answer = await get(room.layover, `/v2/team/app/tags/list?n=${n}`)
      expect([n, answer.status, errorCode(answer)]).toEqual([n, 400, 'PAGINATION_NUMBER_INVALID'])
    }
    expect((await list('/v2/team/app/tags/list?n=99999999999999999999')).tags).toHaveLength(3)
  })

  test('P-76, T-6: a link to another host or path is not followed nor passed on', async () => {
    tagged('a')
    for (const link of [
      '<http://169.254.169.254/v2/team/app/tags/list?last=a>; rel="next"',
      '</v2/other/tags/list?last=a>; rel="next"',
      '<//evil.test/v2/team/app/tags/list?last=a>; rel="next"',
      '<javascript:alert(1)>; rel="next"',
    ]) {
      room.registry.settings.headers = { link }
      room.clock.advance(60_000)
      const page = await list('/v2/team/app/tags/list')
      expect([link, page.link]).toEqual([link, undefined])
    }
  })

  test('P-77: opaque parameters of the next page are kept', async () => {
    tagged('a')
    room.registry.settings.headers = { link: '</v2/team/app/tags/list?next_page=gAAAA%3D%3D&n=1>; rel="next"' }
    expect((await list('/v2/team/app/tags/list?n=1')).link).toBe(
      '</v2/team/app/tags/list?next_page=gAAAA%3D%3D&n=1>; rel="next"',
    )
    room.registry.settings.headers = {}
    await list('/v2/team/app/tags/list?next_page=gAAAA%3D%3D&n=1')
    expect(room.registry.requests.at(-1)?.query.get('next_page')).toBe('gAAAA==')
  })

  test('P-78, P-103: upstream is gone: the last answer, marked stale', async () => {
    tagged('a', 'b')
    await list('/v2/team/app/tags/list')
    await list('/v2/team/app/tags/list')
    expect(room.registry.count({ path: /tags/ })).toBe(1)
    await room.registry.stop()
    room.clock.advance(60_000)
    const { status, headers, body } = await get(room.layover, '/v2/team/app/tags/list')
    expect([status, JSON.parse(body.toString()), headers.age]).toEqual([
      200,
      { name: 'team/app', tags: ['a', 'b'] },
      '60',
    ])
    expect(headers.warning).toMatch(/^299 - "stale: /)
    expect(headers['cache-status']).toBe('Layover; hit; detail="stale"')
  })

  test('P-78: upstream is gone and was never asked: the tags that were pulled, marked incomplete', async () => {
    tagged('a', 'b')
    await get(room.layover, '/v2/team/app/manifests/b')
    await room.registry.stop()
    const { status, headers, body } = await get(room.layover, '/v2/team/app/tags/list')
    expect([status, JSON.parse(body.toString())]).toEqual([200, { name: 'team/app', tags: ['b'] }])
    expect(headers.warning).toMatch(/^299 - "incomplete: /)
  })

  test('P-46: HEAD of a list has its headers and no body', async () => {
    tagged('a')
    const { headers: ofGet } = await get(room.layover, '/v2/team/app/tags/list')
    const { status, headers, body } = await head(room.layover, '/v2/team/app/tags/list')
    expect([status, headers['content-length'], body.length]).toEqual([200, ofGet['content-length'], 0])
  })
})

describe('referrers', () => {
  const signatureType = 'application/vnd.dev.cosign.artifact.sig.v1+json'
  const sbomType = 'application/spdx+json'

  function referring(subject: string, artifactType: string, annotations: Record<string, string> = {}): string {
    const manifest = {
      schemaVersion: 2,
      mediaType: ociManifestType,
      artifactType,
      config: { mediaType: 'application/vnd.oci.empty.v1+json', digest: digestOf(Buffer.from('{}')), size: 2 },
      layers: [],
      subject: { mediaType: ociManifestType, digest: subject, size: 1 },
      annotations,
    }
    return room.registry.addManifest('app', undefined, manifest, ociManifestType)
  }

  async function referrers(target: string): Promise<{
    index: {
      schemaVersion: number
      mediaType: string
      manifests: { digest: string; artifactType: string; annotations?: object }[]
    }
    headers: Readonly<Record<string, string>>
  }> {
    const { status, headers, body } = await get(room.layover, target)
    expect([status, headers['content-type']]).toEqual([200, ociIndexType])
    const index = JSON.parse(body.toString())
    expect([index.schemaVersion, index.mediaType, Array.isArray(index.manifests)]).toEqual([2, ociIndexType, true])
    return { index, headers }
  }

  test('P-80: what nobody refers to has an empty index, whether it exists or not', async () => {
    const { digest } = room.registry.image('app', 'latest')
    for (const subject of [digest, digestOf(Buffer.from('random'))])
      expect((await referrers(`/v2/app/referrers/${subject}`)).index.manifests).toEqual([])
    const answer = await get(room.layover, '/v2/app/referrers/sha256:totallywrong')
    expect([answer.status, errorCode(answer)]).toEqual([400, 'DIGEST_INVALID'])
  })

  test('P-80, P-82, T-53: descriptors with their type and annotations; filtered on demand, and said so', async () => {
    const { digest } = room.registry.image('app', 'latest')
    const signature = referring(
      digest,
      signatureType,
      JSON.parse('{"__proto__":"x","constructor":"y"}') as Record<string, string>,
    )
    const sbom = referring(digest, sbomType)
    const all = await referrers(`/v2/app/referrers/${digest}`)
    expect(all.index.manifests.map(one => one.digest).sort()).toEqual([signature, sbom].sort())
    expect(Object.entries(all.index.manifests.find(one => one.digest === signature)?.annotations ?? {})).toEqual([
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ])
    expect(all.headers).not.toHaveProperty('oci-filters-applied')
    const some = await referrers(`/v2/app/referrers/${digest}?artifactType=${encodeURIComponent(sbomType)}`)
    expect(some.index.manifests.map(one => [one.digest, one.artifactType])).toEqual([[sbom, sbomType]])
    expect(some.headers['oci-filters-applied']).toBe('artifactType')
  })

  test('P-81, P-82, P-85: without the API the fallback tag answers, filtered here', async () => {
    room.registry.settings.referrers = false
    const { digest } = room.registry.image('app', 'latest')
    const entry = (artifactType: string) => ({
      mediaType: ociManifestType,
      digest: digestOf(Buffer.from(artifactType)),
      size: 10,
      artifactType,
    })
    room.registry.addManifest(
      'app',
      digest.replace(':', '-'),
      { schemaVersion: 2, mediaType: ociIndexType, manifests: [entry(signatureType), entry(sbomType)] },
      ociIndexType,
    )
    expect((await referrers(`/v2/app/referrers/${digest}`)).index.manifests).toHaveLength(2)
    const some = await referrers(`/v2/app/referrers/${digest}?artifactType=${encodeURIComponent(sbomType)}`)
    expect([some.index.manifests.length, some.headers['oci-filters-applied']]).toEqual([1, 'artifactType'])
    const bare = room.registry.image('app', 'bare', { seed: 'bare' })
    room.registry.image('app', bare.digest.replace(':', '-'))
    expect((await referrers(`/v2/app/referrers/${bare.digest}`)).index.manifests).toEqual([])
  })

  test('P-83: the next page is linked in the client’s own addresses', async () => {
    const { digest } = room.registry.image('app', 'latest')
    room.registry.settings.headers = { link: `<${room.registry.url}/v2/app/referrers/${digest}?page=2>; rel="next"` }
    const { headers } = await referrers(`/v2/fake.test/app/referrers/${digest}?ns=fake.test`)
    expect(headers.link).toBe(`</v2/fake.test/app/referrers/${digest}?page=2&ns=fake.test>; rel="next"`)
  })

  test('P-84: a new signature shows after seconds, and the last answer when upstream is gone', async () => {
    const { digest } = room.registry.image('app', 'latest')
    expect((await referrers(`/v2/app/referrers/${digest}`)).index.manifests).toHaveLength(0)
    referring(digest, signatureType)
    room.clock.advance(15_000)
    expect((await referrers(`/v2/app/referrers/${digest}`)).index.manifests).toHaveLength(1)
    await room.registry.stop()
    room.clock.advance(60_000)
    const stale = await referrers(`/v2/app/referrers/${digest}`)
    expect([stale.index.manifests.length, stale.headers.warning]).toEqual([1, expect.stringMatching(/^299 - "stale: /)])
  })
})
