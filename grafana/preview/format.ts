import type { Defaults } from './panel.ts'

const binary = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi']
const decimal = ['', ' K', ' Mil', ' Bil']

/** A value in its unit, as Grafana words it. */
export function format(value: number, { unit = 'short', decimals, mappings = [] }: Defaults): string {
  const mapped = mappings.map(({ options }) => options[String(value)]?.text).find(text => text !== undefined)
  if (mapped !== undefined) return mapped
  switch (unit) {
    case 'bytes':
      return scaled(
        value,
        1024,
        binary.map(prefix => ` ${prefix}B`),
        decimals,
      )
    case 'binBps':
      return scaled(
        value,
        1024,
        binary.map(prefix => ` ${prefix}B/s`),
        decimals,
      )
    case 'percentunit':
      return `${rounded(value * 100, decimals)}%`
    case 's':
      return duration(value, decimals)
    case 'reqps':
      return `${rounded(value, decimals)} req/s`
    case 'ops':
      return `${rounded(value, decimals)} ops/s`
    default:
      return scaled(value, 1000, decimal, decimals)
  }
}

function scaled(value: number, base: number, units: readonly string[], decimals: number | undefined): string {
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log(Math.abs(value) || 1) / Math.log(base))))
  return `${rounded(value / base ** power, decimals)}${units[power] ?? ''}`
}

function duration(seconds: number, decimals: number | undefined): string {
  const size = Math.abs(seconds)
  if (size === 0) return '0 s'
  if (size < 1e-3) return `${rounded(seconds * 1e6, decimals)} µs`
  if (size < 1) return `${rounded(seconds * 1e3, decimals)} ms`
  if (size < 120) return `${rounded(seconds, decimals)} s`
  return `${rounded(seconds / 60, decimals)} min`
}

function rounded(value: number, decimals: number | undefined): string {
  if (decimals !== undefined) return value.toFixed(decimals)
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2
  return String(Number(value.toFixed(digits)))
}
