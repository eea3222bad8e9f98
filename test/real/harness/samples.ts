import {
  artifact,
  type Compression,
  type Format,
  type Image,
  image,
  index,
  layer,
  type Layer,
  noise,
  noiseLayer,
  referrersIndex,
  referrersTag,
} from '../../../src/cli/image.ts'

const KiB = 1024

const sampleLayer = (name: string, compression: Compression = 'gzip', format: Format = 'oci'): Layer =>
  layer({
    entries: [
      { path: `etc/${name}`, bytes: Buffer.from(`${name}\n`) },
      { path: `opt/${name}`, bytes: noise(name, 200 * KiB) },
    ],
    compression,
    format,
  })

const shared = sampleLayer('shared')

/** One tag, two platforms that share a layer. */
export const multiArch = index([
  { architecture: 'amd64', image: image({ architecture: 'amd64', layers: [shared, sampleLayer('amd64')] }) },
  { architecture: 'arm64', image: image({ architecture: 'arm64', layers: [shared, sampleLayer('arm64')] }) },
])

/** What `docker push` has made for ten years. */
export const schema2 = image({
  format: 'docker',
  layers: [sampleLayer('schema2-a', 'gzip', 'docker'), sampleLayer('schema2-b', 'gzip', 'docker')],
})

export const zstd = image({ layers: [sampleLayer('zstd', 'zstd')] })

/** One layer that takes a while. */
export const large = image({ layers: [noiseLayer('large', 24 * KiB * KiB), sampleLayer('small')] })

export const sbomType = 'application/vnd.example.sbom.v1+json'
/** A bill of materials that refers to {@link multiArch}. */
export const sbom = artifact({ subject: multiArch.top, artifactType: sbomType, payload: '{"packages":[]}\n' })
export const sbomIndex = referrersIndex([{ artifactType: sbomType, image: sbom }])
/** An image that stands where cosign looks for a signature. */
export const signature = image({ layers: [sampleLayer('signature')] })

export type Sample = { readonly repository: string; readonly tag: string; readonly image: Image }

/** What every client pulls. */
export const images: readonly Sample[] = [
  { repository: 'team/multi', tag: 'v1', image: multiArch },
  { repository: 'team/nested/schema2', tag: '1.0', image: schema2 },
  { repository: 'zstd', tag: 'latest', image: zstd },
]

/** What belongs to the first of them, found by its digest. */
export const attached: readonly Sample[] = [
  { repository: 'team/multi', tag: 'sbom', image: sbom },
  { repository: 'team/multi', tag: referrersTag(multiArch.top.digest), image: sbomIndex },
  { repository: 'team/multi', tag: referrersTag(multiArch.top.digest, '.sig'), image: signature },
]

/** Every digest that whoever pulled this must have. */
export function digestsOf({ manifests, blobs }: Image): ReadonlySet<string> {
  return new Set([...manifests, ...blobs].map(({ digest }) => digest))
}
