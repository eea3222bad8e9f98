import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { digestOfKey } from '../../src/store/s3-key.ts'
import { accessKeyId, secretAccessKey } from '../fakes/s3.ts'
import { temporaryDirectory } from './opened.ts'
import { expectHonestKeys, fakeBucket, openedS3 } from './s3-opened.ts'

const loop = join(import.meta.dirname, 's3-upload-loop.ts')

it('F-33: kill -9 during uploads: what was queued arrives after the next start, nothing wrong is visible, nothing is left over', async () => {
  const bucket = await fakeBucket()
  const config = bucket.config({ multipartBytes: 100_000 })
  const dataDir = temporaryDirectory()
  const queued = new Set<string>()
  bucket.break('PUT', { kind: 'slow', ms: 3 })
  for (let round = 1; round <= 4; round++) {
    const child = spawn(process.execPath, [loop, dataDir, String(round), JSON.stringify(config)], {
      env: { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let said = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    await once(child.stdout, 'data')
    // The moment differs from round to round.
    await delay(40 + ((round * 137) % 200))
    const closed = once(child, 'close')
    child.kill('SIGKILL')
    expect(await closed).toEqual([null, 'SIGKILL'])
    const lines = said.slice(0, said.lastIndexOf('\n')).split('\n')
    for (const line of lines) queued.add(line.slice('queued '.length))
    expectHonestKeys(
      [...bucket.objects].map(([key, { bytes }]) => ({ key, bytes })),
      '',
    )
  }
  expect(queued.size).toBeGreaterThan(4)
  bucket.heal()
  await bucket.idle()
  // A kill between the service's answer and our note of it leaves an upload that only its age gives away.
  for (const [id, upload] of bucket.multiparts) bucket.multiparts.set(id, { ...upload, initiated: new Date(0) })
  const opened = await openedS3({ config, dataDir, maxBytes: 4e9 })
  await opened.shared.idle()
  const stored = new Set([...bucket.objects.keys()].map(key => digestOfKey('', key)))
  expect([...queued].filter(digest => !stored.has(digest as never))).toEqual([])
  await expect.poll(() => bucket.multiparts.size).toBe(0)
  await opened.close()
  expect(readdirSync(join(dataDir, 'uploads'))).toEqual([])
})
