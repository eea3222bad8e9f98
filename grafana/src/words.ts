import { MappingType, type ValueMapping } from '@grafana/grafana-foundation-sdk/dashboard'

/** The values of `layover_upstream_state` in words. */
export const stateMappings: ValueMapping[] = [
  {
    type: MappingType.ValueToText,
    options: {
      0: { text: 'in use', color: 'green', index: 0 },
      1: { text: 'on trial', color: 'yellow', index: 1 },
      2: { text: 'out of reach', color: 'red', index: 2 },
    },
  },
]

/** The outcomes of a request, in the same colour everywhere. */
export const outcomeColours: Readonly<Record<string, string>> = {
  hit: 'green',
  joined: 'light-green',
  revalidated: 'blue',
  redirected: 'light-blue',
  fill: 'yellow',
  stale: 'purple',
  denied: 'orange',
  error: 'red',
}
