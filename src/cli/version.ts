import { readFileSync } from 'node:fs'

/** The version in package.json beside the sources. */
export function readVersion(): string {
  const file: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  return typeof file === 'object' && file !== null && 'version' in file ? String(file.version) : 'unknown'
}

/** `layover 0.1.0 (node v26.10.0, linux x64)`, or the same as one JSON object. */
export function describeVersion(options: { readonly json?: boolean }): string {
  const { version: node, platform, arch } = process
  const version = readVersion()
  return options.json === true
    ? JSON.stringify({ version, node, platform, arch })
    : `layover ${version} (node ${node}, ${platform} ${arch})`
}
