import { nameInvalid } from './errors.ts'

/** A repository name that was parsed: `library/alpine`. Safe in a key and in a path of upstream. */
export type Repository = string & { readonly __repository: true }

/** Host, slash and name together must fit too; whoever knows the host checks that (P-8). */
export const maxNameLength = 255

// The grammar of distribution-spec "Pulling manifests". A separator always ends before the next [a-z0-9], so no input is read twice (T-52).
const grammar = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/

/**
 * Parses a repository name. Throws NAME_INVALID (400) when it does not follow the grammar or is longer than 255 characters.
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
 */
export function parseRepository(text: string): Repository {
  if (isRepository(text)) return text
  if (text.length > maxNameLength) throw nameInvalid(text, `it is longer than ${maxNameLength} characters`)
  throw nameInvalid(text, 'expected lower-case letters and digits, separated by one of . _ __ - or /')
}

/** True when {@link parseRepository} accepts `text`. */
export function isRepository(text: string): text is Repository {
  return text.length <= maxNameLength && grammar.test(text)
}
