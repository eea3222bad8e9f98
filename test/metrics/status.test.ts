import { expect, test } from 'vitest'
import { createMetrics } from '../../src/metrics/metrics.ts'
import { describeStatus } from '../../src/metrics/status.ts'

const storage = { blobs: 1, blobBytes: 10, manifests: 1, manifestBytes: 2, reservedBytes: 0, maxBytes: 100 }

test('describes every upstream with its health, its traffic and what it saved', () => {
  const metrics = createMetrics({ upstreams: ['docker.io', 'quay.io'], version: '1.2.3' })
  metrics.upstreamBytes('docker.io', 'blob', 100)
  metrics.request({
    upstream: 'docker.io',
    kind: 'blob',
    method: 'GET',
    status: 200,
    outcome: 'joined',
    bytes: 250,
    firstByteSeconds: 0.1,
    seconds: 1,
    aborted: false,
  })
  const status = describeStatus({
    version: '1.2.3',
    uptimeSeconds: 61.4,
    upstreams: [
      {
        name: 'docker.io',
        health: () => ({
          state: 'open',
          unreachableSince: 0,
          blockedUntil: 60_000,
          lastError: 'connect timeout',
        }),
      },
      {
        name: 'quay.io',
        health: () => ({
          state: 'closed',
          unreachableSince: undefined,
          blockedUntil: undefined,
          lastError: undefined,
        }),
      },
    ],
    storage,
    snapshot: metrics.snapshot(),
  })
  expect(status).toMatchObject({ version: '1.2.3', uptimeSeconds: 61, storage })
  expect(status.upstreams).toEqual([
    {
      name: 'docker.io',
      state: 'open',
      unreachableSince: '1970-01-01T00:00:00.000Z',
      blockedUntil: '1970-01-01T00:01:00.000Z',
      lastError: 'connect timeout',
      servedBytes: 250,
      upstreamBytes: 100,
      savedBytes: 150,
      upstreamRequests: 0,
    },
    { name: 'quay.io', state: 'closed', servedBytes: 0, upstreamBytes: 0, savedBytes: 0, upstreamRequests: 0 },
  ])
  expect(status.requests.total).toBe(1)
  expect(status.requests.byOutcome.joined).toBe(1)
  expect(status.traffic.savedBytes).toBe(150)
})

test('reads health from objects that keep it behind `this`', () => {
  class Registry {
    readonly name = 'docker.io'
    readonly #state = 'half-open' as const
    health() {
      return { state: this.#state, unreachableSince: undefined, blockedUntil: undefined, lastError: undefined }
    }
  }
  const { upstreams } = describeStatus({
    version: '1',
    uptimeSeconds: 0,
    upstreams: [new Registry()],
    storage,
    snapshot: createMetrics({ upstreams: [], version: '1' }).snapshot(),
  })
  expect(upstreams[0]).toMatchObject({ state: 'half-open', savedBytes: 0 })
})
