import { version } from '../version.ts'

/** `layover 0.1.0 (node v26.10.0, linux x64)`, or the same as one JSON object. */
export function describeVersion(options: { readonly json?: boolean }): string {
  const { version: node, platform, arch } = process
  return options.json === true
    ? JSON.stringify({ version, node, platform, arch })
    : `layover ${version} (node ${node}, ${platform} ${arch})`
}
