import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** What the documentation tells operators to give the user, as words for ACL SETUSER. */
export function documentedRules(): readonly string[] {
  const page = readFileSync(join(import.meta.dirname, '../../docs/redis.md'), 'utf8')
  const [, rules] = /^user layover on >a-long-password (.*)$/m.exec(page) ?? []
  if (rules === undefined) throw new Error('docs/redis.md has no ACL line')
  return rules.split(' ')
}
