import { DatabaseSync } from 'node:sqlite'
import { parentPort, workerData } from 'node:worker_threads'
import {
  type CheckpointAnswer,
  type CheckpointOrder,
  type CheckpointWork,
  idle,
  running,
} from '../../src/store/checkpoint-work.ts'

/** Says `begun` and keeps the database open for 300 ms before it makes the checkpoint. */
const { database, state }: CheckpointWork = workerData

parentPort?.on('message', (order: CheckpointOrder) => {
  if (order === 'end') return parentPort?.close()
  Atomics.store(state, 0, running)
  const connection = new DatabaseSync(new URL(database))
  connection.prepare('SELECT count(*) FROM sqlite_schema').get()
  const answer: CheckpointAnswer = { failure: 'begun', complete: false }
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(answer)
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300)
  connection.exec('PRAGMA wal_checkpoint(PASSIVE)')
  connection.close()
  Atomics.store(state, 0, idle)
  Atomics.notify(state, 0)
})
