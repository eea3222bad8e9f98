import type { CheckContext } from './check.ts'

/** Further apart than this is told: tokens, signatures of S3 and those between replicas depend on the time. */
const allowedSkewMs = 30_000

/** Warns when the other side's Date header and our clock are more than 30 s apart. No header, or none that is a date: says nothing. */
export function judgeClock(
  context: Pick<CheckContext, 'warn'>,
  { who, date, now }: { readonly who: string; readonly date: string | undefined; readonly now: number },
): void {
  const theirs = date === undefined ? Number.NaN : Date.parse(date)
  if (Number.isNaN(theirs) || Math.abs(theirs - now) <= allowedSkewMs) return
  const seconds = Math.round(Math.abs(theirs - now) / 1000)
  context.warn(
    `the clock of this machine is ${seconds} s ${theirs > now ? 'behind' : 'ahead of'} that of ${who}`,
    'synchronise it (NTP): tokens and signatures depend on the time',
  )
}
