import { expect, it, onTestFinished } from 'vitest'
import { accessLines, get } from '../edge/pulling.ts'
import { startCollector } from '../fakes/collector.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { startFakeRegistry } from '../fakes/registry.ts'

async function pulled({ traced }: { readonly traced: boolean }): Promise<TestLayover> {
  const [registry, collector] = [await startFakeRegistry(), await startCollector()]
  const { endpoint } = collector
  const tracing = { endpoint, sampleRatio: 1, resource: {}, propagateUpstream: false }
  const layover = await startTestLayover({
    upstreams: { 'fake.test': registry },
    config: traced ? { tracing } : {},
  })
  onTestFinished(async () => {
    await layover.close()
    await Promise.all([registry.stop(), collector.stop()])
  })
  registry.image('team/app', 'v1')
  for (let pulls = 0; pulls < 3; pulls++) await get(layover, '/v2/team/app/manifests/v1')
  await accessLines(layover, 3)
  return layover
}

/** What Prometheus sends by default. */
const prometheusAccept =
  'application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1'

async function scrape(layover: TestLayover, accept: string) {
  const answer = await fetch(`${layover.adminUrl}/metrics`, { headers: { accept } })
  return { type: answer.headers.get('content-type') ?? '', text: await answer.text() }
}

it('exemplars with their trace are on the latest of each bucket, for who asks for OpenMetrics', async () => {
  const layover = await pulled({ traced: true })
  const { type, text } = await scrape(layover, prometheusAccept)
  expect(type).toMatch(/^application\/openmetrics-text; version=1\.0\.0/)
  const traces = (await accessLines(layover, 3)).map(line => String(line['trace_id']))
  const exemplars = [
    ...text.matchAll(/^(\w+)_bucket\{[^}]*\} \d+ # \{trace_id="([0-9a-f]{32})"\} [\d.e-]+ \d+(?:\.\d+)?$/gm),
  ]
  const names = new Set(exemplars.map(([, name]) => name))
  expect(names).toEqual(new Set(['layover_request_duration_seconds', 'layover_time_to_first_byte_seconds']))
  for (const [, , trace] of exemplars) expect(traces).toContain(trace)
  // What the format asks for besides. https://github.com/OpenObservability/OpenMetrics/blob/main/specification/OpenMetrics.md
  expect(text.endsWith('\n# EOF\n')).toBe(true)
  expect(text).not.toContain('\n\n')
  expect(text).toMatch(/^# TYPE layover_requests counter$/m)
  expect(text).not.toMatch(/^# TYPE \w+_total /m)
  expect(text).toMatch(/^layover_requests_total\{/m)
  expect(text).toMatch(/^process_cpu_seconds_total /m)
})

it('everybody else gets what there was before, and so does everybody where nothing is traced', async () => {
  const traced = await pulled({ traced: true })
  const plain = await scrape(traced, 'text/plain')
  const untraced = await scrape(await pulled({ traced: false }), prometheusAccept)
  for (const { type, text } of [plain, untraced]) {
    expect(type).toMatch(/^text\/plain; version=0\.0\.4/)
    expect(text).not.toContain('trace_id')
    expect(text).toMatch(/^# TYPE layover_requests_total counter$/m)
  }
})
