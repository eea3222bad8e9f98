import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePair } from './ports.ts'

const run = promisify(execFile)
const script = join(import.meta.dirname, '..', '..', '.ci', 'radosgw')

export type Radosgw = { readonly endpoint: string; stop(): Promise<void> }

/**
 * A real S3 service on loopback: Ceph's radosgw, in memory. Ready in a few seconds; keys `testkey`, `testsecret`. Three programs have to find each other:
 * where they did not, which a busy machine can bring about, they are started once more.
 */
export async function startRadosgw(): Promise<Radosgw> {
  return await start().catch(start)
}

async function start(): Promise<Radosgw> {
  const directory = await mkdtemp(join(tmpdir(), 'layover-radosgw-'))
  const stop = async (): Promise<void> => {
    await run(script, ['down', directory])
    await rm(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
  }
  try {
    const { stdout } = await run(script, ['up', directory, String(await freePair())])
    return { endpoint: stdout.trim(), stop }
  } catch (error) {
    await stop()
    throw error
  }
}
