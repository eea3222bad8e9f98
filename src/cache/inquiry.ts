import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../clock.ts'
import type { Question, Questions } from '../store/questions.ts'
import { UpstreamError } from '../upstream/upstream.ts'

/** One question to upstream, as one replica of several would like to have it answered. */
export type Inquiry<T> = {
  readonly question: Question
  /** Ends the waiting for another replica. */
  readonly signal: AbortSignal
  /** What another replica's answer left in the records; undefined: nothing of use. */
  readonly look: () => Promise<T | undefined>
  /** Puts the question and keeps the answer. */
  readonly ask: () => Promise<T>
}

/**
 * Asks upstream once for all replicas: who comes first asks, the others wait a moment for its answer to be in the records. Where it does not
 * come in time, or nobody can tell, everybody asks. That upstream has no such thing is told too, and throws as upstream's own word does.
 */
export type Inquire = <T>(inquiry: Inquiry<T>) => Promise<T>

/** Longer than most registries take, and the most that a replica that dies while it asks costs the others. */
const longestWaitMs = 1_500
const firstPauseMs = 10
const longestPauseMs = 100

/** `questions`: undefined where there are no other replicas. */
export function createInquire(questions: Questions | undefined, clock: Clock): Inquire {
  return async ({ question, signal, look, ask }) => {
    const taken = await questions?.take(question)
    if (taken === undefined) return ask()
    if (taken.state === 'yours') {
      let answer: 'over' | 'absent' = 'over'
      try {
        // Another replica may have had its answer between our look at the records and this.
        return (await look()) ?? (await ask())
      } catch (error) {
        if (error instanceof UpstreamError && error.failure === 'notFound') answer = 'absent'
        throw error
      } finally {
        // Who asked here does not wait for the others to be told; it never rejects.
        void taken.answered(answer)
      }
    }
    if ((await untilAnswered(() => taken.look(), signal, clock)) === 'absent') throw absent(question)
    return (await look()) ?? ask()
  }
}

async function untilAnswered(
  look: () => Promise<'asked' | 'over' | 'absent'>,
  signal: AbortSignal,
  clock: Clock,
): Promise<'asked' | 'over' | 'absent'> {
  const deadline = clock.monotonic() + longestWaitMs
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
    await sleep(pauseMs, undefined, { signal })
    const state = await look()
    if (state !== 'asked' || clock.monotonic() >= deadline) return state
  }
}

function absent({ upstream, reference }: Question): UpstreamError {
  const message = `${upstream} told another replica just now that it does not have ${reference}`
  return new UpstreamError('notFound', upstream, 'not_found', message)
}
