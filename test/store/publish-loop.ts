import { writeSync } from 'node:fs'
import { systemClock } from '../../src/clock.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { openEmbeddedStores, type EmbeddedStores } from '../../src/store/embedded.ts'

/**
 * A process to be killed: publishes, deletes and evicts without end, and says on standard output what it was promised,
 * one `published <digest>` per line. `node publish-loop.ts <dataDir> <seed> <maxBytes>`
 */
const [, , dataDir = '', seed = '', maxBytes = ''] = process.argv

const stores = await openEmbeddedStores({
  dataDir,
  maxBytes: Number(maxBytes),
  clock: systemClock,
  observer: silentObserver,
})
await Promise.all([1, 2, 3, 4].map(lane => publishForEver(stores, lane)))

async function publishForEver({ spool, blobs, metadata }: EmbeddedStores, lane: number): Promise<never> {
  for (let n = 0; ; n++) {
    const bytes = Buffer.alloc((n * 7919 * lane) % 120_000, `${seed}/${lane}/${n} `)
    const digest = digestOf(bytes)
    const file = await spool.create(n % 2 === 0 ? bytes.byteLength : undefined)
    if (file === undefined) continue
    const half = bytes.byteLength >> 1
    await file.write([bytes.subarray(0, half)], 0)
    await file.write([bytes.subarray(half)], half)
    await blobs.publish(digest, bytes.byteLength, file)
    await file.close()
    const tag = { digest, mediaType: 'a/b', size: bytes.byteLength, checkedAt: n }
    await metadata.putTag({ upstream: 'docker.io', repository: `r${lane}`, tag: 'latest' }, tag)
    const deleted = n % 5 === 4
    if (deleted) await blobs.delete(digest)
    writeSync(1, `${deleted ? 'deleted' : 'published'} ${digest}\n`)
  }
}
