// A resource scope is `type:name:actions`; the name may hold one more colon, for a port.   distribution docs, spec/auth/scope
const repositoryScope = /^repository:([^\s]+):([^:\s]*)$/
const opaqueScope = /^[A-Za-z0-9._/-]{1,64}$/
const wanted: ReadonlySet<string> = new Set(['pull', 'metadata_read'])

/** What Layover asks for by itself: reading one repository. */
export function pullScope(repository: string): string {
  return `repository:${repository}:pull`
}

/**
 * The scopes to ask a token for: those of the challenge that name this repository, reduced to reading, and single words such as
 * ECR Public's `aws`. Anything else in a challenge is ignored; when nothing is left, the own scope (T-15, P-92). Sorted.
 */
export function grantedScopes(repository: string, challenged: string | undefined): readonly string[] {
  const kept = (challenged ?? '').split(' ').flatMap(scope => {
    if (opaqueScope.test(scope)) return [scope]
    const [, name, actions = ''] = repositoryScope.exec(scope) ?? []
    const reading = actions.split(',').filter(action => wanted.has(action))
    return name === repository && reading.length > 0 ? [`repository:${name}:${reading.join(',')}`] : []
  })
  return kept.length === 0 ? [pullScope(repository)] : [...new Set(kept)].sort()
}
