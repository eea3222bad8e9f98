import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { freePorts } from '../fakes/ports.ts'
import { serve } from './process.ts'

let cwd = ''
beforeEach(() => {
  cwd = mkdtempSync(join(tmpdir(), 'layover-modules-'))
})
afterEach(() => rmSync(cwd, { recursive: true, force: true }))

/** Which of the clients of Redis, S3 and OpenTelemetry a running `serve` has loaded. */
async function clientsLoadedWith(config: object): Promise<readonly string[]> {
  const list = join(cwd, 'loaded.txt')
  const recorder = `
    import { appendFileSync } from 'node:fs'
    import { registerHooks } from 'node:module'
    registerHooks({ load: (url, context, next) => (appendFileSync(${JSON.stringify(list)}, url + '\\n'), next(url, context)) })`
  const file = join(cwd, 'layover.json')
  writeFileSync(file, JSON.stringify(config))
  await using running = await serve(['--config', file, '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0'], {
    cwd,
    env: {
      NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(recorder)}`,
      AWS_ACCESS_KEY_ID: 'id',
      AWS_SECRET_ACCESS_KEY: 'secret',
    },
  })
  // Answers come from everything that a pull needs.
  expect((await fetch(`${String(running.ready['registry'])}/v2/`)).status).toBe(200)
  const loaded = readFileSync(list, 'utf8').split('\n')
  expect(loaded.some(url => url.endsWith('/src/compose/stores.ts'))).toBe(true)
  // prom-client takes the API of OpenTelemetry, which is small, for types of its own.
  const tracing = loaded.some(url => /\/@opentelemetry\/(?!api\/)/.test(url) || url.includes('/src/tracing/otel.ts'))
  const clients = ['/@aws-sdk/client-s3/', '/@smithy/', '/ioredis/'].filter(part =>
    loaded.some(url => url.includes(part)),
  )
  return [...clients, ...(tracing ? ['OpenTelemetry'] : [])]
}

describe('what a running serve has loaded', () => {
  it('no client of Redis or S3, and nothing of OpenTelemetry, where all is on this disk', async () => {
    expect(await clientsLoadedWith({})).toEqual([])
  })

  it('both where both are configured', async () => {
    const [redis = 0, s3 = 0] = await freePorts(2)
    const loaded = await clientsLoadedWith({
      redis: { url: `redis://127.0.0.1:${redis}/0` },
      s3: { bucket: 'layover', region: 'us-east-1', endpoint: `http://127.0.0.1:${s3}`, pathStyle: true },
    })
    expect(loaded).toEqual(['/@aws-sdk/client-s3/', '/@smithy/', '/ioredis/'])
  })
  it('OpenTelemetry where traces are wanted', async () => {
    const [port = 0] = await freePorts(1)
    expect(await clientsLoadedWith({ tracing: { endpoint: `http://127.0.0.1:${port}` } })).toEqual(['OpenTelemetry'])
  })
})
