import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { errorCode, get } from './pulling.ts'

let hub: FakeRegistry
let other: FakeRegistry
let layover: TestLayover

beforeEach(async () => {
  hub = await startFakeRegistry()
  other = await startFakeRegistry()
  layover = await startTestLayover({
    upstreams: { 'docker.io': hub, 'other.test:8443': { url: other.url, aliases: ['alias.test'] } },
  })
})
afterEach(async () => {
  await layover.close()
  await hub.stop()
  await other.stop()
})

describe('one repository, many spellings', () => {
  test('P-21, P-22, P-23, P-27, T-24: Docker Hub by mirror path, ns, prefix and host is one entry', async () => {
    const { digest, layers } = hub.image('library/alpine', '3')
    const blob = layers[0]?.digest ?? ''
    const spellings = [
      (tail: string) => `/v2/library/alpine/${tail}`,
      (tail: string) => `/v2/alpine/${tail}`,
      (tail: string) => `/v2/library/alpine/${tail}?ns=docker.io`,
      (tail: string) => `/v2/alpine/${tail}?ns=index.docker.io`,
      (tail: string) => `/v2/alpine/${tail}?ns=registry-1.docker.io`,
      (tail: string) => `/v2/alpine/${tail}?ns=DOCKER.IO`,
      (tail: string) => `/v2/alpine/${tail}?ns=docker.io:443`,
      (tail: string) => `/v2/docker.io/library/alpine/${tail}`,
      (tail: string) => `/v2/docker.io/alpine/${tail}`,
      (tail: string) => `/v2/index.docker.io/library/alpine/${tail}`,
      (tail: string) => `/docker.io/v2/library/alpine/${tail}`,
      (tail: string) => `/docker.io/v2/alpine/${tail}?ns=docker.io`,
      (tail: string) => `/v2/%61lpine/${tail}`,
    ]
    for (const spell of spellings) {
      const manifest = await get(layover, spell('manifests/3'))
      expect([spell(''), manifest.status, manifest.headers['docker-content-digest']]).toEqual([spell(''), 200, digest])
      expect([spell(''), (await get(layover, spell(`blobs/${blob}`))).status]).toEqual([spell(''), 200])
    }
    expect(hub.requests.map(request => `${request.method} ${request.url}`)).toEqual([
      'GET /v2/library/alpine/manifests/3',
      `GET /v2/library/alpine/blobs/${blob}`,
    ])
    expect(other.requests).toEqual([])
  })

  test('P-22: only Docker Hub completes names of one part', async () => {
    const { digest } = other.image('pause', '3.10')
    for (const target of [
      '/v2/pause/manifests/3.10?ns=other.test:8443',
      '/v2/other.test:8443/pause/manifests/3.10',
      '/v2/pause/manifests/3.10?ns=alias.test',
      '/other.test%3A8443/v2/pause/manifests/3.10',
    ])
      expect([target, (await get(layover, target)).headers['docker-content-digest']]).toEqual([target, digest])
    expect(other.count()).toBe(1)
    expect(hub.requests).toEqual([])
  })

  test('P-25: OCI-Namespace is said when ns scoped the request, and only then', async () => {
    hub.image('library/alpine', '3')
    other.image('pause', '3')
    for (const tail of ['manifests/3', 'manifests/nope', 'tags/list']) {
      expect((await get(layover, `/v2/pause/${tail}?ns=other.test:8443`)).headers['oci-namespace']).toBe(
        'other.test:8443',
      )
      expect((await get(layover, `/v2/alpine/${tail}`)).headers).not.toHaveProperty('oci-namespace')
      expect((await get(layover, `/v2/docker.io/alpine/${tail}`)).headers).not.toHaveProperty('oci-namespace')
    }
  })

  test('P-28: upstream is told neither ns nor parameters that it does not know', async () => {
    hub.image('library/alpine', '3')
    await get(layover, '/v2/library/alpine/manifests/3?ns=docker.io&debug=1')
    await get(layover, '/v2/library/alpine/tags/list?ns=docker.io&n=5')
    expect(hub.requests.map(request => request.url)).toEqual([
      '/v2/library/alpine/manifests/3',
      '/v2/library/alpine/tags/list?n=5',
    ])
  })
})

describe('what is refused', () => {
  test('P-26: an ns that is not configured is 404 and nobody is asked', async () => {
    for (const target of [
      '/v2/app/manifests/1?ns=unknown.test',
      '/v2/unknown.test/app/manifests/1',
      '/unknown.test/v2/app/manifests/1',
    ]) {
      const answer = await get(layover, target)
      expect([target, answer.status, errorCode(answer)]).toEqual([target, 404, 'NAME_UNKNOWN'])
    }
    expect([...hub.requests, ...other.requests]).toEqual([])
  })

  test('P-24, T-4: ns is a configured host or nothing', async () => {
    const spaces = [
      '',
      '169.254.169.254',
      'localhost:6379',
      '127.0.0.1',
      'a@docker.io',
      'docker.io@evil.test',
      'user:pass@docker.io',
      'docker.io/library',
      'docker.io%00',
      'docker.io.',
      'docker.io%2F..',
      'http://docker.io',
      'docker.io:80',
      'docker.io:0443',
      'd%C3%B6cker.io',
      '%E2%93%94ocker.io',
      '[::1]',
      '*',
      'docker.io%0d%0aX-Evil:%201',
      `${'a'.repeat(300)}.io`,
    ]
    for (const space of spaces) {
      const answer = await get(layover, `/v2/library/alpine/manifests/3?ns=${space}`)
      expect([space, [400, 404].includes(answer.status)]).toEqual([space, true])
      errorCode(answer)
      expect(answer.headers).not.toHaveProperty('x-evil')
    }
    expect([...hub.requests, ...other.requests]).toEqual([])
  })

  test('P-24: ns twice, or at odds with the host in front, is 400', async () => {
    for (const target of [
      '/v2/alpine/manifests/3?ns=docker.io&ns=other.test:8443',
      '/v2/alpine/manifests/3?ns=docker.io&ns=docker.io',
      '/docker.io/v2/alpine/manifests/3?ns=other.test:8443',
    ]) {
      const answer = await get(layover, target)
      expect([target, answer.status, errorCode(answer)]).toEqual([target, 400, 'NAME_INVALID'])
    }
    expect([...hub.requests, ...other.requests]).toEqual([])
  })
})
