/** One thing that is wrong with the configuration: where (file:line:column, a variable or a flag) and what. */
export type Problem = { readonly where: string; readonly message: string }

/** Every problem that was found, together. `message` has one line per problem; none of them holds a secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[], options: { cause?: unknown } = {}) {
    super(problems.map(describeProblem).join('\n'), options)
    this.problems = problems
  }
}

/** `layover.yaml:8:13: upstreams.quay.io.tagTtl: expected …` */
export function describeProblem(problem: Problem): string {
  return `${problem.where}: ${problem.message}`
}

/** How a value that was not understood is shown in a message: short, on one line, never for keys that hold secrets. */
export function shownValue(value: unknown): string {
  if (value === null || value === undefined) return 'nothing'
  if (typeof value === 'string')
    return JSON.stringify(withoutUserinfo(value.length > 60 ? `${value.slice(0, 60)}…` : value))
  if (Array.isArray(value)) return 'a list'
  return typeof value === 'object' ? 'a mapping' : `${value as number | boolean | bigint}`
}

/** What stands before an @ is a user name and perhaps a password, wherever somebody put it. */
export const withoutUserinfo = (text: string): string => text.replaceAll(/[^\s/@]+@/g, '***@')
