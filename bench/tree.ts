import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type Content, type Image, image, noiseLayer } from '../src/cli/image.ts'
import { MiB } from './figures.ts'

/** An image that lies in the tree: its bytes are on disk and no longer in memory. */
export type Planted = {
  readonly repository: string
  readonly tag: string
  readonly manifestPath: string
  /** Request targets of the layers. */
  readonly layerPaths: readonly string[]
  readonly layerBytes: number
  /** Configuration and layers. */
  readonly blobs: number
}

export type Tree = {
  readonly directory: string
  /** 4 layers of 64 MiB. */
  readonly image: Planted
  /** One layer of 256 MiB. */
  readonly big: Planted
  /** 40 layers of 1 MiB. */
  readonly many: Planted
  /** Docker-Content-Digest and type of every manifest, by request target. */
  readonly manifests: ReadonlyMap<string, Content>
}

/** Writes the files of a registry that only has to be served: `v2/<repository>/manifests/<reference>` and `v2/<repository>/blobs/<digest>`. */
export async function plantTree(directory: string): Promise<Tree> {
  const manifests = new Map<string, Content>()
  const plant = async (name: string, layers: number, layerBytes: number): Promise<Planted> => {
    const repository = `bench/${name}`
    const made = image({ layers: Array.from({ length: layers }, (_, n) => noiseLayer(`${name}-${n}`, layerBytes)) })
    return { repository, tag: 'latest', ...(await write({ directory, repository, made, manifests })) }
  }
  return {
    directory,
    image: await plant('image', 4, 64 * MiB),
    big: await plant('big', 1, 256 * MiB),
    many: await plant('many', 40, MiB),
    manifests,
  }
}

type Writing = {
  readonly directory: string
  readonly repository: string
  readonly made: Image
  readonly manifests: Map<string, Content>
}

async function write({
  directory,
  repository,
  made,
  manifests,
}: Writing): Promise<Omit<Planted, 'repository' | 'tag'>> {
  const base = `/v2/${repository}`
  const put = async (path: string, { bytes }: Content): Promise<void> => {
    await mkdir(dirname(join(directory, path)), { recursive: true })
    await writeFile(join(directory, path), bytes)
  }
  for (const blob of made.blobs) await put(`${base}/blobs/${blob.digest}`, blob)
  for (const reference of ['latest', made.top.digest]) {
    await put(`${base}/manifests/${reference}`, made.top)
    manifests.set(`${base}/manifests/${reference}`, { ...made.top, bytes: Buffer.alloc(0) })
  }
  const [, ...layers] = made.blobs
  return {
    manifestPath: `${base}/manifests/latest`,
    layerPaths: layers.map(({ digest }) => `${base}/blobs/${digest}`),
    layerBytes: layers.reduce((sum, { bytes }) => sum + bytes.length, 0),
    blobs: made.blobs.length,
  }
}
