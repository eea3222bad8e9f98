import { openSync, writeSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { Sqlite } from '../../src/store/sqlite.ts'

/**
 * A process to be killed, or one that ends without closing anything: writes `rounds` documents, with a checkpoint after every few,
 * and adds to a file how many are written. `node checkpoint-loop.ts <index> <rounds> <said>`
 */
const [, , path = '', rounds = '', said = ''] = process.argv
const output = openSync(said, 'a')

const sqlite = new Sqlite({
  path,
  now: Date.now,
  onReplaced: reason => {
    throw reason
  },
  onCheckpointFailed: reason => {
    throw reason
  },
  checkpointLimits: { workerPages: 20, commitPages: 1_000_000, idleMs: 60_000 },
})
const count = sqlite.prepare('SELECT count(*) AS n FROM documents')
const put = sqlite.prepare(`
  INSERT INTO documents (key, size, stored_at, media_type, attributes, bytes) VALUES (?, 20000, 0, 'a/b', '{}', zeroblob(20000))`)
for (let n = Number(count.get()?.n), last = n + Number(rounds); n < last; n++) {
  put.run(`d${n}`)
  writeSync(output, `${n + 1}\n`)
  await setImmediate()
}
