import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { describe, expect, it } from 'vitest'

/** Top to bottom: a room may import from the lines above its own, and from itself. */
const order: readonly (readonly string[])[] = [
  ['clock', 'version'],
  ['oci'],
  ['log'],
  ['config'],
  ['tracing'],
  ['routing', 'policy', 'mirror'],
  ['upstream', 'store'],
  ['cache'],
  ['metrics'],
  ['admin'],
  ['edge'],
  ['compose'],
  ['cli'],
  ['main'],
]

type Import = { readonly from: string; readonly to: string }

const root = join(import.meta.dirname, '..', 'src')
const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(file => file.endsWith('.ts'))
const imports = files.flatMap(file => importsOf(file, readFileSync(join(root, file), 'utf8')))
const inner = imports.filter(({ to }) => files.includes(to))

function importsOf(from: string, source: string): Import[] {
  const statements = source.matchAll(/^(?:import|export)\s(?:[^'";=]*?\sfrom\s+)?['"]([^'"]+)['"]/gm)
  const calls = source.matchAll(/\bimport\(\s*['"]([^'"]+)['"]/g)
  return [...statements, ...calls].map(([, specifier = '']) => ({
    from,
    to: specifier.startsWith('.') ? relative(root, join(root, dirname(from), specifier)) : specifier,
  }))
}

function roomOf(file: string): string {
  return file.includes('/') ? file.slice(0, file.indexOf('/')) : file.replace(/\.ts$/, '')
}

function rankOf(file: string): number {
  return order.findIndex(rooms => rooms.includes(roomOf(file)))
}

function wrongWay({ from, to }: Import): boolean {
  return roomOf(from) !== roomOf(to) && rankOf(to) >= rankOf(from)
}

/** The files of a cycle, in order; undefined when there is none. */
function findCycle(edges: readonly Import[]): readonly string[] | undefined {
  const done = new Set<string>()
  function visit(file: string, trail: readonly string[]): readonly string[] | undefined {
    if (trail.includes(file)) return [...trail.slice(trail.indexOf(file)), file]
    if (done.has(file)) return undefined
    for (const { to } of edges.filter(edge => edge.from === file)) {
      const cycle = visit(to, [...trail, file])
      if (cycle) return cycle
    }
    done.add(file)
    return undefined
  }
  for (const { from } of edges) {
    const cycle = visit(from, [])
    if (cycle) return cycle
  }
  return undefined
}

const importersOf = (pattern: RegExp): string[] => [
  ...new Set(imports.filter(({ to }) => pattern.test(to)).map(({ from }) => roomOf(from))),
]

describe('rooms', () => {
  it('reads every form of import', () => {
    const source = [
      "import type { A } from '../oci/digest.ts'",
      "import {\n  b,\n  c,\n} from './b.ts'",
      "import 'node:fs'",
      "export type { D } from './d.ts'",
      "const e = await import('./e.ts')",
      "export const text = 'not an import'",
    ].join('\n')
    expect(importsOf('cache/a.ts', source).map(({ to }) => to)).toEqual([
      'oci/digest.ts',
      'cache/b.ts',
      'node:fs',
      'cache/d.ts',
      'cache/e.ts',
    ])
  })

  it('tells a wrong direction and a cycle when there is one', () => {
    expect(wrongWay({ from: 'oci/a.ts', to: 'cache/b.ts' })).toBe(true)
    expect(wrongWay({ from: 'store/a.ts', to: 'upstream/b.ts' })).toBe(true)
    expect(wrongWay({ from: 'cache/a.ts', to: 'oci/b.ts' })).toBe(false)
    const circle = ['a', 'b', 'c', 'a'].flatMap((to, index, all) => (index ? [{ from: all[index - 1] ?? '', to }] : []))
    expect(findCycle(circle)).toEqual(['a', 'b', 'c', 'a'])
  })

  it('finds the source', () => {
    expect(inner.length).toBeGreaterThan(10)
  })

  it('all have a place in the order', () => {
    expect(files.filter(file => rankOf(file) < 0)).toEqual([])
  })

  it('import only from the rooms above them', () => {
    expect(inner.filter(wrongWay)).toEqual([])
  })

  it('import only files that exist', () => {
    expect(imports.filter(({ to }) => to.endsWith('.ts') && !files.includes(to))).toEqual([])
  })

  it('hold no import cycles between files', () => {
    expect(findCycle(inner)).toBeUndefined()
  })

  it('know Hono in edge only', () => {
    expect(importersOf(/^(?:hono|@hono)(?:\/|$)/).filter(room => room !== 'edge')).toEqual([])
  })

  it('know node:sqlite in store only', () => {
    expect(importersOf(/^node:sqlite$/).filter(room => room !== 'store')).toEqual([])
  })
})
