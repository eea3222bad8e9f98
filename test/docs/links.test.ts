import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { expect, test } from 'vitest'
import { root } from './commands.ts'

type Link = { readonly page: string; readonly to: string }

const list = (...patterns: string[]): readonly string[] =>
  execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', ...patterns], {
    cwd: root,
    encoding: 'utf8',
  })
    .split('\n')
    .filter(file => file !== '' && existsSync(join(root, file)))

const files = list()
const pages = files.filter(file => file.endsWith('.md'))
const texts = new Map(pages.map(page => [page, readFileSync(join(root, page), 'utf8')]))

/** What is no code: links and headings are looked for there alone. */
function proseOf(markdown: string): string {
  return markdown.replaceAll(/^(`{3,}|~{3,}).*?^\1[^\n]*$/gms, '')
}

/** Where the links and pictures of a page lead. */
function linksOf(markdown: string): readonly string[] {
  const prose = proseOf(markdown).replaceAll(/`[^`\n]*`/g, '')
  const inline = [...prose.matchAll(/\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)/g)]
  const defined = [...prose.matchAll(/^ {0,3}\[[^\]]+\]:\s*<?([^\s>]+)/gm)]
  const tags = [...prose.matchAll(/<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)="([^"]+)"/g)]
  return [...inline, ...defined, ...tags].map(([, to = '']) => to)
}

/** The anchors of a page, made of its headings as GitHub makes them. */
function anchorsOf(markdown: string): ReadonlySet<string> {
  const seen = new Map<string, number>()
  const anchors = new Set<string>()
  for (const [, heading = ''] of proseOf(markdown).matchAll(/^#{1,6}\s+(.+?)\s*#*$/gm)) {
    const slug = slugOf(heading)
    const times = seen.get(slug) ?? 0
    seen.set(slug, times + 1)
    anchors.add(times === 0 ? slug : `${slug}-${times}`)
  }
  return anchors
}

function slugOf(heading: string): string {
  return heading
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\p{M}\p{Pc} -]/gu, '')
    .replaceAll(' ', '-')
}

/** Why a link leads nowhere; undefined: it does not. */
function problemOf({ page, to }: Link): string | undefined {
  const [path = '', anchor] = decodeURI(to).split('#')
  const target = path === '' ? page : relative(root, join(root, dirname(page), path))
  // Committed, not only there: a directory is what lies in it.
  const isThere = files.some(file => file === target || file.startsWith(`${target.replace(/\/$/, '')}/`))
  if (!isThere) return 'is not there'
  if (anchor === undefined) return undefined
  const text = texts.get(target)
  if (text === undefined) return statSync(join(root, target)).isDirectory() ? 'is a directory' : 'is no page'
  return anchorsOf(text).has(anchor) ? undefined : 'has no such heading'
}

const isElsewhere = (to: string): boolean => /^[a-z][a-z0-9+.-]*:/i.test(to)

test('every relative link, anchor and picture of every page leads somewhere', () => {
  const links = [...texts].flatMap(([page, text]) => linksOf(text).map(to => ({ page, to })))
  const near = links.filter(({ to }) => !isElsewhere(to))
  expect(near.length).toBeGreaterThan(100)
  const dead = near.flatMap(({ page, to }) => {
    const problem = problemOf({ page, to })
    return problem === undefined ? [] : [`${page}: ${to} ${problem}`]
  })
  expect(dead).toEqual([])
})

test('every picture and every page is reached from another page', () => {
  const reached = new Set(
    [...texts].flatMap(([page, text]) =>
      linksOf(text)
        .filter(to => !isElsewhere(to))
        .map(to => relative(root, join(root, dirname(page), decodeURI(to).split('#')[0] ?? ''))),
    ),
  )
  const lonely = files
    .filter(file => /\.(md|png|svg)$/.test(file) && (file.startsWith('docs/') || file.startsWith('deploy/')))
    .filter(file => !reached.has(file) && !reached.has(file.replace(/\/README\.md$/, '')))
  expect(lonely).toEqual([])
})

test('links and anchors are found as GitHub does', () => {
  const page = '[a](b.md#c-d) ![e](f.png "g") `[h](i)`\n\n```md\n[j](k)\n# l\n```\n\n[m]: n.md\n<img src="o.svg">\n'
  expect(linksOf(page)).toEqual(['b.md#c-d', 'f.png', 'n.md', 'o.svg'])
  expect([...anchorsOf('# Who asks, and `what`?\n## [A](b) & c\n## A  c\n## x\n## x\n```\n# y\n```\n')]).toEqual([
    'who-asks-and-what',
    'a--c',
    'a--c-1',
    'x',
    'x-1',
  ])
})
