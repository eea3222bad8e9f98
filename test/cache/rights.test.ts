import { describe, expect, it } from 'vitest'
import { createRights, type RightsDependencies } from '../../src/cache/rights.ts'
import { silentObserver } from '../../src/log/observer.ts'
import { digestOf } from '../../src/oci/digest.ts'
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
