import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import type { RedisConfig } from '../../src/config/config.ts'
import { openRedisMetadata, type RedisMetadataStore } from '../../src/store/redis-metadata.ts'
import { makeAuthority } from '../fakes/certificates.ts'
import { freePorts } from '../fakes/ports.ts'
import { redisConfig, RedisServer } from '../fakes/redis.ts'
import { recordingObserver } from './opened.ts'

/** Gives the port that speaks TLS, and the authority's certificate. */
async function startedWithTls(hosts: readonly string[]): Promise<{ readonly port: number; readonly ca: string }> {
  const authority = await makeAuthority()
  const { key, cert } = await authority.issue(hosts)
  const directory = mkdtempSync(join(tmpdir(), 'layover-redis-tls-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const write = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text)
    return join(directory, name)
  }
  const [port = 0] = await freePorts(1)
  const server = await RedisServer.start(
    ['tls-port', String(port)],
    ['tls-cert-file', write('cert', cert)],
    ['tls-key-file', write('key', key)],
    ['tls-ca-cert-file', write('ca', authority.caPem)],
    ['tls-auth-clients', 'no'],
  )
  onTestFinished(() => server.stop())
  return { port, ca: authority.caPem }
}

async function opened(config: RedisConfig): Promise<{
  readonly metadata: RedisMetadataStore
  readonly failures: ReturnType<typeof recordingObserver>['failures']
}> {
  const { observer, failures } = recordingObserver()
  const metadata = await openRedisMetadata({ config, clock: systemClock, observer })
  onTestFinished(() => metadata.close())
  return { metadata, failures }
}

const key = { upstream: 'docker.io', repository: 'library/alpine', tag: '1' }

describe('Redis over TLS', () => {
  it('is believed when its certificate is of the configured authority and for the name that is dialled', async () => {
    const { port, ca } = await startedWithTls(['127.0.0.1'])
    const url = `rediss://127.0.0.1:${port}`
    const { metadata } = await opened(redisConfig({ kind: 'url', url }, { tls: { ca, servername: undefined } }))
    expect(metadata.usage()).toEqual({ isUp: true, refusals: [] })
    await metadata.putLinks(key.upstream, key.repository, [], 'named')
    expect(await metadata.getTag(key)).toBeUndefined()
  })

  it('is believed for another name when that is configured', async () => {
    const { port, ca } = await startedWithTls(['redis.internal'])
    const url = `rediss://127.0.0.1:${port}`
    const named = await opened(redisConfig({ kind: 'url', url }, { tls: { ca, servername: 'redis.internal' } }))
    expect(named.metadata.usage().isUp).toBe(true)
    const unnamed = await opened(redisConfig({ kind: 'url', url }, { tls: { ca, servername: undefined } }))
    expect(unnamed.metadata.usage().isUp).toBe(false)
    expect(String(unnamed.failures[0]?.error)).toContain('ERR_TLS_CERT_ALTNAME_INVALID')
  })

  it('T-58: is not talked to when nobody vouches for it', async () => {
    const { port } = await startedWithTls(['127.0.0.1'])
    const { metadata, failures } = await opened(redisConfig({ kind: 'url', url: `rediss://127.0.0.1:${port}` }))
    expect(metadata.usage().isUp).toBe(false)
    expect(failures.map(({ operation }) => operation)).toEqual(['redis.unavailable'])
    expect(String(failures[0]?.error)).toMatch(/SELF_SIGNED_CERT|UNABLE_TO_VERIFY/)
  })
})
