/** What commands see of the process, so that they can be tried without one. */
export type Terminal = {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  /** True when a person reads the error stream. */
  readonly interactive: boolean
  readonly out: (text: string) => void
  readonly err: (text: string) => void
}

export function systemTerminal(): Terminal {
  return {
    env: process.env,
    cwd: process.cwd(),
    interactive: process.stderr.isTTY,
    out: text => void process.stdout.write(text),
    err: text => void process.stderr.write(text),
  }
}
