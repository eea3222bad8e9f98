import { type ConfigInput, readConfig, type LoadedConfig } from '../../src/config/load.ts'
import { ConfigError, describeProblem } from '../../src/config/problem.ts'

export type Files = Readonly<Record<string, string>>

/** Reads a configuration from files that exist only here. The file `/etc/layover/layover.yaml` is given by `--config`. */
export function read(
  yaml: string,
  options: Omit<ConfigInput, 'file' | 'readFile'> & { files?: Files } = {},
): LoadedConfig {
  const { files, ...rest } = options
  return readConfig({
    cwd: '/srv',
    file: '/etc/layover/layover.yaml',
    readFile: readFrom({ '/etc/layover/layover.yaml': yaml, ...files }),
    ...rest,
  })
}

export function readFrom(files: Files): (path: string) => string {
  return path => {
    const text = files[path]
    if (text === undefined) throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' })
    return text
  }
}

/** The lines that a configuration fails with; `layover.yaml` stands for the path of the file. */
export function problemsOf(yaml: string, options: Parameters<typeof read>[1] = {}): string[] {
  try {
    read(yaml, options)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems.map(describeProblem).map(line => line.replaceAll('/etc/layover/', ''))
  }
  return []
}
