import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const script = join(import.meta.dirname, '..', '..', '.ci', 'radosgw')

export type Radosgw = { readonly endpoint: string; stop(): Promise<void> }

/** A real S3 service on loopback: Ceph's radosgw, in memory. Ready in a few seconds; keys `testkey`, `testsecret`. */
export async function startRadosgw(): Promise<Radosgw> {
  const directory = await mkdtemp(join(tmpdir(), 'layover-radosgw-'))
  const stop = async (): Promise<void> => {
    await run(script, ['down', directory])
    await rm(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
  }
  try {
    const { stdout } = await run(script, ['up', directory, String(await freePort())])
    return { endpoint: stdout.trim(), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** A port that is free, as is the one after it. Below the range that the system gives to clients. */
async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const port = 18_000 + 2 * Math.floor(Math.random() * 4_000)
    if ((await isFree(port)) && (await isFree(port + 1))) return port
  }
  throw new Error('no free port')
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => {
      const { port: taken } = server.address() as AddressInfo
      server.close(() => resolve(taken === port))
    })
  })
}
