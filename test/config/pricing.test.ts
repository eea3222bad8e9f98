import { describe, expect, test } from 'vitest'
import { ConfigError } from '../../src/config/problem.ts'
import { read } from './reading.ts'

const gibibyte = 1024 ** 3

function problemsOf(yaml: string, env: Readonly<Record<string, string>> = {}): string {
  try {
    read(yaml, { env })
    return ''
  } catch (error) {
    if (error instanceof ConfigError) return error.message
    throw error
  }
}

describe('pricing', () => {
  test('is absent unless it is written, and then in USD', () => {
    expect(read('').config.pricing).toBeUndefined()
    expect(read('pricing: {}').config.pricing).toEqual({ currency: 'USD', links: {} })
  })

  test('a link is a preset, a number, or a mapping with what is free and tiers', () => {
    const { config } = read(`
pricing:
  currency: EUR
  links:
    docker.io: aws-internet
    ghcr.io: 0.09
    quay.io: { perGiB: 0.1, free: 5GiB, tiers: { 50TiB: 0.05, 10TiB: 0.08 } }
  crossZone: 0.02
  bucket: { perGiBMonth: 0.02 }
`)
    expect(config.pricing).toEqual({
      currency: 'EUR',
      links: {
        'docker.io': expect.objectContaining({ name: 'aws-internet', freeBytes: 100 * gibibyte }),
        'ghcr.io': { name: 'custom', freeBytes: 0, tiers: [{ fromBytes: 0, perGiB: 0.09 }] },
        'quay.io': {
          name: 'custom',
          freeBytes: 5 * gibibyte,
          tiers: [
            { fromBytes: 0, perGiB: 0.1 },
            { fromBytes: 10 * 1024 * gibibyte, perGiB: 0.08 },
            { fromBytes: 50 * 1024 * gibibyte, perGiB: 0.05 },
          ],
        },
      },
      crossZone: { name: 'custom', freeBytes: 0, tiers: [{ fromBytes: 0, perGiB: 0.02 }] },
      bucket: { writesPer1000: 0, readsPer1000: 0, perGiBMonth: 0.02 },
    })
  })

  test('default is for every upstream that has no link of its own', () => {
    const { config } = read('pricing: { default: aws-nat, links: { ghcr.io: 0 }, bucket: aws-s3 }')
    expect(Object.keys(config.pricing?.links ?? {})).toEqual(config.upstreams.map(({ name }) => name))
    expect(config.pricing?.links['docker.io']?.name).toBe('aws-nat')
    expect(config.pricing?.links['ghcr.io']?.tiers).toEqual([{ fromBytes: 0, perGiB: 0 }])
    expect(config.pricing?.bucket?.perGiBMonth).toBe(0.023)
  })

  test('variables have a form of their own for links', () => {
    const { config } = read('', {
      env: {
        LAYOVER_PRICING_CURRENCY: 'CHF',
        LAYOVER_PRICING_LINKS: 'docker.io=aws-nat, ghcr.io=0.09',
        LAYOVER_PRICING_CROSS_ZONE: 'aws-cross-zone',
      },
    })
    expect(config.pricing).toMatchObject({
      currency: 'CHF',
      links: { 'docker.io': { name: 'aws-nat' }, 'ghcr.io': { tiers: [{ perGiB: 0.09 }] } },
      crossZone: { name: 'aws-cross-zone' },
    })
  })

  test.each([
    [
      'pricing: { links: { docker.io: aws-natt } }',
      /:1:32: pricing\.links\.docker\.io: no such price, did you mean aws-nat\?/,
    ],
    ['pricing: { default: free }', /pricing\.default: no such price: known are aws-nat, .*; or write a number/],
    ['pricing: { default: constructor }', /pricing\.default: no such price/],
    [
      'pricing: { links: { docker.ioo: aws-nat } }',
      /pricing\.links\.docker\.ioo: no such upstream is configured, did you mean docker\.io\?/,
    ],
    ['pricing: { links: { far.example: aws-nat } }', /no such upstream is configured, configured are docker\.io, /],
    ['pricing: { links: [aws-nat] }', /pricing\.links: expected a mapping such as docker\.io: aws-nat, got a list/],
    [
      'pricing: { links: { docker.io: { perGB: 1 } } }',
      /pricing\.links\.docker\.io\.perGB: no such setting, did you mean perGiB\?/,
    ],
    ['pricing: { links: { docker.io: { free: 1GiB } } }', /pricing\.links\.docker\.io: needs perGiB/],
    ['pricing: { links: { docker.io: { perGiB: -1 } } }', /perGiB: expected a price such as 0\.09, got -1/],
    [
      'pricing: { links: { docker.io: { perGiB: 1, free: much } } }',
      /free: expected a size such as 100GiB, got "much"/,
    ],
    [
      'pricing: { links: { docker.io: { perGiB: 1, tiers: { lots: 1 } } } }',
      /tiers\.lots: expected a size such as 100GiB/,
    ],
    ['pricing: { currency: dollars }', /pricing\.currency: expected a currency such as USD or EUR, got "dollars"/],
    ['pricing: { bucket: aws-s4 }', /pricing\.bucket: no such price, did you mean aws-s3\?/],
    [
      'pricing: { bucket: { perGiBMonth: x } }',
      /pricing\.bucket\.perGiBMonth: expected a price such as 0\.09, got "x"/,
    ],
    ['pricing: { link: { docker.io: 1 } }', /pricing\.link: no such setting, did you mean links\?/],
  ])('%s', (yaml, message) => {
    expect(problemsOf(yaml)).toMatch(message)
  })

  test('a variable that cannot be read says so by its name', () => {
    expect(problemsOf('', { LAYOVER_PRICING_LINKS: 'docker.io' })).toMatch(/^LAYOVER_PRICING_LINKS: expected a mapping/)
    expect(problemsOf('', { LAYOVER_PRICING_LINKS: 'docker.io=aws-nut' })).toMatch(
      /^LAYOVER_PRICING_LINKS: docker\.io: no such price, did you mean aws-nat\?/,
    )
  })
})
