import { read } from './settings.ts'

export type Copy = { readonly from: string | undefined; readonly sources: readonly string[]; readonly to: string }

/** What the last stage of a Dockerfile says, as far as it is used here. */
export type Dockerfile = {
  /** By stage, in order; the last one is the image. */
  readonly copies: readonly (readonly Copy[])[]
  readonly runs: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly workdir: string
  readonly user: string
  readonly entrypoint: readonly string[]
  readonly command: readonly string[]
  readonly healthcheck: readonly string[]
}

export function readDockerfile(text: string): Dockerfile {
  const lines = text
    .replace(/^\s*#.*\n/gm, '')
    .replaceAll(/\\\n\s*/g, ' ')
    .split('\n')
  const stages = text.split(/^FROM /m).slice(1)
  const after = (word: string): string[] =>
    lines.filter(line => line.startsWith(`${word} `)).map(line => line.slice(word.length + 1))
  const last = (word: string): string => after(word).at(-1) ?? ''
  const list = (json: string): string[] => JSON.parse(json) as string[]
  return {
    copies: stages.map(copiesOf),
    runs: after('RUN'),
    env: Object.fromEntries(
      [...last('ENV').matchAll(/(\w+)=(\S+)/g)].map(([, name = '', value = '']) => [name, value]),
    ),
    workdir: last('WORKDIR'),
    user: last('USER'),
    entrypoint: list(last('ENTRYPOINT')),
    command: list(last('CMD')),
    healthcheck: list(/ CMD (\[.*\])$/.exec(last('HEALTHCHECK'))?.[1] ?? '[]'),
  }
}

function copiesOf(stage: string): Copy[] {
  return [...stage.matchAll(/^COPY ((?:--\S+ )*)(.+) (\S+)$/gm)].map(([, flags = '', sources = '', to = '']) => ({
    from: /--from=(\S+)/.exec(flags)?.[1],
    sources: sources.split(' '),
    to,
  }))
}

/** The names that .dockerignore lets into the build context: it refuses everything and names exceptions. */
export function buildContext(): string[] {
  const lines = read('.dockerignore')
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#'))
  if (lines[0] !== '*') throw new Error('.dockerignore starts with something else than *')
  return lines.slice(1).map(line => {
    if (!line.startsWith('!')) throw new Error(`.dockerignore: ${line} is no exception`)
    return line.slice(1)
  })
}
