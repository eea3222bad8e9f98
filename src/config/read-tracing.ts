import type { TracingConfig } from './config.ts'
import type { Environment } from './environment.ts'
import type { TracingInput } from './tracing.ts'

/**
 * What is written, else what the standard variables say; undefined: nothing is traced.
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/, …/protocol/exporter/
 */
export function readTracing(input: TracingInput, environment: Environment): TracingConfig | undefined {
  const endpoint = input.endpoint === undefined ? endpointOf(environment) : signalUrl(input.endpoint)
  if (endpoint === undefined) return undefined
  return {
    endpoint,
    sampleRatio: input.sampleRatio ?? ratioOf(environment),
    resource: resourceOf(input.serviceName, environment),
    propagateUpstream: input.propagateUpstream,
  }
}

/** Variables that other programs on the machine share keep nothing from starting: what is no URL counts as absent. */
function endpointOf(environment: Environment): string | undefined {
  if (environment['OTEL_SDK_DISABLED']?.trim().toLowerCase() === 'true') return undefined
  if (environment['OTEL_TRACES_EXPORTER']?.trim() === 'none') return undefined
  const traces = httpUrl(environment['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'])
  if (traces !== undefined) return traces
  const base = httpUrl(environment['OTEL_EXPORTER_OTLP_ENDPOINT'])
  return base && `${base.replace(/\/+$/, '')}/v1/traces`
}

function httpUrl(written: string | undefined): string | undefined {
  const parsed = written === undefined ? null : URL.parse(written.trim())
  return parsed?.protocol === 'http:' || parsed?.protocol === 'https:' ? parsed.href : undefined
}

/** `http://collector:4318` → where collectors take traces; a URL with a path is taken as it is. */
function signalUrl(written: string): string {
  const parsed = new URL(written)
  return parsed.pathname === '/' ? `${parsed.origin}/v1/traces` : written
}

function ratioOf(environment: Environment): number {
  const sampler = environment['OTEL_TRACES_SAMPLER']?.trim().replace(/^parentbased_/, '')
  if (sampler === 'always_off') return 0
  const argument = environment['OTEL_TRACES_SAMPLER_ARG']?.trim() ?? ''
  const ratio = argument === '' ? Number.NaN : Number(argument)
  return sampler !== 'always_on' && ratio >= 0 && ratio <= 1 ? ratio : 1
}

const maxAttributes = 64

function resourceOf(serviceName: string | undefined, environment: Environment): Readonly<Record<string, string>> {
  const pairs = (environment['OTEL_RESOURCE_ATTRIBUTES'] ?? '').split(',').slice(0, maxAttributes)
  const attributes: Record<string, string> = {}
  for (const pair of pairs) {
    const [, key, value] = /^\s*([\w.-]{1,128})\s*=(.{0,512})$/.exec(pair) ?? []
    if (key !== undefined && value !== undefined) attributes[key] = decoded(value.trim())
  }
  const name = serviceName ?? (environment['OTEL_SERVICE_NAME'] || attributes['service.name'] || 'layover')
  return { ...attributes, 'service.name': name }
}

function decoded(value: string): string {
  try {
    return decodeURIComponent(value)
  } catch {
    return value
  }
}
