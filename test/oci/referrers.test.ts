import { describe, expect, it } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { ociIndex, ociManifest } from '../../src/oci/media-types.ts'
import { filterByArtifactType, readReferrers, referrersIndex, referrersTag } from '../../src/oci/referrers.ts'
import { parseReference } from '../../src/oci/reference.ts'

const descriptor = (text: string, more: object = {}) => ({
  mediaType: ociManifest,
  digest: digestOf(Buffer.from(text)),
  size: text.length,
  ...more,
})
const indexOf = (...manifests: unknown[]) =>
  Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: ociIndex, manifests }))

describe('referrers', () => {
  it('P-81: the tag of a digest is a valid tag', () => {
    const digest = digestOf(Buffer.from('x'))
    expect(referrersTag(digest)).toBe(digest.replace(':', '-'))
    const long = referrersTag(digestOf(Buffer.from('x'), 'sha512'))
    expect(long).toMatch(/^sha512-[0-9a-f]{64}$/)
    expect(parseReference(long).kind).toBe('tag')
  })

  it('P-85: reads an index, without the descriptors that are invalid', () => {
    const referrers = readReferrers(indexOf(descriptor('a', { artifactType: 'a/b' }), { digest: 'x' }, null))
    expect(referrers).toMatchObject([{ digest: digestOf(Buffer.from('a')), artifactType: 'a/b' }])
  })

  it.each([
    ['an image', { mediaType: ociManifest, config: descriptor('c'), layers: [] }],
    ['an error', { errors: [{ code: 'NOT_FOUND' }] }],
    ['a page', 'x'],
  ])('P-85: refuses %s', (_, document) => {
    expect(() => readReferrers(Buffer.from(JSON.stringify(document)))).toThrow(
      expect.objectContaining({ name: 'ManifestRefused' }),
    )
  })

  it('P-82: filters by the artifact type of the descriptor', () => {
    const referrers = readReferrers(
      indexOf(descriptor('a', { artifactType: 'a/b' }), descriptor('b'), descriptor('c', { artifactType: 'c' })),
    )
    expect(filterByArtifactType(referrers, 'a/b').map(({ size, artifactType }) => [size, artifactType])).toEqual([
      [1, 'a/b'],
    ])
  })

  it('P-67, P-80: writes an index that passes on fields we do not know, each digest once', () => {
    const known = descriptor('a', { data: 'YQ==', annotations: { k: 'v' }, 'x-new': [1] })
    const bytes = referrersIndex(readReferrers(indexOf(known, descriptor('b'), known)))
    expect(JSON.parse(bytes.toString())).toEqual({
      schemaVersion: 2,
      mediaType: ociIndex,
      manifests: [known, descriptor('b')],
    })
    expect(JSON.parse(referrersIndex([]).toString())).toMatchObject({ manifests: [] })
  })

  it('T-53: __proto__ in annotations goes through a merge unharmed', () => {
    const text = `{"mediaType":"${ociManifest}","digest":"${digestOf(Buffer.from('a'))}","size":1,"annotations":{"__proto__":"evil","constructor":"x"}}`
    const bytes = referrersIndex(readReferrers(Buffer.from(`{"manifests":[${text}]}`)))
    expect(bytes.toString()).toContain(text)
    expect(Object.hasOwn(Object.prototype, 'evil')).toBe(false)
  })
})
