const millisecondsOf = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const grammar = /^(\d{1,9})(ms|s|m|h|d)$/

export const durationPattern = '^[0-9]{1,9}(ms|s|m|h|d)$'

/** Parses `500ms`, `30s`, `5m`, `24h`, `7d`. Gives milliseconds, or undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  const [, amount, unit] = grammar.exec(text) ?? []
  return amount === undefined ? undefined : Number(amount) * millisecondsOf[unit as keyof typeof millisecondsOf]
}

/** The shortest exact spelling that {@link parseDuration} reads back: 300000 → `5m`. */
export function formatDuration(milliseconds: number): string {
  for (const unit of ['d', 'h', 'm', 's'] as const)
    if (milliseconds > 0 && milliseconds % millisecondsOf[unit] === 0)
      return `${milliseconds / millisecondsOf[unit]}${unit}`
  return milliseconds === 0 ? '0s' : `${milliseconds}ms`
}
