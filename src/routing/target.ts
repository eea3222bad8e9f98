/** Which repository of which upstream a request means, and how the client spelled it. */
export type Target = {
  /** Canonical upstream name: `docker.io`. */
  readonly upstream: string
  /** Repository as upstream knows it: `library/alpine`. */
  readonly repository: string
  /** Repository as the client named it, without the upstream prefix: echoed in tags/list (P-74). */
  readonly requestedRepository: string
  /** Path up to and including the repository as the client sent it, for links: `/v2/docker.io/library/alpine` (P-76, P-110). */
  readonly basePath: string
  /** The `ns` that scoped the request, echoed as OCI-Namespace (P-25) and kept in links. */
  readonly ns: string | undefined
}

/** The same for every way to address one repository, for two repositories never: what caches are keyed by (T-24). */
export function targetKey(target: Pick<Target, 'upstream' | 'repository'>): string {
  return `${target.upstream}/${target.repository}`
}
