import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Digest } from '../../../src/oci/digest.ts'
import { freePorts } from '../../fakes/ports.ts'
import { RedisServer } from '../../fakes/redis.ts'
import { type LayoverProcess, startLayoverProcess } from './layover.ts'
import { scratch } from './process.ts'

/** Replicas of one cache on one Redis, each with its own disk. */
export type LayoverFleet = {
  readonly replicas: readonly LayoverProcess[]
  readonly redis: RedisServer
  /** Who holds the lease of this blob; undefined: nobody. */
  ownerOf(digest: Digest): Promise<LayoverProcess | undefined>
  close(): Promise<void>
}

export type FleetOptions = {
  readonly count: number
  /** By upstream name, the keys of the configuration file. */
  readonly upstreams: Readonly<Record<string, Readonly<Record<string, unknown>> | false>>
  readonly settings?: Readonly<Record<string, unknown>>
  readonly env?: Readonly<Record<string, string>>
  /** More variables, of the replica of this number alone. */
  readonly envOf?: (number: number) => Readonly<Record<string, string>>
}

export async function startLayoverFleet({
  count,
  upstreams,
  settings = {},
  env = {},
  envOf = () => ({}),
}: FleetOptions): Promise<LayoverFleet> {
  const directory = await scratch('fleet')
  const secretFile = join(directory.path, 'secret')
  await writeFile(secretFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 })
  const redis = await RedisServer.start()
  const replicas: LayoverProcess[] = []
  const byUrl = new Map<string, LayoverProcess>()
  const close = async (): Promise<void> => {
    await Promise.all(replicas.map(replica => replica.close()))
    await redis.stop()
    await directory.remove()
  }
  try {
    const listens = (await freePorts(count)).map(port => `127.0.0.1:${port}`)
    const starts = await Promise.allSettled(
      listens.map((listen, number) =>
        startLayoverProcess({
          upstreams,
          settings: {
            redis: { url: redis.url },
            replica: { listen, url: `http://${listen}`, secretFile },
            ...settings,
          },
          env: { ...env, ...envOf(number) },
        }),
      ),
    )
    for (const [number, started] of starts.entries()) {
      if (started.status !== 'fulfilled') continue
      replicas.push(started.value)
      byUrl.set(`http://${listens[number]}`, started.value)
    }
    const failed = starts.find(started => started.status === 'rejected')
    if (failed) throw failed.reason
  } catch (error) {
    await close()
    throw error
  }
  return {
    replicas,
    redis,
    async ownerOf(digest) {
      const [key] = await redis.admin.keys(`*:o:{${digest}}`)
      const value = key === undefined ? null : await redis.admin.get(key)
      return byUrl.get(value?.split(' ')[2] ?? '')
    },
    close,
  }
}
