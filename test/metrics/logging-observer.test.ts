import { expect, test } from 'vitest'
import { createLog } from '../../src/log/log.ts'
import type { ContentRejected, FillEnded } from '../../src/log/observer.ts'
import { loggingObserver } from '../../src/metrics/logging-observer.ts'
import { createMetrics } from '../../src/metrics/metrics.ts'
import { FakeClock } from '../fakes/clock.ts'

const digest = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

function watching() {
  const raw: string[] = []
  const metrics = createMetrics({ upstreams: ['docker.io'], version: '1' })
  const log = createLog({ level: 'info', stream: { write: (line: string) => raw.push(line) } })
  const lines = (): Record<string, unknown>[] => raw.map(line => JSON.parse(line) as Record<string, unknown>)
  const clock = new FakeClock()
  return { observer: loggingObserver(metrics, log, clock), metrics, lines, clock }
}

test('T-20: content that was refused is counted, and one line of warning says whose, what and why', async () => {
  const { observer, metrics, lines } = watching()
  const event: ContentRejected = { upstream: 'docker.io', kind: 'blob', digest, reason: 'size_mismatch' }
  observer.contentRejected(event)
  expect(lines()).toEqual([{ level: 'warn', time: expect.any(String), ...event, msg: 'refused what upstream sent' }])
  const { body } = await metrics.render()
  expect(body).toContain('layover_content_rejected_total{upstream="docker.io",kind="blob",reason="size_mismatch"} 1\n')
})

test('P-36: what was asked by tag has no digest in its line', () => {
  const { observer, lines } = watching()
  observer.contentRejected({ upstream: 'docker.io', kind: 'manifest', digest: undefined, reason: 'schema_1' })
  expect(lines()).toEqual([
    {
      level: 'warn',
      time: expect.any(String),
      upstream: 'docker.io',
      kind: 'manifest',
      reason: 'schema_1',
      msg: 'refused what upstream sent',
    },
  ])
})

test('F-34: a download that was not kept is told at once, then once in a minute with how many there were', () => {
  const { observer, lines, clock } = watching()
  const event: FillEnded = {
    upstream: 'docker.io',
    digest,
    outcome: 'uncached',
    reason: undefined,
    bytes: 7,
    seconds: 1,
    readers: 1,
    error: undefined,
  }
  observer.fillEnded({ ...event, outcome: 'published' })
  for (let n = 0; n < 4; n++) observer.fillEnded(event)
  clock.advance(59_999)
  observer.fillEnded(event)
  clock.advance(1)
  observer.fillEnded(event)
  const line = { level: 'warn', time: expect.any(String), upstream: 'docker.io', digest, bytes: 7 }
  const msg = expect.stringMatching(/^not cached: /)
  expect(lines()).toEqual([
    { ...line, count: 1, msg },
    { ...line, count: 5, msg },
  ])
})
