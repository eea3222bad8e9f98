import { type ListMultipartUploadsCommandOutput, ListMultipartUploadsCommand } from '@aws-sdk/client-s3'
import type { Clock } from '../clock.ts'
import { request, type S3Api } from './s3-client.ts'
import { blobPrefix, digestOfKey } from './s3-key.ts'
import type { S3Queue, StartedMultipart } from './s3-queue.ts'
import { abortMultipart } from './s3-upload.ts'

/** No upload takes that long: whoever began it is dead, and perhaps its disk is gone too. Younger ones may be another replica's. */
const abandonedMs = 24 * 3_600_000

export type LeftoverDeps = {
  readonly api: S3Api
  readonly queue: S3Queue
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** Ends the multipart uploads that an earlier process of this replica began, and those under our prefix that are older than a day (F-33). */
export async function endLeftovers(deps: LeftoverDeps, own: readonly StartedMultipart[]): Promise<void> {
  for (const leftover of own) await abortMultipart(deps, leftover)
  for await (const page of pages(deps)) {
    for (const { Key = '', UploadId = '', Initiated } of page.Uploads ?? []) {
      const digest = digestOfKey(deps.api.config.prefix, Key)
      const age = deps.clock.now() - (Initiated?.getTime() ?? deps.clock.now())
      if (digest !== undefined && age > abandonedMs) await abortMultipart(deps, { digest, uploadId: UploadId })
    }
  }
}

async function* pages({ api, signal }: LeftoverDeps): AsyncGenerator<ListMultipartUploadsCommandOutput> {
  const { client, config } = api
  let markers: { KeyMarker?: string; UploadIdMarker?: string } = {}
  for (;;) {
    const command = new ListMultipartUploadsCommand({
      Bucket: config.bucket,
      Prefix: blobPrefix(config.prefix),
      ...markers,
    })
    const page = await request(api, { operation: 'other', timeoutMs: config.requestTimeoutMs, signal }, options =>
      client.send(command, options),
    )
    yield page
    if (page.IsTruncated !== true || page.NextKeyMarker === undefined) return
    markers = {
      KeyMarker: page.NextKeyMarker,
      ...(page.NextUploadIdMarker !== undefined && { UploadIdMarker: page.NextUploadIdMarker }),
    }
  }
}
