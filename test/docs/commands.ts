import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../../', import.meta.url))

export type Command = { readonly page: string; readonly text: string }

/** Every command of every page, as one types it: without prompt, comment and output, joined lines joined, `a && b` as two. */
export function commandsOfPages(): readonly Command[] {
  const pages = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.md'], {
    cwd: root,
    encoding: 'utf8',
  })
  return pages
    .split('\n')
    .filter(page => page !== '')
    .flatMap(page => commandsOf(readFileSync(`${root}${page}`, 'utf8')).map(text => ({ page, text })))
}

/** The commands in the shell blocks of one page. In a block with prompts, what has none is output. */
export function commandsOf(markdown: string): readonly string[] {
  return [...markdown.matchAll(/^```(?:sh|console)\n(.*?)^```$/gms)].flatMap(([, block = '']) => commandsOfBlock(block))
}

function commandsOfBlock(block: string): readonly string[] {
  const lines = block
    .replaceAll(/ *\\\n\s*/g, ' ')
    .split('\n')
    .filter(line => line.trim() !== '')
  const prompted = lines.some(line => line.startsWith('$ '))
  return lines
    .filter(line => !prompted || line.startsWith('$ '))
    .map(line =>
      line
        .replace(/^\$ /, '')
        .replace(/(^|\s+)#.*$/, '')
        .trim(),
    )
    .filter(line => line !== '' && !/^[A-Z_]+=\S*$/.test(line))
    .flatMap(line => line.split(' && '))
}

/** The words of a simple command; quotes hold words together. Throws for what only a shell could tell. */
export function wordsOf(command: string): readonly string[] {
  const words = command.match(/"[^"]*"|'[^']*'|[^\s"']+/g) ?? []
  if (/[|<>;`]/.test(command.replaceAll(/"[^"]*"|'[^']*'/g, ''))) throw new Error(`not a simple command: ${command}`)
  return words.map(word => word.replaceAll(/^["']|["']$/g, ''))
}
