import * as z from 'zod'
import type { Report } from './checks.ts'
import type { BucketPrice, LinkPrice, PricingConfig } from './config.ts'
import { bucketPresets, linkPresets } from './price-presets.ts'
import { shownValue } from './problem.ts'
import { isTree, type Path } from './settings.ts'
import { parseSize } from './size.ts'
import { nearest } from './suggestion.ts'

/** Reports what is wrong at a place below the setting. Always undefined, so that a reader can return it. */
type Complain = (message: string, ...path: readonly (string | number)[]) => undefined

const amount = { type: ['number', 'string'], minimum: 0 }
const linkForm = {
  anyOf: [
    { type: 'string', description: `One of ${[...linkPresets.keys()].join(', ')}, or a price per GiB.` },
    amount,
    {
      type: 'object',
      required: ['perGiB'],
      patternProperties: {
        '^perGiB$': { ...amount, description: 'Price of one GiB, in the currency.' },
        '^free$': { type: ['string', 'integer'], description: 'Bytes that cost nothing each month.' },
        '^tiers$': {
          type: 'object',
          patternProperties: { '': amount },
          description: 'Prices per GiB above a volume of a month, by that volume: { 10TiB: 0.085 }.',
        },
      },
    },
  ],
}

function priced<T>(json: Record<string, unknown>, read: (input: unknown, complain: Complain) => T | undefined) {
  return z
    .unknown()
    .transform((input, context): T => {
      const complain: Complain = (message, ...path) => {
        context.addIssue({ code: 'custom', message, path: [...path] })
        return undefined
      }
      return read(input, complain) ?? z.NEVER
    })
    .meta(json)
}

/** The section that is there only when somebody writes it: without prices, savings are told in bytes. */
export const pricingSchema = z
  .strictObject({
    currency: priced(
      { type: 'string', pattern: '^[A-Z]{3}$', description: 'Of every price here; three letters of ISO 4217.' },
      (input, complain) =>
        typeof input === 'string' && /^[A-Z]{3}$/.test(input)
          ? input
          : complain(`expected a currency such as USD or EUR, got ${shownValue(input)}`),
    ).prefault('USD'),
    default: priced(
      { ...linkForm, description: 'What a GiB from every upstream costs that is not under links.' },
      readLink,
    ).optional(),
    links: priced(
      {
        type: ['object', 'string'],
        patternProperties: { '': linkForm },
        description: 'What a GiB from an upstream costs, by its name.',
      },
      readLinks,
    ).optional(),
    crossZone: priced(
      { ...linkForm, description: 'What a GiB costs that one replica reads from another.' },
      readLink,
    ).optional(),
    bucket: priced(
      {
        type: ['string', 'object'],
        patternProperties: {
          '^writesPer1000$': { ...amount, description: 'A thousand requests that write or list.' },
          '^readsPer1000$': { ...amount, description: 'A thousand requests that read.' },
          '^perGiBMonth$': { ...amount, description: 'One GiB that is kept for a month.' },
        },
        description: `What the bucket costs: ${[...bucketPresets.keys()].join(', ')}, or prices.`,
      },
      readBucket,
    ).optional(),
  })
  .optional()
  .meta({ description: 'What traffic costs, to say in money what was saved.' })

type PricingInput = NonNullable<z.output<typeof pricingSchema>>

/** Prices by upstream. Reports links of upstreams that are not configured. */
export function readPricing(input: PricingInput, upstreams: readonly string[], report: Report): PricingConfig {
  for (const name of Object.keys(input.links ?? {})) checkUpstream(name, upstreams, report)
  const links = upstreams.flatMap(name => {
    const price = input.links?.[name] ?? input.default
    return price ? [[name, price] as const] : []
  })
  const { currency, crossZone, bucket } = input
  return {
    currency,
    links: Object.fromEntries(links),
    ...(crossZone && { crossZone }),
    ...(bucket && { bucket }),
  }
}

function checkUpstream(name: string, upstreams: readonly string[], report: Report): void {
  if (upstreams.includes(name)) return
  const near = nearest(name, upstreams)
  const hint = near === undefined ? `configured are ${upstreams.join(', ')}` : `did you mean ${near}?`
  const at: Path = ['pricing', 'links', name]
  report(at, `no such upstream is configured, ${hint}`, { key: true })
}

function readLinks(input: unknown, complain: Complain): Readonly<Record<string, LinkPrice>> | undefined {
  const written = typeof input === 'string' ? splitPairs(input) : input
  if (!isTree(written)) return complain(`expected a mapping such as docker.io: aws-nat, got ${shownValue(input)}`)
  const links = Object.entries(written).map(([name, price]) => {
    const under: Complain = (message, ...path) =>
      typeof input === 'string' ? complain(`${name}: ${message}`) : complain(message, name, ...path)
    return [name, readLink(price, under)] as const
  })
  const known = links.filter((link): link is readonly [string, LinkPrice] => link[1] !== undefined)
  return known.length === links.length ? Object.fromEntries(known) : undefined
}

/** The form of a variable: `docker.io=aws-nat,ghcr.io=0.09`. */
function splitPairs(text: string): Record<string, unknown> | undefined {
  const pairs = text.split(',').map(pair => pair.split('=').map(part => part.trim()))
  if (pairs.some(([name, price, ...rest]) => !name || !price || rest.length > 0)) return undefined
  return Object.fromEntries(pairs.map(([name = '', price = '']) => [name, price]))
}

function readLink(input: unknown, complain: Complain): LinkPrice | undefined {
  const flat = readMoney(input)
  if (flat !== undefined) return custom(0, [{ fromBytes: 0, perGiB: flat }])
  if (typeof input === 'string') return linkPresets.get(input) ?? complain(unknownPreset(input, linkPresets))
  if (!isTree(input))
    return complain(
      `expected ${[...linkPresets.keys()].join(', ')}, a price per GiB, or perGiB with free and tiers, got ${shownValue(input)}`,
    )
  if (hasStranger(input, ['perGiB', 'free', 'tiers'], complain)) return undefined
  const perGiB = readMoney(input['perGiB'])
  if (perGiB === undefined)
    return input['perGiB'] === undefined
      ? complain('needs perGiB, the price of one GiB')
      : complain(expectedMoney(input['perGiB']), 'perGiB')
  const freeBytes = input['free'] === undefined ? 0 : readBytes(input['free'])
  if (freeBytes === undefined) return complain(expectedSize(input['free']), 'free')
  const tiers = readTiers(input['tiers'], complain)
  return tiers && custom(freeBytes, [{ fromBytes: 0, perGiB }, ...tiers])
}

const custom = (freeBytes: number, tiers: LinkPrice['tiers']): LinkPrice => ({ name: 'custom', freeBytes, tiers })

function readTiers(input: unknown, complain: Complain): LinkPrice['tiers'] | undefined {
  if (input === undefined) return []
  if (!isTree(input)) return complain(`expected a mapping such as 10TiB: 0.085, got ${shownValue(input)}`, 'tiers')
  const tiers: LinkPrice['tiers'][number][] = []
  for (const [volume, price] of Object.entries(input)) {
    const fromBytes = readBytes(volume)
    const perGiB = readMoney(price)
    if (fromBytes === undefined || fromBytes === 0) return complain(expectedSize(volume), 'tiers', volume)
    if (perGiB === undefined) return complain(expectedMoney(price), 'tiers', volume)
    tiers.push({ fromBytes, perGiB })
  }
  return tiers.toSorted((a, b) => a.fromBytes - b.fromBytes)
}

function readBucket(input: unknown, complain: Complain): BucketPrice | undefined {
  if (typeof input === 'string') return bucketPresets.get(input) ?? complain(unknownPreset(input, bucketPresets))
  if (!isTree(input))
    return complain(`expected ${[...bucketPresets.keys()].join(', ')}, or prices, got ${shownValue(input)}`)
  const keys = ['writesPer1000', 'readsPer1000', 'perGiBMonth'] as const
  if (hasStranger(input, keys, complain)) return undefined
  const prices = keys.map(key => [key, input[key] === undefined ? 0 : readMoney(input[key])] as const)
  const wrong = prices.find(([, price]) => price === undefined)
  if (wrong) return complain(expectedMoney(input[wrong[0]]), wrong[0])
  const [writesPer1000 = 0, readsPer1000 = 0, perGiBMonth = 0] = prices.map(([, price]) => price)
  return { writesPer1000, readsPer1000, perGiBMonth }
}

function hasStranger(input: Record<string, unknown>, keys: readonly string[], complain: Complain): boolean {
  const stranger = Object.keys(input).find(key => !keys.includes(key))
  if (stranger === undefined) return false
  const near = nearest(stranger, keys)
  complain(
    `no such setting, ${near === undefined ? `possible here are ${keys.join(', ')}` : `did you mean ${near}?`}`,
    stranger,
  )
  return true
}

function unknownPreset(word: string, presets: ReadonlyMap<string, unknown>): string {
  const names = [...presets.keys()]
  const near = nearest(word, names)
  return near === undefined
    ? `no such price: known are ${names.join(', ')}; or write a number`
    : `no such price, did you mean ${near}?`
}

/** Also as text, which is what a variable gives. */
function readMoney(input: unknown): number | undefined {
  const value =
    typeof input === 'number'
      ? input
      : typeof input === 'string' && /^\d+(\.\d+)?$/.test(input)
        ? Number(input)
        : Number.NaN
  return Number.isFinite(value) && value >= 0 ? value : undefined
}

function readBytes(input: unknown): number | undefined {
  return typeof input === 'string' || typeof input === 'number' ? parseSize(String(input)) : undefined
}

const expectedMoney = (input: unknown): string => `expected a price such as 0.09, got ${shownValue(input)}`
const expectedSize = (input: unknown): string => `expected a size such as 100GiB, got ${shownValue(input)}`
