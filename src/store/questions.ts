/** What upstream is asked by name: a tag of a repository, or a manifest by its digest. */
export type Question = { readonly upstream: string; readonly repository: string; readonly reference: string }

/**
 * Which questions to upstream are under way at some replica, so that the others learn from its answer instead of asking too: limits of registries are
 * per site. It saves requests and nothing else; answers are read from the records, where they are verified. None of it rejects.
 */
export interface Questions {
  /** Undefined: it cannot be told; ask. */
  take(question: Question): Promise<TakenQuestion | undefined>
}

/**
 * - `yours`: ask upstream, then say how it went, also after a failure
 * - `asked`: another replica asks. `absent`: it was told that there is no such thing, which only those learn who wait for it, so that nobody can
 *   make an absence last (P-100)
 */
export type TakenQuestion =
  | { readonly state: 'yours'; answered(answer: 'over' | 'absent'): Promise<void> }
  | { readonly state: 'asked'; look(): Promise<'asked' | 'over' | 'absent'> }

/** How long a question counts as being asked: longer than anybody waits for its answer. */
export const questionTtlMs = 5_000
/** How long those who wait can find out that there is none. */
export const toldAbsentMs = 1_000
