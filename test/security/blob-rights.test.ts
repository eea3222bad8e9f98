import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { BlobStore } from '../../src/store/stores.ts'
import { UpstreamError } from '../../src/upstream/upstream.ts'
import { blobOf, type Setup, setUp, targetOf } from '../cache/blobs-setup.ts'
import { PuppetUpstream } from '../fakes/puppet-upstream.ts'

const secret = targetOf('company/secret')
const forged = targetOf('attacker/image', 'evil.test')

class EvilUpstream extends PuppetUpstream {
  override readonly name = 'evil.test' as 'puppet.test'
}

type Room = Setup & {
  readonly evil: EvilUpstream
  /** Holds the next question of this kind to the store, until it is released. */
  hold(operation: 'open' | 'size'): { readonly reached: Promise<void>; release(): void }
}

/** An attacker's upstream beside the one with the secret, and a store that answers when the test says so. */
async function room(): Promise<Room> {
  const evil = new EvilUpstream()
  const held = new Map<string, { reach(): void; released: Promise<void> }>()
  const pass = async (operation: string): Promise<void> => {
    const gate = held.get(operation)
    held.delete(operation)
    gate?.reach()
    await gate?.released
  }
  const setup = await setUp({
    upstreams: [evil],
    wrap: deps => ({
      store: {
        open: async digest => {
          const opened = await deps.store.open(digest)
          await pass('open')
          return opened
        },
        size: async digest => {
          const size = await deps.store.size(digest)
          await pass('size')
          return size
        },
        publish: (digest, size, spool) => deps.store.publish(digest, size, spool),
        delete: digest => deps.store.delete(digest),
      } satisfies BlobStore,
    }),
  })
  return {
    ...setup,
    evil,
    hold: operation => {
      const reached = Promise.withResolvers<void>()
      const released = Promise.withResolvers<void>()
      held.set(operation, { reach: reached.resolve, released: released.promise })
      return { reached: reached.promise, release: released.resolve }
    },
  }
}

const named = async ({ stores }: Room, digest: Parameters<BlobStore['open']>[0]): Promise<void> =>
  stores.metadata.putLinks(forged.upstream, forged.repository, [digest], 'named')

describe('T-11, T-12: a named blob that nobody has yet', () => {
  it('is not joined without asking when another repository starts its download meanwhile', async () => {
    const all = await room()
    const { bytes, digest } = blobOf(100_000)
    await named(all, digest)
    const gate = all.hold('open')
    const attack = all.blobs.open(forged, digest)
    await gate.reached
    const owner = all.blobs.open(secret, digest)
    const body = (await all.upstream.next()).answer({ size: bytes.length })
    body.send(bytes.subarray(0, 50_000))
    const opened = await owner
    gate.release()
    await expect(attack).rejects.toMatchObject({ status: 404 })
    expect(all.evil.heads).toEqual([`attacker/image@${digest}`])
    opened.close()
  })

  it('is not read without asking when another repository brought it meanwhile', async () => {
    const all = await room()
    const { bytes, digest } = blobOf(100_000)
    await named(all, digest)
    const gate = all.hold('open')
    const attack = all.blobs.open(forged, digest)
    await gate.reached
    const owner = all.blobs.open(secret, digest)
    const body = (await all.upstream.next()).answer({ size: bytes.length })
    body.send(bytes)
    body.end()
    const opened = await owner
    while (all.ends.length === 0 || all.blobs.running > 0) await turn()
    gate.release()
    await expect(attack).rejects.toMatchObject({ status: 404 })
    opened.close()
  })

  it('does not tell its size when another repository starts its download meanwhile', async () => {
    const all = await room()
    const { bytes, digest } = blobOf(100_000)
    await named(all, digest)
    const gate = all.hold('size')
    const attack = all.blobs.stat(forged, digest)
    const asked = all.blobs.open(secret, digest)
    const body = (await all.upstream.next()).answer({ size: bytes.length })
    const opened = await asked
    gate.release()
    await expect(attack).rejects.toThrow(UpstreamError)
    body.send(bytes)
    opened.close()
  })
})

describe('T-11: a blob that another upstream gave', () => {
  it('answers who has no right to it the same as a blob that is not here, also when asked again', async () => {
    const all = await room()
    const { bytes, digest } = blobOf(100_000)
    const absent = blobOf(100_000, 2).digest
    const asked = all.blobs.open(secret, digest)
    const body = (await all.upstream.next()).answer({ size: bytes.length })
    body.send(bytes)
    body.end()
    ;(await asked).close()
    while (all.blobs.running > 0) await turn()
    const errors = async (of: typeof digest): Promise<unknown[]> => {
      const seen: unknown[] = []
      for (let time = 0; time < 3; time++) {
        const attempt = all.blobs.open(forged, of)
        const answered = attempt.catch((error: unknown) => seen.push(String(error).replace(of, '…')))
        if (of === absent && time === 0)
          (await all.evil.next()).fail(
            new UpstreamError('notFound', 'evil.test', 'http_404', 'no such blob', { status: 404 }),
          )
        await answered
      }
      return seen
    }
    expect((await errors(digest)).slice(1)).toEqual((await errors(absent)).slice(1))
    expect(all.evil.heads.length, 'P-100: upstream is asked once, and its 404 believed for seconds').toBe(1)
  })
})
