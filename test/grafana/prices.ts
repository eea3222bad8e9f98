import type { PricingConfig } from '../../src/config/config.ts'
import { bucketPresets, linkPresets } from '../../src/config/price-presets.ts'

/** What the cloud asks for, with these upstreams behind a NAT gateway. */
export function cloudPrices(...upstreams: readonly string[]): PricingConfig {
  const nat = linkPresets.get('aws-nat')
  return {
    currency: 'USD',
    links: nat ? Object.fromEntries(upstreams.map(upstream => [upstream, nat])) : {},
    crossZone: linkPresets.get('aws-cross-zone'),
    bucket: bucketPresets.get('aws-s3'),
  }
}
