import { request } from 'undici'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import {
  type Client,
  containerdClient,
  containerdForms,
  type Form,
  skopeoClient,
  skopeoForms,
} from './harness/forms.ts'
import type { LayoverProcess } from './harness/layover.ts'
import { untilLogged } from './harness/registry.ts'
import { digestsOf, images, multiArch, type Sample, sbom, sbomType, signature } from './harness/samples.ts'
import {
  anonymousOrigin,
  blobDownloads,
  guardedOrigin,
  isBlobDownload,
  layoverBefore,
  type Origin,
  upstreamName,
} from './harness/setup.ts'

const everyBlob = new Set(images.flatMap(({ image }) => image.blobs.map(({ digest }) => digest)))
const onceEach = new Map([...everyBlob].map(digest => [digest, 1]))

const hostsToml = containerdForms[0] as Form
const mirror = skopeoForms[0] as Form

type Pulled = { readonly top: string | undefined; readonly missing: readonly string[] }

async function pullAll(client: Client, samples: readonly Sample[] = images): Promise<readonly Pulled[]> {
  const pulled: Pulled[] = []
  for (const { repository, tag, image } of samples) {
    const { top, digests } = await client.pull(repository, tag)
    pulled.push({ top, missing: [...digestsOf(image)].filter(digest => !digests.has(digest)) })
  }
  return pulled
}

const whole = (samples: readonly Sample[] = images): readonly Pulled[] =>
  samples.map(({ image }) => ({ top: image.top.digest, missing: [] }))

const origins = [
  { kind: 'an anonymous registry', open: anonymousOrigin },
  { kind: 'a registry with its own authority and tokens', open: guardedOrigin },
]

describe.each(origins)('before $kind', ({ open }) => {
  const clients: Client[] = []
  let origin: Origin
  let layover: LayoverProcess

  beforeAll(async () => {
    origin = await open()
    layover = await layoverBefore(origin)
  })
  afterEach(async () => {
    await Promise.all(clients.splice(0).map(client => client.close()))
  })
  afterAll(async () => {
    await layover?.close()
    await origin?.close()
  })

  async function containerd(form: Form, host = layover.host): Promise<Client> {
    const client = await containerdClient(form, host)
    clients.push(client)
    return client
  }

  async function skopeo(form: Form, host = layover.host): Promise<Client> {
    const client = await skopeoClient(form, host)
    clients.push(client)
    return client
  }

  it.each(containerdForms)('P-23: containerd pulls two platforms, schema 2 and zstd by $form', async form => {
    expect(await pullAll(await containerd(form))).toEqual(whole())
  })

  it.each(skopeoForms)('P-23: skopeo copies two platforms, schema 2 and zstd by $form', async form => {
    expect(await pullAll(await skopeo(form))).toEqual(whole())
  })

  it('P-23: upstream sent each blob once, however the clients addressed it', async () => {
    expect(await pullAll(await skopeo(mirror))).toEqual(whole())
    await untilLogged(origin.registry, isBlobDownload, everyBlob.size)
    expect(blobDownloads(origin.registry.requests())).toEqual(onceEach)
  })

  it('gives the bill of materials that refers to an image, and what it names', async () => {
    const base = `http://${layover.host}/v2/${upstreamName}/team/multi`
    const answer = await request(
      `${base}/referrers/${multiArch.top.digest}?artifactType=${encodeURIComponent(sbomType)}`,
    )
    expect(answer.statusCode).toBe(200)
    expect(answer.headers['content-type']).toBe('application/vnd.oci.image.index.v1+json')
    expect(await answer.body.json()).toMatchObject({
      manifests: [{ digest: sbom.top.digest, artifactType: sbomType, size: sbom.top.bytes.length }],
    })
    const manifest = await request(`${base}/manifests/${sbom.top.digest}`)
    expect(Buffer.from(await manifest.body.arrayBuffer())).toEqual(sbom.top.bytes)
    for (const blob of sbom.blobs) {
      const fetched = await request(`${base}/blobs/${blob.digest}`)
      expect(Buffer.from(await fetched.body.arrayBuffer())).toEqual(blob.bytes)
    }
  })

  it('P-12: skopeo copies what stands at the tag where cosign looks for a signature', async () => {
    const tag = `${multiArch.top.digest.replace(':', '-')}.sig`
    const samples = [{ repository: 'team/multi', tag, image: signature }]
    expect(await pullAll(await skopeo(mirror), samples)).toEqual(whole(samples))
  })
})

describe.each(origins)('many clients at once before $kind', ({ open }) => {
  it('cost upstream one download of each blob, and need none of it once it is gone', async () => {
    const origin = await open()
    const layover = await layoverBefore(origin)
    const clients: Client[] = []
    const open8 = async (): Promise<void> => {
      const four = [0, 1, 2, 3]
      clients.push(...(await Promise.all(four.map(() => containerdClient(hostsToml, layover.host)))))
      clients.push(...(await Promise.all(four.map(() => skopeoClient(mirror, layover.host)))))
    }
    try {
      await open8()
      expect(await Promise.all(clients.map(client => pullAll(client)))).toEqual(clients.map(() => whole()))
      await untilLogged(origin.registry, isBlobDownload, everyBlob.size)
      await origin.registry.stop()
      expect(blobDownloads(origin.registry.requests())).toEqual(onceEach)

      await Promise.all(clients.splice(0).map(client => client.close()))
      await open8()
      expect(await Promise.all(clients.map(client => pullAll(client)))).toEqual(clients.map(() => whole()))

      // What was told to be kept outlives the process too.
      await layover.kill()
      await layover.startAgain()
      await Promise.all(clients.splice(0).map(client => client.close()))
      await open8()
      expect(await Promise.all(clients.map(client => pullAll(client)))).toEqual(clients.map(() => whole()))
    } finally {
      await Promise.all(clients.map(client => client.close()))
      await layover.close()
      await origin.close()
    }
  }, 90_000)
})
