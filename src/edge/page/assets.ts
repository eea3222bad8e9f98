import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

/** A file that the pages use, under a name that changes with its bytes: it may be kept for ever. */
export type Asset = { readonly path: string; readonly type: string; readonly etag: string; readonly text: string }

export type Assets = {
  readonly style: Asset
  readonly script: Asset
  readonly icon: Asset
  /** By path. */
  readonly all: ReadonlyMap<string, Asset>
}

/** Reads the files beside this one. */
export function readAssets(): Assets {
  const style = read('page.css', 'text/css; charset=utf-8')
  const script = read('page.js', 'text/javascript; charset=utf-8')
  const icon = read('icon.svg', 'image/svg+xml')
  return { style, script, icon, all: new Map([style, script, icon].map(asset => [asset.path, asset])) }
}

function read(name: string, type: string): Asset {
  const text = readFileSync(new URL(`assets/${name}`, import.meta.url), 'utf8')
  const hash = createHash('sha256').update(text).digest('base64url').slice(0, 16)
  return { path: `/assets/${hash}-${name}`, type, etag: `"${hash}"`, text }
}
