/** Opaque parameters of pagination are short; what is longer was not made by a registry. */
const maxExtraLength = 2048

/**
 * What upstream is asked: `own`, and of `extra` what registries name their next pages by (P-77). Sorted, so that the same question
 * has one key (T-24). `ns` is between the client and us (P-28); what `own` decides cannot be overridden, not by absence either.
 */
export function upstreamQuery(
  own: Readonly<Record<string, string | undefined>>,
  extra: URLSearchParams | undefined,
): URLSearchParams {
  const query = new URLSearchParams(
    Object.entries(own).filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
  if (extra && extra.toString().length <= maxExtraLength)
    for (const [name, value] of extra) if (name !== 'ns' && !Object.hasOwn(own, name)) query.append(name, value)
  query.sort()
  return query
}

export function withoutNamespace(query: URLSearchParams | undefined): URLSearchParams | undefined {
  if (query === undefined) return undefined
  const rest = new URLSearchParams(query)
  rest.delete('ns')
  return rest
}
