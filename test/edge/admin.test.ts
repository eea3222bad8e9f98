import { describe, expect, test } from 'vitest'
import { type AdminOptions, createAdmin } from '../../src/edge/admin.ts'
import { createMetrics } from '../../src/metrics/metrics.ts'

const create = (options: Partial<AdminOptions> = {}) =>
  createAdmin({
    metrics: createMetrics({ upstreams: ['docker.io'], version: '1.2.3' }),
    status: () => ({ version: '1.2.3' }),
    readiness: () => ({ ready: true, reasons: [] }),
    ...options,
  })

describe('pages', () => {
  test('/metrics is the Prometheus text format', async () => {
    const response = await create().request('/metrics')
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(await response.text()).toContain('layover_build_info{version="1.2.3"')
  })

  test('/livez and its alias /healthz answer while nothing else works', async () => {
    const app = create({
      readiness: () => ({ ready: false, reasons: ['draining'] }),
      status: () => Promise.reject(new Error('broken')),
    })
    for (const path of ['/livez', '/healthz']) {
      const { status } = await app.request(path)
      expect([path, status]).toEqual([path, 200])
    }
  })

  test('/status is JSON, also when it has to be waited for', async () => {
    const response = await create({ status: () => Promise.resolve({ upstreams: [] }) }).request('/status')
    expect(response.headers.get('content-type')).toBe('application/json')
    expect(await response.json()).toEqual({ upstreams: [] })
  })

  test('/savings is JSON: in all, since a time, and 503 while that cannot be read', async () => {
    const asked: (number | undefined)[] = []
    const app = create({
      savings: async since => {
        asked.push(since)
        if (since === 0) throw new Error('Redis is away')
        return { servedBytes: 5 }
      },
    })
    expect(await (await app.request('/savings')).json()).toEqual({ servedBytes: 5 })
    expect((await app.request('/savings?since=2026-11-01')).status).toBe(200)
    expect((await app.request('/savings?since=2026-11-01T16:00:00Z')).status).toBe(200)
    expect(asked).toEqual([undefined, Date.UTC(2026, 10, 1), Date.UTC(2026, 10, 1, 16)])
    expect((await app.request('/savings?since=soon')).status).toBe(400)
    const away = await app.request('/savings?since=1970-01-01')
    expect([away.status, await away.json()]).toEqual([503, { error: 'the figures of this period cannot be read now' }])
  })

  test('/ names the pages', async () => {
    const text = await (await create().request('/')).text()
    for (const path of ['/metrics', '/livez', '/readyz', '/status', '/savings', '/healthz'])
      expect(text).toContain(path)
  })
})

describe('readiness', () => {
  test('F-41: 503 with the reasons while draining, and ready again after', async () => {
    let reasons: string[] = ['draining']
    const app = create({ readiness: () => ({ ready: reasons.length === 0, reasons }) })
    const draining = await app.request('/readyz')
    expect(draining.status).toBe(503)
    expect(await draining.json()).toEqual({ ready: false, reasons: ['draining'] })
    reasons = []
    expect((await app.request('/readyz')).status).toBe(200)
  })

  test('F-27: an upstream that is down does not make it unready', async () => {
    const metrics = createMetrics({ upstreams: ['docker.io'], version: '1.2.3' })
    metrics.upstreamState('docker.io', 'open')
    expect((await create({ metrics }).request('/readyz')).status).toBe(200)
  })

  test('a readiness that cannot be told is 503', async () => {
    const app = create({
      readiness: () => {
        throw new Error('database is locked')
      },
    })
    expect((await app.request('/readyz')).status).toBe(503)
  })
})

describe('every page', () => {
  const paths = ['/', '/metrics', '/livez', '/readyz', '/healthz', '/status']

  test('answers HEAD without a body', async () => {
    for (const path of paths) {
      const response = await create().request(path, { method: 'HEAD' })
      expect([path, response.status, await response.text()]).toEqual([path, 200, ''])
    }
  })

  test('has no caching headers', async () => {
    for (const path of [...paths, '/nothing']) {
      const { headers } = await create().request(path)
      for (const name of ['cache-control', 'expires', 'etag', 'last-modified', 'age'])
        expect(headers.has(name), `${path} ${name}`).toBe(false)
    }
  })

  test('T-56: changes nothing: other methods are refused', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
      const response = await create().request('/status', { method })
      expect([method, response.status, response.headers.get('allow')]).toEqual([method, 405, 'GET, HEAD'])
    }
  })

  test('that does not exist is a 404 in JSON', async () => {
    for (const path of ['/nothing', '/v2/', '/metrics/', '/debug/pprof']) {
      const response = await create().request(path)
      expect([path, response.status]).toEqual([path, 404])
      expect(response.headers.get('content-type')).toContain('application/json')
      expect(await response.json()).toHaveProperty('error')
    }
  })

  test('that cannot be made is a 500 which keeps the reason to the log', async () => {
    const told: Error[] = []
    const app = create({
      status: () => Promise.reject(new Error('password hunter2')),
      onError: error => told.push(error),
    })
    const response = await app.request('/status')
    expect(response.status).toBe(500)
    expect(await response.text()).not.toContain('hunter2')
    expect(told.map(error => error.message)).toEqual(['password hunter2'])
  })
})
