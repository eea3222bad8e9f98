import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { digestOf } from '../../src/oci/digest.ts'
import { describedBlobs, ManifestRefused, readManifest } from '../../src/oci/manifest.ts'
import { dockerList, dockerManifest, ociArtifactManifest, ociIndex, ociManifest } from '../../src/oci/media-types.ts'

const descriptor = (text: string, more: object = {}) => ({
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  digest: digestOf(Buffer.from(text)),
  size: text.length,
  ...more,
})
const image = { schemaVersion: 2, mediaType: ociManifest, config: descriptor('config'), layers: [descriptor('layer')] }
const index = { schemaVersion: 2, mediaType: ociIndex, manifests: [descriptor('child', { mediaType: ociManifest })] }
const bytesOf = (value: unknown): Buffer => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
const read = (value: unknown, contentType?: string) => readManifest(bytesOf(value), contentType)
const without = (value: object, key: string) =>
  Object.fromEntries(Object.entries(value).filter(([name]) => name !== key))

const numbered = (prefix: string) =>
  Object.fromEntries(Array.from({ length: 3000 }, (_, n) => [`${prefix}${n}`, `${n}`]))
const nested = (levels: number) => `{"layers":[],"x":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}`
const children = (count: number) => ({ ...index, manifests: Array.from({ length: count }, () => descriptor('x')) })

function reasonOf(value: unknown, contentType?: string): string {
  try {
    return `accepted as ${read(value, contentType).mediaType}`
  } catch (error) {
    if (error instanceof ManifestRefused) return error.reason
    throw error
  }
}

describe('readManifest', () => {
  it('P-29: reads an image manifest', () => {
    expect(read(image, ociManifest)).toEqual({
      mediaType: ociManifest,
      kind: 'image',
      config: image.config,
      layers: image.layers,
      manifests: [],
      subject: undefined,
      artifactType: undefined,
      annotations: undefined,
      truncated: false,
    })
  })

  it('P-29: reads an index, with platform, subject, artifact type and annotations', () => {
    const child = descriptor('child', { platform: { os: 'linux', architecture: 'arm', variant: 'v7', other: 1 } })
    const parsed = read({
      ...index,
      manifests: [child],
      subject: descriptor('subject'),
      artifactType: 'a/b',
      annotations: { k: 'v', n: 1 },
    })
    expect(parsed).toMatchObject({ kind: 'index', subject: descriptor('subject'), artifactType: 'a/b', layers: [] })
    expect(parsed.manifests).toMatchObject([{ platform: { os: 'linux', architecture: 'arm', variant: 'v7' } }])
    expect(parsed.annotations).toEqual(new Map([['k', 'v']]))
  })

  it('P-29: is not put off by a byte order mark, CRLF and odd whitespace, and leaves the bytes alone', () => {
    const bytes = bytesOf(`\uFEFF\r\n ${JSON.stringify(image, undefined, '\t').replaceAll('\n', '\r\n')}\r\n\n`)
    const before = Buffer.from(bytes)
    expect(readManifest(bytes, ociManifest).kind).toBe('image')
    expect(bytes).toEqual(before)
  })

  it.each([
    ['the declared type', image, undefined, ociManifest],
    ['the declared type', index, 'application/json', ociIndex],
    ['the declared type', { ...image, mediaType: dockerManifest }, 'text/plain; charset=utf-8', dockerManifest],
    ['the declared type', { ...index, mediaType: dockerList }, 'application/octet-stream', dockerList],
    ['the sent type', without(image, 'mediaType'), `${ociManifest}; charset=utf-8`, ociManifest],
    ['the sent type', without(image, 'mediaType'), dockerManifest.toUpperCase(), dockerManifest],
    ['the structure', without(image, 'mediaType'), undefined, ociManifest],
    ['the structure', without(index, 'mediaType'), 'application/json', ociIndex],
    ['the structure', { schemaVersion: 2, manifests: null }, '', ociIndex],
    [
      'an unknown type',
      { ...image, mediaType: 'application/vnd.acme.thing+json' },
      undefined,
      'application/vnd.acme.thing+json',
    ],
    [
      'an unknown type',
      without(index, 'mediaType'),
      'application/vnd.acme.list.v3+json',
      'application/vnd.acme.list.v3+json',
    ],
  ])('P-35, P-71: takes %s (%#)', (_, document, contentType, mediaType) => {
    expect(read(document, contentType).mediaType).toBe(mediaType)
  })

  it.each([
    ['P-34: a body and a header that differ', image, dockerManifest, 'media_type_mismatch'],
    ['P-34: an index sent as an image', index, ociManifest, 'media_type_mismatch'],
    [
      'P-34: an unknown type in a known header',
      { ...image, mediaType: 'application/x+json' },
      ociManifest,
      'media_type_mismatch',
    ],
    ['T-17: manifests and layers', { ...index, layers: [] }, ociIndex, 'ambiguous'],
    ['T-17: manifests and config', { ...index, config: descriptor('c') }, ociIndex, 'ambiguous'],
    ['T-17: manifests and layers without a type', { manifests: [], layers: [] }, undefined, 'ambiguous'],
    ['T-17: layers in an index', { ...image, mediaType: ociIndex }, ociIndex, 'ambiguous'],
    ['T-17: an untyped index sent as an image', without(index, 'mediaType'), ociManifest, 'ambiguous'],
    [
      'P-36: schema 1 by header',
      { schemaVersion: 1 },
      'application/vnd.docker.distribution.manifest.v1+prettyjws',
      'schema_1',
    ],
    ['P-36: schema 1 by version', { schemaVersion: 1, fsLayers: [] }, 'application/json', 'schema_1'],
    [
      'P-36: schema 1 by body',
      { mediaType: 'application/vnd.docker.distribution.manifest.v1+json' },
      undefined,
      'schema_1',
    ],
    ['P-115: a login page', '<!doctype html><title>Log in</title>', 'text/html', 'syntax'],
    ['P-115: nothing', '', ociManifest, 'syntax'],
    ['P-115: null', 'null', ociManifest, 'syntax'],
    ['P-115: a list', [image], ociManifest, 'syntax'],
    ['P-115: half of a manifest', JSON.stringify(image).slice(0, -5), ociManifest, 'syntax'],
    ['P-115: two manifests', JSON.stringify(image) + JSON.stringify(index), ociManifest, 'syntax'],
    ['P-115: an empty object', {}, ociManifest, 'structure'],
    ['P-115: another JSON document', { name: 'x', tags: [] }, 'application/json', 'structure'],
    ['P-115: a picture type', image.layers.length ? without(image, 'mediaType') : {}, 'image/png', 'media_type'],
    ['P-115: a manifest as a page', without(image, 'mediaType'), 'text/html', 'media_type'],
    ['F-31: an error with 200', { errors: [{ code: 'DENIED' }] }, ociManifest, 'error_body'],
    ['F-31: an error with 200 and no type', { errors: [] }, 'application/json', 'error_body'],
    ['a media type that is a number', { ...image, mediaType: 7 }, undefined, 'media_type'],
    ['a media type with a line break', { ...image, mediaType: 'application/a\r\nb+json' }, undefined, 'media_type'],
    ['layers that are no list', { ...image, layers: {} }, ociManifest, 'structure'],
    ['a config that is no object', { ...image, config: 'x' }, ociManifest, 'structure'],
    ['T-54: two lists of layers', `{"layers":[],"config":{},"layers":[]}`, ociManifest, 'ambiguous'],
    [
      'T-54: two types',
      `{"mediaType":"${ociManifest}","layers":[],"mediaType":"${ociManifest}"}`,
      undefined,
      'ambiguous',
    ],
    ['T-54: two keys, one escaped', `{"layers":[],"\\u006cayers":[]}`, ociManifest, 'ambiguous'],
    ['T-54: two keys, one in capitals', `{"manifests":[],"Manifests":[]}`, ociIndex, 'ambiguous'],
    ['T-54: one key as only Go reads it', `{"config":{},"Manifests":[]}`, undefined, 'ambiguous'],
    ['T-54: one key with a long s', `{"config":{},"layer\u017F":[]}`, undefined, 'ambiguous'],
    ['T-42: a deep document', `{"layers":${'['.repeat(100)}${']'.repeat(100)}}`, ociManifest, 'syntax'],
    ['T-42: a very deep document', '['.repeat(2_000_000), ociManifest, 'syntax'],
    [
      'T-42: a very wide document',
      `{${Array.from({ length: 5000 }, (_, n) => `"${n}":0`).join(',')}}`,
      ociManifest,
      'syntax',
    ],
  ])('%s is refused', (_, document, contentType, reason) => {
    expect(reasonOf(document, contentType)).toBe(reason)
  })

  it('T-42: refuses thousands of integer keys, which are slow to parse, and takes as many others', () => {
    expect(reasonOf({ ...image, annotations: numbered('') }, ociManifest)).toBe('syntax')
    expect(read({ ...image, annotations: numbered('k') }, ociManifest).annotations?.size).toBe(3000)
  })

  it('T-54: the same keys inside of other objects and in text are no duplicates', () => {
    const document = { ...image, annotations: { layers: '"config":', config: '\\"mediaType":' } }
    expect(read(document, ociManifest).annotations?.get('layers')).toBe('"config":')
  })

  it('T-42: accepts 64 levels and not 65', () => {
    expect(reasonOf(nested(64), ociManifest)).toBe(`accepted as ${ociManifest}`)
    expect(reasonOf(nested(65), ociManifest)).toBe('syntax')
  })

  it('T-42: follows 4096 descriptors and says that there are more', () => {
    expect(read(children(4096))).toMatchObject({ truncated: false, manifests: { length: 4096 } })
    expect(read(children(4097))).toMatchObject({ truncated: true, manifests: { length: 4096 } })
  })

  it('leaves out descriptors that cannot be relied upon, and relays the manifest', () => {
    const bad = [
      descriptor('x', { digest: 'sha256:totallywrong' }),
      descriptor('x', { digest: `sha256:${'A'.repeat(64)}` }),
      descriptor('x', { digest: 5 }),
      descriptor('x', { size: -1 }),
      descriptor('x', { size: 1.5 }),
      descriptor('x', { size: '1' }),
      descriptor('x', { size: 2 ** 60 }),
      null,
      [],
      'x',
    ]
    const parsed = read({ ...image, config: descriptor('x', { size: null }), layers: [...bad, descriptor('good')] })
    expect(parsed.layers).toEqual([descriptor('good')])
    expect(parsed.config).toBeUndefined()
  })

  it('T-53: __proto__ and constructor are keys like others', () => {
    const annotations = '{"__proto__":"a","constructor":"b","toString":"c"}'
    const parsed = read(
      `{"mediaType":"${ociManifest}","layers":[],"__proto__":{"artifactType":"x","subject":${JSON.stringify(descriptor('x'))}},"annotations":${annotations}}`,
    )
    expect(parsed.annotations).toEqual(
      new Map([
        ['__proto__', 'a'],
        ['constructor', 'b'],
        ['toString', 'c'],
      ]),
    )
    expect(parsed).toMatchObject({ artifactType: undefined, subject: undefined })
    expect(Object.hasOwn(Object.prototype, 'artifactType')).toBe(false)
  })

  it('P-71: reads the withdrawn artifact manifest and its blobs', () => {
    const parsed = read({ mediaType: ociArtifactManifest, blobs: [descriptor('sbom')], subject: descriptor('image') })
    expect(parsed).toMatchObject({ kind: 'other', layers: [descriptor('sbom')], subject: descriptor('image') })
  })

  it('P-68: describes the blobs that the registry holds, never those that live elsewhere', () => {
    const parsed = read({
      ...image,
      layers: [
        descriptor('own'),
        descriptor('a', { urls: ['http://169.254.169.254/'] }),
        descriptor('b', { mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip' }),
        descriptor('c', { mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar+zstd' }),
        descriptor('empty list', { urls: [] }),
      ],
    })
    expect(describedBlobs(parsed).map(blob => blob.digest)).toEqual(
      ['config', 'own', 'empty list'].map(text => digestOf(Buffer.from(text))),
    )
    expect(describedBlobs(read(index))).toEqual([])
  })

  it('throws nothing but ManifestRefused, whatever comes', () => {
    const key = fc.constantFrom('mediaType', 'manifests', 'layers', 'config', 'errors', 'blobs', '__proto__', 'subject')
    const value = fc.oneof(fc.constantFrom(ociIndex, ociManifest, 1, null), fc.jsonValue({ maxDepth: 3 }))
    const document = fc
      .array(fc.tuple(key, value), { maxLength: 5 })
      .map(entries => `{${entries.map(([name, item]) => `"${name}":${JSON.stringify(item)}`).join(',')}}`)
    const contentType = fc.option(fc.constantFrom(ociIndex, ociManifest, 'text/html', ''), { nil: undefined })
    fc.assert(
      fc.property(fc.oneof(document, fc.json(), fc.string()), contentType, (text, type) => {
        expect(reasonOf(text, type)).toMatch(/^[a-z_]+$|^accepted as application\/[^;]+\+json$/)
      }),
    )
  })
})
