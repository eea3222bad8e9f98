import type { SavingsStats, UpstreamStats } from '../metrics/savings.ts'

const columns = ['upstream', 'requests', 'hit rate', 'served', 'fetched', 'saved', 'money', 'pulls avoided'] as const

/** What was saved as a table, one line for each upstream that was used, and all of them together. */
export function statsTable(stats: SavingsStats): string {
  const { currency, money } = stats
  const used = stats.upstreams.filter(
    ({ requests, servedBytes, upstreamBytes }) => requests + servedBytes + upstreamBytes > 0,
  )
  const rows = [columns, ...used.map(row => cellsOf(row, currency)), cellsOf(sumOf(stats), currency)]
  if (used.length === 0) return `${day(stats.since)} to ${day(stats.until)} (UTC)\n\nNothing was pulled in this time.\n`
  // Without prices the column would be empty.
  const shown = rows.map(row => (money ? row : row.toSpliced(columns.indexOf('money'), 1)))
  const widths = shown[0]?.map((_, column) => Math.max(...shown.map(row => row[column]?.length ?? 0))) ?? []
  const lines = shown.map(row =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  '),
  )
  const rule = '-'.repeat(lines[0]?.length ?? 0)
  return `${[`${day(stats.since)} to ${day(stats.until)} (UTC)`, '', lines[0], rule, ...lines.slice(1, -1), rule, lines.at(-1), '', moneyLine(stats)].join('\n')}\n`
}

function sumOf({
  upstreams,
  servedBytes,
  upstreamBytes,
  savedBytes,
  pullsAvoided,
  money,
}: SavingsStats): UpstreamStats {
  return {
    upstream: 'all',
    link: undefined,
    servedBytes,
    upstreamBytes,
    savedBytes,
    pullsAvoided,
    gross: money?.gross,
    requests: upstreams.reduce((sum, { requests }) => sum + requests, 0),
    hits: upstreams.reduce((sum, { hits }) => sum + hits, 0),
  }
}

function cellsOf(row: UpstreamStats, currency: string): readonly string[] {
  const { upstream, requests, hits, servedBytes, upstreamBytes, savedBytes, gross, pullsAvoided } = row
  return [
    upstream,
    String(requests),
    requests === 0 ? '-' : `${((100 * hits) / requests).toFixed(1)} %`,
    bytesText(servedBytes),
    bytesText(upstreamBytes),
    bytesText(savedBytes),
    gross === undefined ? '-' : moneyText(gross, currency),
    String(pullsAvoided),
  ]
}

function moneyLine({ money, currency }: SavingsStats): string {
  if (!money)
    return 'No link has a price. To see this in money too, give links a price under pricing (docs/savings.md).'
  const { gross, cost, net } = money
  return `${moneyText(gross, currency)} saved on the links - ${moneyText(cost, currency)} that the cache costs = ${moneyText(net, currency)}`
}

/** `1.50 GiB`, `-3.00 MiB`. */
export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, Math.abs(bytes))) / 10))
  return `${power === 0 ? bytes : (bytes / 1024 ** power).toFixed(2)} ${units[power]}`
}

/** `4.50 USD`; what is less than ten cents with four decimals, so that little is not nothing. */
export function moneyText(amount: number, currency: string): string {
  const isSmall = amount !== 0 && Math.abs(amount) < 0.1
  return `${amount.toFixed(isSmall ? 4 : 2)} ${currency}`
}

const day = (at: number): string => new Date(at).toISOString().slice(0, 16).replace('T', ' ')
