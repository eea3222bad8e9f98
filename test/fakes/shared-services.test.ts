import { afterAll, expect, it, onTestFinished, vi } from 'vitest'
import { startTestLayover } from './layover.ts'
import { startFakeRegistry } from './registry.ts'
import { dumpShared, stopServices } from './shared-services.ts'

afterAll(stopServices)

it('LAYOVER_TEST_SETUP=distributed: records are in Redis, blobs in the bucket, and both can be looked through', async () => {
  vi.stubEnv('LAYOVER_TEST_SETUP', 'distributed')
  onTestFinished(() => void vi.unstubAllEnvs())
  const registry = await startFakeRegistry()
  onTestFinished(() => registry.stop())
  const layover = await startTestLayover({ upstreams: { 'fake.test': registry } })
  onTestFinished(() => layover.close())
  const { config } = registry.image('library/app', 'latest')
  for (const path of ['manifests/latest', `blobs/${config.digest}`])
    expect((await fetch(`${layover.url}/v2/library/app/${path}`)).status).toBe(200)
  await expect.poll(dumpShared, { timeout: 10_000 }).toMatch(new RegExp(`/blobs/sha256/../${config.digest.slice(7)}`))
  expect(await dumpShared()).toMatch(/:1:t:\{fake\.test library\/app\}:latest/)
})
