import { type Html, html } from './html.ts'

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** `1.24 GiB`: three digits, and a space that does not break. */
export function bytes(count: number): string {
  const size = Math.abs(count)
  // 1023.9 KiB would be written as 1024 KiB.
  const exponent = Math.min(units.length - 1, size < 1 ? 0 : Math.floor(Math.log2(size * 1.0005) / 10))
  const scaled = size / 1024 ** exponent
  const digits = exponent === 0 || scaled >= 100 ? 0 : scaled >= 10 ? 1 : 2
  return `${count < 0 ? '−' : ''}${scaled.toFixed(digits)}\u00a0${units[exponent]}`
}

export const rate = (bytesPerSecond: number): string => `${bytes(bytesPerSecond)}/s`

/** `12,345` */
export const count = (value: number): string => Math.round(value).toLocaleString('en-US')

/** `97.2 %`; nothing is called 0 % or 100 % that is not. */
export function percent(part: number, whole: number): string {
  if (whole <= 0) return '–'
  const share = (part / whole) * 100
  if (share > 0 && share < 0.1) return '< 0.1\u00a0%'
  const shown = share > 99.9 && share < 100 ? 99.9 : share
  return `${shown.toFixed(shown === 100 || shown === 0 ? 0 : 1)}\u00a0%`
}

/** The largest unit, and the next one where it says something: `3 d 4 h`, `12 min`, `8 s`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  if (seconds < 60) return `${seconds}\u00a0s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes}\u00a0min`
  const hours = Math.floor(minutes / 60)
  if (hours < 24) return pair(hours, 'h', minutes % 60, 'min')
  return pair(Math.floor(hours / 24), 'd', hours % 24, 'h')
}

const pair = (large: number, unit: string, small: number, smallUnit: string): string =>
  small === 0 ? `${large}\u00a0${unit}` : `${large}\u00a0${unit}\u00a0${small}\u00a0${smallUnit}`

/** `12 min ago`, with the time itself for machines and for whoever points at it. */
export function ago(epochMs: number, now: number): Html {
  if (!isTime(epochMs)) return html`–`
  const iso = new Date(epochMs).toISOString()
  return html`<time datetime="${iso}" title="${iso.slice(0, 19).replace('T', ' ')} UTC">${duration(now - epochMs)} ago</time>`
}

/** `2026-11-28 16:40 UTC` */
export function moment(epochMs: number): Html {
  if (!isTime(epochMs)) return html`–`
  const iso = new Date(epochMs).toISOString()
  return html`<time datetime="${iso}">${iso.slice(0, 16).replace('T', ' ')} UTC</time>`
}

/** A time that a record holds may be anything. */
const isTime = (epochMs: number): boolean => Math.abs(epochMs) <= 8.64e15

/** The first twelve digits; the whole digest is there for who points at it or copies it. */
export function shortDigest(digest: string): string {
  const [algorithm = '', hex = ''] = digest.split(':', 2)
  return algorithm === 'sha256' ? hex.slice(0, 12) : `${algorithm}:${hex.slice(0, 12)}`
}

/** In the currency's own form: `$12.40`. A code that nobody knows stands behind the number. */
export function money(amount: number, currency: string): string {
  try {
    return new Intl.NumberFormat('en-US', { style: 'currency', currency }).format(amount)
  } catch {
    return `${amount.toFixed(2)}\u00a0${currency}`
  }
}
