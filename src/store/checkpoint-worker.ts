import { DatabaseSync } from 'node:sqlite'
import { parentPort, workerData } from 'node:worker_threads'
import {
  asked,
  type CheckpointAnswer,
  type CheckpointOrder,
  type CheckpointWork,
  idle,
  running,
} from './checkpoint-work.ts'

/** The thread on which the index is checkpointed: its fsyncs may take long on a busy disk, and requests must not wait for them. */

// Only `Checkpoints` starts this file.
const { database, state }: CheckpointWork = workerData

parentPort?.on('message', (order: CheckpointOrder) => {
  if (order === 'end') parentPort?.close()
  else if (Atomics.compareExchange(state, 0, asked, running) === asked) perform()
})

function perform(): void {
  const answer = outcome()
  Atomics.store(state, 0, idle)
  Atomics.notify(state, 0)
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(answer)
}

function outcome(): CheckpointAnswer {
  try {
    return { failure: undefined, complete: checkpoint() }
  } catch (error) {
    return { failure: error instanceof Error ? error.message : String(error), complete: false }
  }
}

/** Opens the file anew each time: the one that is there now may not be the one of the last time. */
function checkpoint(): boolean {
  const connection = new DatabaseSync(new URL(database), { timeout: 1000 })
  try {
    // PASSIVE never makes the writer wait.
    const row = connection.prepare('PRAGMA wal_checkpoint(PASSIVE)').get()
    return row?.busy === 0 && row.log === row.checkpointed
  } finally {
    connection.close()
  }
}
