import { describe, expect, it } from 'vitest'
import { createRights, type RightsDependencies } from '../../src/cache/rights.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { FakeClock } from '../fakes/clock.ts'
import { linkKey, MemoryMetadata } from '../fakes/memory-metadata.ts'
import { ScriptedUpstream } from '../fakes/scripted-upstream.ts'
import { targetOf } from '../fakes/targets.ts'

const blob = digestOf(Buffer.from('a layer'))
const secret = targetOf('company/secret')
const other = targetOf('someone/else')

function rightsRoom(options: Partial<RightsDependencies> = {}) {
  const hub = new ScriptedUpstream('docker.io')
  const quay = new ScriptedUpstream('quay.io')
  const metadata = new MemoryMetadata()
  const failures: string[] = []
  const rightsOver = (more: Partial<RightsDependencies> = {}) =>
    createRights({
      upstreams: new Map([hub, quay].map(upstream => [upstream.name, upstream])),
      metadata,
      observer: { ...silentObserver, storeFailed: operation => void failures.push(operation) },
      offline: false,
      ...options,
      ...more,
    })
  return { hub, quay, metadata, failures, rights: rightsOver(), rightsOver }
}

describe('reading a blob', () => {
  it('T-11: is allowed in the repository for which upstream gave it, also after a restart, and in no other', async () => {
    const { rights, rightsOver } = rightsRoom()
    await rights.confirmed(secret, blob)
    expect(await rights.mayReadBlob(secret, blob)).toBe('yes')
    expect(await rightsOver().mayReadBlob(secret, blob)).toBe('yes')
    expect(await rights.mayReadBlob(other, blob)).toBe('ask')
    expect(await rights.mayReadBlob(targetOf('company/secret', 'quay.io'), blob)).toBe('ask')
  })

  it('is remembered in this process once it was read', async () => {
    const { rights, rightsOver, metadata } = rightsRoom()
    await rights.confirmed(secret, blob)
    const again = rightsOver()
    await again.mayReadBlob(secret, blob)
    metadata.failure = new Error('the store is down')
    expect(await again.mayReadBlob(secret, blob)).toBe('yes')
    expect(again.remembersConfirmed(secret, blob)).toBe(true)
  })

  it('F-59: is remembered too where a manifest names what upstream gave elsewhere, and confirms no manifest', async () => {
    const { rights, metadata } = rightsRoom()
    await rights.confirmed(secret, blob)
    await rights.named(other, [blob])
    expect(await rights.mayReadBlob(other, blob)).toBe('yes')
    metadata.failure = new Error('the store is down')
    expect(await rights.mayReadBlob(other, blob)).toBe('yes')
    expect(rights.remembersConfirmed(other, blob)).toBe(false)
    expect(await rights.mayReadBlob(targetOf('third/one'), blob)).toBe('ask')
  })

  it('P-70: is allowed where a manifest names what the same upstream gave elsewhere', async () => {
    const { rights } = rightsRoom()
    await rights.confirmed(secret, blob)
    await rights.named(other, [blob])
    expect(await rights.mayReadBlob(other, blob)).toBe('yes')
  })

  it('T-11: is not opened by a manifest of another upstream that names it', async () => {
    const { rights } = rightsRoom()
    await rights.confirmed(secret, blob)
    const forged = targetOf('attacker/image', 'quay.io')
    await rights.named(forged, [blob])
    expect(await rights.mayReadBlob(forged, blob)).toBe('ask')
  })

  it('T-12: is not opened by naming alone', async () => {
    const { rights, hub } = rightsRoom()
    await rights.named(other, [blob])
    expect(await rights.mayReadBlob(other, blob)).toBe('ask')
    expect(hub.count()).toBe(0)
  })

  it('P-66: of no bytes is allowed to everybody', async () => {
    const { rights } = rightsRoom()
    expect(await rights.mayReadBlob(other, digestOf(Buffer.of()))).toBe('yes')
    expect(await rights.mayReadBlob(other, digestOf(Buffer.from('{}'), 'sha512'))).toBe('yes')
  })

  it('F-59: is asked upstream when the records cannot be read', async () => {
    const { rights, metadata, failures } = rightsRoom()
    await rights.named(secret, [blob])
    metadata.failure = new Error('the store is down')
    expect(await rights.mayReadBlob(secret, blob)).toBe('ask')
    expect(failures).toContain('getLink')
  })
})

describe('asking upstream', () => {
  it('T-11: opens the blob for this repository alone', async () => {
    const { rights, hub, metadata } = rightsRoom()
    hub.blobs.add(`company/secret ${blob}`)
    await rights.confirm(secret, blob)
    expect(await rights.mayReadBlob(secret, blob)).toBe('yes')
    expect([...metadata.links]).toEqual([[linkKey('docker.io', 'company/secret', blob), 'confirmed']])
    await expect(rights.confirm(other, blob)).rejects.toMatchObject({ status: 404, code: 'BLOB_UNKNOWN' })
  })

  it('F-20, T-12: happens once for all who wait, but not across repositories', async () => {
    const { rights, hub } = rightsRoom()
    hub.blobs.add(`company/secret ${blob}`)
    const gate = Promise.withResolvers<void>()
    hub.gate = gate.promise
    const inside = Array.from({ length: 5 }, () => rights.confirm(secret, blob))
    const outside = Array.from({ length: 5 }, () => rights.confirm(other, blob))
    gate.resolve()
    expect((await Promise.allSettled(inside)).map(({ status }) => status)).toEqual(Array(5).fill('fulfilled'))
    expect((await Promise.allSettled(outside)).map(({ status }) => status)).toEqual(Array(5).fill('rejected'))
    expect(hub.count('blob')).toBe(2)
  })

  it('F-15: 404 closes this blob only, for now', async () => {
    const { rights, hub } = rightsRoom()
    await expect(rights.confirm(secret, blob)).rejects.toMatchObject({ status: 404, code: 'BLOB_UNKNOWN' })
    hub.blobs.add(`company/secret ${blob}`)
    await rights.confirm(secret, blob)
    expect(await rights.mayReadBlob(secret, blob)).toBe('yes')
  })

  it.each([
    ['denied', 403, 'DENIED'],
    ['rateLimited', 503, 'UNAVAILABLE'],
    ['unavailable', 503, 'UNAVAILABLE'],
    ['invalid', 502, 'UNAVAILABLE'],
    ['refused', 502, 'UNAVAILABLE'],
  ] as const)('T-13, P-97: opens nothing when upstream answers %s: %i %s', async (failure, status, code) => {
    const { rights, hub, metadata } = rightsRoom()
    hub.fail(failure)
    await expect(rights.confirm(secret, blob)).rejects.toMatchObject({ status, code })
    expect(metadata.links.size).toBe(0)
    expect(await rights.mayReadBlob(secret, blob)).toBe('ask')
  })

  it('is not possible offline: 404, and nobody is dialled', async () => {
    const { rights, hub } = rightsRoom({ offline: true })
    await expect(rights.confirm(secret, blob)).rejects.toMatchObject({ status: 404, code: 'BLOB_UNKNOWN' })
    expect(hub.count()).toBe(0)
  })

  it('F-59: opens the blob in this process although the store forgets', async () => {
    const { rights, hub, metadata } = rightsRoom()
    metadata.failure = new Error('the store is down')
    hub.blobs.add(`company/secret ${blob}`)
    await rights.confirm(secret, blob)
    expect(await rights.mayReadBlob(secret, blob)).toBe('yes')
    expect(await rights.mayReadBlob(other, blob)).toBe('ask')
  })
})

describe('T-16: rights that age', () => {
  const maxAgeMs = 1_000_000

  /** The hub has credentials, quay has none. */
  async function aged() {
    const clock = new FakeClock()
    const room = rightsRoom({ clock, maxAgeMs: name => (name === 'docker.io' ? maxAgeMs : undefined) })
    room.hub.blobs.add(`company/secret ${blob}`)
    await room.rights.confirm(secret, blob)
    room.hub.calls.length = 0
    return { ...room, clock }
  }

  it('are good for their age without a question', async () => {
    const { rights, hub, clock } = await aged()
    clock.advance(maxAgeMs - 1)
    expect(await rights.mayReadBlob(secret, blob)).toBe('yes')
    expect(rights.remembersConfirmed(secret, blob)).toBe(true)
    expect(hub.count()).toBe(0)
  })

  it('are asked for again, once for all who wait, and are then good for the whole repository', async () => {
    const { rights, hub, clock } = await aged()
    const another = digestOf(Buffer.from('another layer'))
    await rights.confirmed(secret, another)
    clock.advance(maxAgeMs)
    expect(rights.remembersConfirmed(secret, blob)).toBe(false)
    const answers = await Promise.all(Array.from({ length: 5 }, () => rights.mayReadBlob(secret, blob)))
    expect(answers).toEqual(Array(5).fill('yes'))
    expect(await rights.mayReadBlob(secret, another)).toBe('yes')
    expect(hub.count('blob')).toBe(1)
    expect(rights.remembersConfirmed(secret, blob)).toBe(true)
  })

  it.each(['denied', 'notFound'] as const)('end when upstream answers %s, and stay so', async failure => {
    const { rights, rightsOver, hub, clock, metadata } = await aged()
    clock.advance(maxAgeMs)
    hub.fail(failure, 'http_403')
    expect(await rights.mayReadBlob(secret, blob)).toBe('ask')
    expect(metadata.links.size).toBe(0)
    expect(rights.remembersConfirmed(secret, blob)).toBe(false)
    await expect(rights.confirm(secret, blob)).rejects.toMatchObject({ status: failure === 'denied' ? 403 : 404 })
    expect(await rightsOver().mayReadBlob(secret, blob)).toBe('ask')
  })

  it.each([
    ['unavailable', 'timeout'],
    ['rateLimited', 'http_429'],
    ['invalid', 'html'],
    ['denied', 'bad_credentials'],
    ['denied', 'credentials'],
  ] as const)('stay when upstream cannot tell: %s, %s; it is left alone for a minute', async (failure, reason) => {
    const { rights, hub, clock } = await aged()
    clock.advance(maxAgeMs)
    hub.fail(failure, reason)
    expect(await rights.mayReadBlob(secret, blob)).toBe('yes')
    expect(await rights.mayReadBlob(secret, blob)).toBe('yes')
    expect(hub.count('blob')).toBe(1)
    clock.advance(60_000)
    hub.fail('denied', 'http_403')
    expect(await rights.mayReadBlob(secret, blob)).toBe('ask')
  })

  it('are not asked for where upstream cannot be asked', async () => {
    const { rights, rightsOver, hub, clock } = await aged()
    clock.advance(maxAgeMs)
    hub.state = 'open'
    expect(await rights.mayReadBlob(secret, blob)).toBe('yes')
    hub.state = 'closed'
    expect(await rightsOver({ offline: true }).mayReadBlob(secret, blob)).toBe('yes')
    expect(hub.count()).toBe(0)
    expect(rights.isFresh(secret)).toBe(false)
  })

  it('are asked for with the first use after a start', async () => {
    const { rightsOver, hub } = await aged()
    const again = rightsOver()
    expect(await again.mayReadBlob(secret, blob)).toBe('yes')
    expect(await again.mayReadBlob(secret, blob)).toBe('yes')
    expect(hub.count('blob')).toBe(1)
  })

  it('of upstreams without credentials do not age', async () => {
    const { rights, quay, clock } = await aged()
    const open = targetOf('library/alpine', 'quay.io')
    await rights.confirmed(open, blob)
    clock.advance(1_000 * maxAgeMs)
    expect(await rights.mayReadBlob(open, blob)).toBe('yes')
    expect(rights.isFresh(open)).toBe(true)
    expect(quay.count()).toBe(0)
  })
})
