import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Config } from '../../src/config/config.ts'
import { loadConfig } from '../../src/config/load.ts'

export const repository = fileURLToPath(new URL('../../', import.meta.url))
export const read = (path: string): string => readFileSync(`${repository}${path}`, 'utf8')

/** The configuration that a process would have with these variables and no file; others than LAYOVER_… are passed over. */
export function configOf(env: Readonly<Record<string, string>>, files: Readonly<Record<string, string>> = {}): Config {
  const ours = Object.entries(env).filter(([name]) => name.startsWith('LAYOVER_'))
  return loadConfig({
    env: Object.fromEntries(ours),
    cwd: '/',
    readFile: path => {
      const text = files[path]
      if (text === undefined) throw Object.assign(new Error(`no ${path}`), { code: 'ENOENT' })
      return text
    },
  })
}
