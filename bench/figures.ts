import { readdir, readFile } from 'node:fs/promises'

/** Figures about processes and samples. */

export const MiB = 1024 * 1024
export const GiB = 1024 * MiB

/** Run by run: these machines change their pace from one minute to the next, and what ran side by side is compared. */
export function ratios(ours: readonly number[], theirs: readonly number[]): readonly number[] {
  return ours.map((figure, run) => figure / (theirs[run] ?? Number.NaN))
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  const [low, high] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]]
  if (low === undefined || high === undefined) throw new RangeError('the median of nothing')
  return (low + high) / 2
}

// Linux counts CPU time for users in hundredths of a second on every platform.  proc(5), sysconf(_SC_CLK_TCK)
const ticksPerSecond = 100

/** User and system CPU seconds that a process and its living children have used so far. */
export async function cpuSeconds(pid: number): Promise<number> {
  const own = await ticksOf(pid)
  const children = await childrenOf(pid)
  const theirs = await Promise.all(children.map(ticksOf))
  return [own, ...theirs].reduce((sum, ticks) => sum + ticks, 0) / ticksPerSecond
}

async function ticksOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  // The name in parentheses may hold spaces; utime and stime are fields 14 and 15, counted from the process id.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}

async function childrenOf(pid: number): Promise<readonly number[]> {
  const tasks = await readdir(`/proc/${pid}/task`)
  const lists = await Promise.all(tasks.map(task => readFile(`/proc/${pid}/task/${task}/children`, 'utf8')))
  return lists.flatMap(list => list.split(' ').filter(Boolean).map(Number))
}

/** The most memory that was resident at once, in bytes, since the process began. */
export async function peakResidentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) * 1024
}
