import type { CredentialsConfig } from './config.ts'
import type { Environment } from './environment.ts'
import type { Report } from './checks.ts'
import type { Path } from './settings.ts'
import type { UpstreamInput } from './schema.ts'

/** What reading the files and variables that a configuration names needs. */
export type Surroundings = {
  readonly environment: Environment
  /** Gives the text of a file; throws the system's error. */
  readonly readFile: (path: string) => string
  /** The absolute path of what was written at this place. */
  readonly resolvePath: (path: Path, written: string) => string
  readonly report: Report
}

/**
 * Reads a file that the configuration names. Gives its absolute path and text; a file that cannot be read, or that `check` finds wrong,
 * is reported and gives undefined.
 */
export function readNamedFile(
  surroundings: Surroundings,
  at: Path,
  written: string,
  check: (text: string) => string | undefined,
): { readonly path: string; readonly text: string } | undefined {
  const path = surroundings.resolvePath(at, written)
  try {
    const text = surroundings.readFile(path)
    const problem = check(text)
    if (problem === undefined) return { path, text }
    surroundings.report(at, `${path}: ${problem}`)
  } catch (error) {
    surroundings.report(at, `cannot read ${path}: ${describeSystemError(error)}`)
  }
  return undefined
}

export function readCa(surroundings: Surroundings, at: Path, written: string | undefined): string | undefined {
  if (written === undefined) return undefined
  const pem = (text: string): string | undefined =>
    text.includes('-----BEGIN CERTIFICATE-----') ? undefined : 'holds no PEM certificate (-----BEGIN CERTIFICATE-----)'
  return readNamedFile(surroundings, at, written, pem)?.text
}

/** The path of a docker config.json that is there and is JSON. Its entries are looked up when they are needed. */
export function readDockerConfig(
  surroundings: Surroundings,
  at: Path,
  written: string | undefined,
): CredentialsConfig | undefined {
  if (written === undefined) return undefined
  const file = readNamedFile(surroundings, at, written, text =>
    isJsonObject(text) ? undefined : 'is not a JSON object',
  )
  return file && { kind: 'dockerConfig', path: file.path }
}

/** The credentials of one upstream, or undefined when it has none (or none that can be read, which was reported). */
export function readCredentials(
  surroundings: Surroundings,
  at: Path,
  upstream: UpstreamInput,
): CredentialsConfig | undefined {
  const { username, password, passwordFile, passwordEnv, dockerConfig } = upstream
  if (dockerConfig !== undefined) return readDockerConfig(surroundings, [...at, 'dockerConfig'], dockerConfig)
  if (username === undefined) return undefined
  if (password !== undefined) return { kind: 'password', username, password }
  if (passwordEnv !== undefined)
    return readPasswordVariable(surroundings, [...at, 'passwordEnv'], username, passwordEnv)
  if (passwordFile === undefined) return undefined
  const notEmpty = (text: string): string | undefined => (text.trim() === '' ? 'is empty' : undefined)
  const file = readNamedFile(surroundings, [...at, 'passwordFile'], passwordFile, notEmpty)
  return file && { kind: 'passwordFile', username, path: file.path }
}

function readPasswordVariable(
  { environment, report }: Surroundings,
  at: Path,
  username: string,
  variable: string,
): CredentialsConfig | undefined {
  const password = environment[variable]
  if (password !== undefined && password !== '') return { kind: 'password', username, password }
  // The name is shown only when it looks like one: people write the password itself here.
  const name = /^[A-Z][A-Z0-9_]*$/.test(variable) ? `the variable ${variable}` : 'the variable of that name'
  report(at, `${name} is not set`)
  return undefined
}

function isJsonObject(text: string): boolean {
  try {
    const parsed: unknown = JSON.parse(text)
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)
  } catch {
    return false
  }
}

/** `no such file`, `permission denied`, or the system's own word. */
export function describeSystemError(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : undefined
  const known: Readonly<Record<string, string>> = {
    ENOENT: 'no such file',
    ENOTDIR: 'no such file',
    EACCES: 'permission denied',
    EISDIR: 'it is a directory',
  }
  return code === undefined ? String(error instanceof Error ? error.message : error) : (known[code] ?? code)
}
