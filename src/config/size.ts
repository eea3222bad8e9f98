const bytesOf: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  kb: 1000,
  mb: 1000 ** 2,
  gb: 1000 ** 3,
  tb: 1000 ** 4,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
  tib: 1024 ** 4,
}
const grammar = /^(\d{1,16}(?:\.\d{1,6})?) ?([kmgt]i?b|b)?$/i

export const sizePattern = '^[0-9]{1,16}(\\.[0-9]{1,6})? ?([KkMmGgTt][Ii]?[Bb]|[Bb])?$'

/** Parses `50GiB` (1024-based), `512MB` (1000-based), `1024` (bytes). Gives whole bytes, or undefined for anything else. */
export function parseSize(text: string): number | undefined {
  const [, amount, unit = ''] = grammar.exec(text) ?? []
  const factor = bytesOf[unit.toLowerCase()]
  if (amount === undefined || factor === undefined) return undefined
  const bytes = Math.round(Number(amount) * factor)
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** For people: 1610612736 → `1.5GiB`. At most two decimals, so not always exact. */
export function formatSize(bytes: number): string {
  for (const [unit, factor] of [
    ['TiB', 1024 ** 4],
    ['GiB', 1024 ** 3],
    ['MiB', 1024 ** 2],
    ['KiB', 1024],
  ] as const)
    if (bytes >= factor) return `${Number((bytes / factor).toFixed(2))}${unit}`
  return `${bytes}B`
}
