import { Document, isScalar } from 'yaml'
import { redactUrl } from '../log/redact.ts'
import { distributedSections } from './distributed.ts'
import { allKeys, type Key } from './keys.ts'
import type { LoadedConfig } from './load.ts'
import { describeOrigin, type Path } from './settings.ts'

const secretKeys = new Set(['password', 'sentinelPassword'])
const proxyKeys = new Set(['proxy'])

/** The effective configuration in file form, with secrets as `***`. What is no default carries where it was set. */
export function describeConfig({ config, settings, file }: LoadedConfig): string {
  const document = new Document({})
  document.commentBefore = ` The configuration in effect${file === undefined ? '' : `, from ${file}`}. What has no comment is a default.`
  const names = config.upstreams.map(({ name }) => name)
  for (const key of allKeys()) {
    const [section = ''] = key.path
    // Their defaults would bring them into being when the output is read again.
    if (distributedSections.includes(section) && settings.get([section]) === undefined) continue
    const paths = key.path[1] === '*' ? names.map(name => ['upstreams', name].concat(key.path.slice(2))) : [key.path]
    for (const path of paths) {
      const value = shown(key, settings.get(path) ?? key.default ?? builtDefault(path))
      if (value === undefined) continue
      document.setIn(path, document.createNode(value))
      const origin = settings.originOf(path)
      if (origin !== undefined) comment(document, path, describeOrigin(origin))
    }
  }
  return document.toString({ lineWidth: 0 })
}

/** What depends on the name of the upstream, so that the schema cannot say it. */
function builtDefault(path: Path): unknown {
  return path[0] === 'upstreams' && path[2] === 'url' ? `https://${path[1]}` : undefined
}

function shown(key: Key, value: unknown): unknown {
  const last = key.path.at(-1) ?? ''
  if (value === undefined) return undefined
  if (secretKeys.has(last)) return '***'
  if (proxyKeys.has(last)) return typeof value === 'string' ? redactUrl(value) : '***'
  return value
}

function comment(document: Document, path: Path, text: string): void {
  const node: unknown = document.getIn(path, true)
  if (isScalar(node)) node.comment = ` ${text}`
  else if (typeof node === 'object' && node !== null) (node as { commentBefore?: string }).commentBefore = ` ${text}`
}
