import * as z from 'zod'
import { flag, share, text, url } from './values.ts'

export const tracingSchema = z
  .strictObject({
    endpoint: url('OTLP/HTTP collector that takes JSON, such as http://127.0.0.1:4318. Turns tracing on.').optional(),
    sampleRatio: share(
      'Share of the traces that begin here which is kept; one that a client began is kept when the client says so. Default: all.',
    ).optional(),
    serviceName: text('Name of this service in traces. Default: layover.').optional(),
    propagateUpstream: flag('Tell registries the trace that a request belongs to (traceparent).').prefault(false),
  })
  .prefault({})
  .meta({ description: 'OpenTelemetry traces. The variables OTEL_… count where a key is not written.' })

export type TracingInput = z.output<typeof tracingSchema>
