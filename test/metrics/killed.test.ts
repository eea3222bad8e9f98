import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { SavingsStats } from '../../src/metrics/savings.ts'
import { serve, type Served } from '../cli/process.ts'
import { startFakeRegistry } from '../fakes/registry.ts'

test('F-33: what was written before kill -9 is there after it', async () => {
  const registry = await startFakeRegistry()
  onTestFinished(() => registry.stop())
  const { manifestBytes, layers } = registry.image('app', 'latest')
  const cwd = mkdtempSync(join(tmpdir(), 'layover-killed-'))
  onTestFinished(() => rmSync(cwd, { recursive: true, force: true }))
  const env = {
    LAYOVER_UPSTREAMS_FAKE_NAME: 'fake.test',
    LAYOVER_UPSTREAMS_FAKE_URL: registry.url,
    LAYOVER_UPSTREAMS_FAKE_INSECURE: 'true',
  }
  const start = (): Promise<Served> =>
    serve(['--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0', '--data-dir', join(cwd, 'data')], { cwd, env })
  // Asking for a period writes what is new first.
  const savings = async ({ ready }: Served): Promise<SavingsStats> =>
    (await (await fetch(`${String(ready['admin'])}/savings?since=2026-01-01`)).json()) as SavingsStats

  const served = manifestBytes.length + (layers[0]?.size ?? 0)
  const first = await start()
  for (const path of ['manifests/latest', `blobs/${layers[0]?.digest}`])
    await (await fetch(`${String(first.ready['registry'])}/v2/fake.test/app/${path}`)).arrayBuffer()
  await expect.poll(async () => (await savings(first)).servedBytes, { timeout: 20_000 }).toBe(served)
  await first[Symbol.asyncDispose]()

  await using second = await start()
  expect(await savings(second)).toMatchObject({ servedBytes: served, upstreamBytes: registry.bytes(), pullsAvoided: 0 })
})
