import type { Question, Questions, TakenQuestion } from '../../src/store/questions.ts'

type Asked = { state: 'asked' | 'over' | 'absent' }

/** Questions that several replicas of one test share. */
export class SharedQuestions implements Questions {
  readonly #asked = new Map<string, Asked>()
  /** References in the order in which they were taken, with who waits in between: `3.20`, `3.20 waits`. */
  readonly log: string[] = []
  /** Set: nobody can tell. */
  isAway = false

  async take({ upstream, repository, reference }: Question): Promise<TakenQuestion | undefined> {
    if (this.isAway) return undefined
    const key = `${upstream} ${repository} ${reference}`
    const running = this.#asked.get(key)
    this.log.push(running ? `${reference} waits` : reference)
    if (running) return { state: 'asked', look: async () => running.state }
    const asked: Asked = { state: 'asked' }
    this.#asked.set(key, asked)
    return {
      state: 'yours',
      answered: async answer => {
        asked.state = answer
        this.#asked.delete(key)
      },
    }
  }
}
