/** No checkpoint is wanted. */
export const idle = 0
/** A checkpoint was asked for and has not begun: whoever asked may still take it back. */
export const asked = 1
/** The worker has the database open. */
export const running = 2

/** What the worker is given when it starts. */
export type CheckpointWork = {
  /** `file:` URL of the database that never creates one. */
  readonly database: string
  /** One shared cell: `idle`, `asked` or `running`. */
  readonly state: Int32Array<SharedArrayBuffer>
}

export type CheckpointOrder = 'checkpoint' | 'end'

/** What the worker says after each checkpoint. */
export type CheckpointAnswer = {
  readonly failure: string | undefined
  /** All that was in the log when it began is in the database. */
  readonly complete: boolean
}
