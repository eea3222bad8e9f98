import type { Config } from '../config/config.ts'
import type { Log } from '../log/log.ts'
import { noTracer, type Tracer } from '../tracing/tracer.ts'

/** The OpenTelemetry SDK is loaded only where traces are wanted. */
export async function openTracer({ tracing }: Config, log: Log): Promise<Tracer> {
  if (!tracing) return noTracer
  const { createOtelTracer } = await import('../tracing/otel.ts')
  log.info({ endpoint: tracing.endpoint, sampleRatio: tracing.sampleRatio }, 'traces are exported')
  return createOtelTracer({ config: tracing, log })
}
