import { spawnSync } from 'node:child_process'

/** What promtool has to say, nothing being good; undefined on a machine without it. Debian has it in the package prometheus. */
export function promtoolFaults(
  command: readonly string[],
  options: { readonly input?: string; readonly cwd?: string },
): readonly string[] | undefined {
  const { error, status, stdout, stderr } = spawnSync('promtool', command, { ...options, encoding: 'utf8' })
  if (error && 'code' in error && error.code === 'ENOENT') return undefined
  return status === 0 && stderr === '' ? [] : [`exit ${status}: ${stdout}${stderr}`]
}
