import { writeSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '../../src/clock.ts'
import type { S3Config } from '../../src/config/config.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { openEmbeddedStores } from '../../src/store/embedded.ts'
import { openS3Blobs } from '../../src/store/s3-blobs.ts'

/**
 * A process to be killed: publishes blobs, small and large, and asks for their upload without end; says `queued <digest>` for each on standard output.
 * `node s3-upload-loop.ts <dataDir> <seed> <config as JSON>`
 */
const [, , dataDir = '', seed = '', config = '{}'] = process.argv

const { blobs, spool } = await openEmbeddedStores({
  dataDir,
  maxBytes: 4e9,
  clock: systemClock,
  observer: silentObserver,
})
const shared = await openS3Blobs({
  config: JSON.parse(config) as S3Config,
  local: blobs,
  queueDir: join(dataDir, 'uploads'),
  clock: systemClock,
  observer: silentObserver,
})
let previous = ''
for (let n = 0; n < 500; n++) {
  const bytes = Buffer.alloc(((n * 7919) % 200_000) + (n % 3) * 150_000, `${seed}/${n} `)
  const digest = digestOf(bytes)
  const file = await spool.create(bytes.byteLength)
  if (file === undefined) throw new Error('no room')
  await file.write([bytes], 0)
  await blobs.publish(digest, bytes.byteLength, file)
  await file.close()
  shared.enqueue(digest, bytes.byteLength)
  // The queue is written behind: by the time the next blob is published, this one has its file.
  if (n > 0) writeSync(1, `queued ${previous}\n`)
  previous = digest
}
