import { CreateBucketCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Radosgw, startRadosgw } from '../fakes/radosgw.ts'
import {
  type Client,
  containerdClient,
  containerdForms,
  type Form,
  skopeoClient,
  skopeoForms,
} from './harness/forms.ts'
import { type LayoverProcess, startLayoverProcess } from './harness/layover.ts'
import { until } from './harness/process.ts'
import { digestsOf, images } from './harness/samples.ts'
import { anonymousOrigin, type Origin, upstreamName } from './harness/setup.ts'

const credentials = { accessKeyId: 'testkey', secretAccessKey: 'testsecret' }
const clients: Client[] = []
let service: Radosgw
let origin: Origin
let layover: LayoverProcess
let s3: S3Client

beforeAll(async () => {
  ;[service, origin] = await Promise.all([startRadosgw(), anonymousOrigin()])
  s3 = new S3Client({ endpoint: service.endpoint, region: 'us-east-1', forcePathStyle: true, credentials })
  await s3.send(new CreateBucketCommand({ Bucket: 'layover' }))
  layover = await startLayoverProcess({
    upstreams: { 'docker.io': false, [upstreamName]: { default: true, ...origin.upstream } },
    settings: {
      s3: {
        bucket: 'layover',
        endpoint: service.endpoint,
        pathStyle: true,
        redirect: { networks: ['127.0.0.0/8'], minBytes: '1KiB' },
      },
    },
    env: { AWS_ACCESS_KEY_ID: credentials.accessKeyId, AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey },
  })
  const client = await skopeoClient(skopeoForms[0] as Form, layover.host)
  clients.push(client)
  for (const { repository, tag } of images) await client.pull(repository, tag)
  await until(async () => (await uploaded()) === everyBlob.size)
}, 120_000)

afterEach(async () => {
  await Promise.all(clients.splice(0).map(client => client.close()))
})
afterAll(async () => {
  await layover?.close()
  s3?.destroy()
  await origin?.close()
  await service?.stop()
})

const everyBlob = new Set(images.flatMap(({ image }) => image.blobs.map(({ digest }) => digest)))

async function uploaded(): Promise<number> {
  return (await s3.send(new ListObjectsV2Command({ Bucket: 'layover', Prefix: 'blobs/' }))).KeyCount ?? 0
}

/** The digests that clients were redirected for, as the log says after so many characters. */
const redirected = (since: number): ReadonlySet<string> =>
  new Set(
    layover
      .output()
      .slice(since)
      .split('\n')
      .filter(line => line.includes('"outcome":"redirected"'))
      .map(line => /sha256:[0-9a-f]{64}/.exec(line)?.[0] ?? ''),
  )

describe('real clients that are sent to a real bucket', () => {
  const layers = images.flatMap(({ image }) => image.blobs.filter(({ bytes }) => bytes.length >= 1024))

  it.each([
    ['containerd', () => containerdClient(containerdForms[0] as Form, layover.host)],
    ['skopeo', () => skopeoClient(skopeoForms[0] as Form, layover.host)],
  ])('P-63: %s follows, and has every byte without any from upstream', async (_, connect) => {
    origin.registry.forgetRequests()
    const since = layover.output().length
    const client = await connect()
    clients.push(client)
    for (const { repository, tag, image } of images) {
      const { top, digests } = await client.pull(repository, tag)
      expect(top).toBe(image.top.digest)
      expect([...digestsOf(image)].filter(digest => !digests.has(digest))).toEqual([])
    }
    // Not each of them: where the bucket takes a second to say what it has, on a machine that is busy, the client is served.
    const large = new Set<string>(layers.map(({ digest }) => digest))
    await expect.poll(() => [...redirected(since)].filter(digest => large.has(digest)).length).toBeGreaterThan(0)
    expect(origin.registry.requests().filter(({ path }) => path.includes('/blobs/'))).toEqual([])
    expect(layover.output()).not.toContain('X-Amz-Signature')
  })
})
