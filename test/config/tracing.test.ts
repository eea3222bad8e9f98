import { describe, expect, it } from 'vitest'
import { problemsOf, read } from './reading.ts'

const tracingOf = (yaml: string, env: Record<string, string> = {}) => read(yaml, { env }).config.tracing

describe('tracing', () => {
  it('is off as long as nobody names a collector', () => {
    expect(tracingOf('')).toBeUndefined()
    expect(tracingOf('tracing: { sampleRatio: 10% }', { OTEL_SERVICE_NAME: 'cache' })).toBeUndefined()
  })

  it('goes where the file or a variable of ours says', () => {
    expect(tracingOf('tracing: { endpoint: "http://127.0.0.1:4318", sampleRatio: 10%, serviceName: cache }')).toEqual({
      endpoint: 'http://127.0.0.1:4318/v1/traces',
      sampleRatio: 0.1,
      resource: { 'service.name': 'cache' },
      propagateUpstream: false,
    })
    expect(tracingOf('', { LAYOVER_TRACING_ENDPOINT: 'https://c.example.com/otlp/traces' })).toMatchObject({
      endpoint: 'https://c.example.com/otlp/traces',
      sampleRatio: 1,
    })
  })

  it('takes the standard variables', () => {
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318/',
      OTEL_SERVICE_NAME: 'cache',
      OTEL_RESOURCE_ATTRIBUTES: 'service.name=other,deployment.environment=a%20b, k8s.pod.name=p-1,,=x',
      OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
      OTEL_TRACES_SAMPLER_ARG: '0.25',
    }
    expect(tracingOf('', env)).toEqual({
      endpoint: 'http://collector:4318/v1/traces',
      sampleRatio: 0.25,
      resource: { 'service.name': 'cache', 'deployment.environment': 'a b', 'k8s.pod.name': 'p-1' },
      propagateUpstream: false,
    })
    expect(
      tracingOf('', { ...env, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://t:1/x', OTEL_TRACES_SAMPLER: 'always_off' }),
    ).toMatchObject({ endpoint: 'http://t:1/x', sampleRatio: 0 })
  })

  it('is turned off by them, and nothing that stands in them keeps Layover from starting', () => {
    const OTEL_EXPORTER_OTLP_ENDPOINT = 'http://collector:4318'
    expect(tracingOf('', { OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SDK_DISABLED: 'true' })).toBeUndefined()
    expect(tracingOf('', { OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_EXPORTER: 'none' })).toBeUndefined()
    expect(tracingOf('', { OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4317' })).toBeUndefined()
    expect(tracingOf('', { OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER_ARG: 'much' })?.sampleRatio).toBe(1)
  })

  it('says what is wrong in the file', () => {
    expect(problemsOf('tracing: { endpoint: collector, sampleRatio: 2 }')).toHaveLength(2)
  })
})
