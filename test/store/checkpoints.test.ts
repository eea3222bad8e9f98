import { spawn } from 'node:child_process'
import diagnostics from 'node:diagnostics_channel'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, it, onTestFinished } from 'vitest'
import type { CheckpointLimits } from '../../src/store/checkpoints.ts'
import { Sqlite } from '../../src/store/sqlite.ts'
import { temporaryDirectory } from './opened.ts'

const pageBytes = 4096
/** No commit ever makes a checkpoint. */
const workerOnly: CheckpointLimits = { workerPages: 100, commitPages: 1_000_000_000, idleMs: 60_000 }
/** Ten pages and a few. */
const insertDocument = `
  INSERT INTO documents (key, size, stored_at, media_type, attributes, bytes) VALUES (?, 40000, 0, 'a/b', '{}', zeroblob(40000))`
const slowWorker = new URL('./slow-checkpoint-worker.ts', import.meta.url)
const loop = join(import.meta.dirname, 'checkpoint-loop.ts')

const workerOf = (source: string): URL => new URL(`data:text/javascript,${encodeURIComponent(source)}`)
const idleWorker = workerOf(`
  import { parentPort } from 'node:worker_threads'
  parentPort.on('message', order => order === 'end' && parentPort.close())`)
const dyingWorker = workerOf(`
  import { parentPort } from 'node:worker_threads'
  parentPort.on('message', () => process.exit(3))`)

type Opening = { readonly limits?: CheckpointLimits; readonly worker?: URL }

/** An index of its own, what it reported, and a way to write about `pages` pages to it, one commit after the other. */
function openedIndex({ limits = workerOnly, worker }: Opening = {}) {
  const path = join(temporaryDirectory(), 'index.sqlite')
  const failures: string[] = []
  const replaced: string[] = []
  const sqlite = new Sqlite({
    path,
    now: () => 1,
    onReplaced: reason => void replaced.push(reason.message),
    onCheckpointFailed: reason => void failures.push(reason.message),
    checkpointLimits: limits,
    ...(worker && { checkpointWorker: worker }),
  })
  onTestFinished(() => sqlite.close())
  const put = sqlite.prepare(insertDocument)
  let written = 0
  const write = (pages: number): void => {
    for (let n = 0; n < pages; n += 10) put.run(`d${written++}`)
  }
  return { path, sqlite, failures, replaced, write, written: () => written }
}

async function until(met: () => boolean): Promise<void> {
  while (!met()) await delay(5)
}

/** Pages in the log that are not in the database, as another connection sees it. */
function backlogOf(path: string): number {
  const connection = new DatabaseSync(path)
  const row = connection.prepare('PRAGMA wal_checkpoint(NOOP)').get()
  connection.close()
  return Number(row?.log) - Number(row?.checkpointed)
}

type Moving = { readonly path: string; readonly write: (pages: number) => void; readonly below: number }

/** Our own look at the log may be in the way of a checkpoint, which then moves nothing; commits that follow ask for another one. */
async function untilMoved({ path, write, below }: Moving): Promise<void> {
  for (let looks = 1; backlogOf(path) >= below; looks++) {
    if (looks % 100 === 0) write(10)
    await delay(5)
  }
}

const logPages = (path: string): number => Math.floor(statSync(`${path}-wal`).size / pageBytes)

function found(path: string): { readonly integrity: unknown; readonly documents: number } {
  const connection = new DatabaseSync(path)
  const integrity = connection.prepare('PRAGMA integrity_check').get()?.integrity_check
  const documents = Number(connection.prepare('SELECT count(*) AS n FROM documents').get()?.n)
  connection.close()
  return { integrity, documents }
}

const checkpointThreads = (): number =>
  readdirSync('/proc/self/task').filter(task => threadName(task) === 'checkpoint').length

function threadName(task: string): string {
  try {
    return readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trim()
  } catch {
    // It ended meanwhile.
    return ''
  }
}

it('a storm of writes leaves a small log, and no checkpoint is made on the event loop', async () => {
  // A commit here writes more than ten pages, so the worker goes on until all of them are moved, and then the log starts over.
  const { path, sqlite, failures, write, written } = openedIndex({ limits: { ...workerOnly, workerPages: 10 } })
  const onThisThread = new Set<string>()
  const note = (message: unknown): void => {
    if (typeof message === 'object' && message !== null && 'sql' in message) onThisThread.add(String(message.sql))
  }
  diagnostics.subscribe('sqlite.db.query', note)
  onTestFinished(() => void diagnostics.unsubscribe('sqlite.db.query', note))

  for (let burst = 0; burst < 30; burst++) {
    write(300)
    await untilMoved({ path, write, below: 1 })
  }
  // 9,000 pages were written: several times over.
  expect(logPages(path)).toBeLessThan(2000)
  expect(checkpointThreads()).toBe(1)
  await sqlite.close()
  expect(checkpointThreads()).toBe(0)
  expect(failures).toEqual([])
  expect([...onThisThread].filter(sql => sql.includes('wal_checkpoint('))).toEqual(['PRAGMA wal_checkpoint(NOOP)'])
  expect(found(path)).toEqual({ integrity: 'ok', documents: written() })
})

it('starts no thread while little is written, and ends it when nothing is written for a while', async () => {
  const { path, write } = openedIndex({ limits: { ...workerOnly, idleMs: 30 } })
  write(50)
  expect(checkpointThreads()).toBe(0)
  for (let round = 0; round < 2; round++) {
    write(200)
    await untilMoved({ path, write, below: workerOnly.workerPages })
    await until(() => checkpointThreads() === 0)
  }
})

it('commits make checkpoints themselves where the worker does not keep up', async () => {
  const { path, write, failures } = openedIndex({ limits: { ...workerOnly, commitPages: 500 }, worker: idleWorker })
  write(5000)
  expect(logPages(path)).toBeGreaterThan(400)
  expect(logPages(path)).toBeLessThan(600)
  expect(failures).toEqual([])
})

it.each([
  ['dies', dyingWorker, 'exited with 3'],
  ['cannot be started', new URL('./no-such-worker.ts', import.meta.url), 'Cannot find module'],
])('commits make checkpoints themselves where the worker %s, which is reported once', async (_, worker, reason) => {
  const { path, sqlite, write, written, failures } = openedIndex({ worker })
  write(200)
  await until(() => failures.length > 0)
  write(5000)
  await delay(0)
  expect(failures).toEqual([expect.stringContaining(reason)])
  expect(logPages(path)).toBeLessThan(1300)
  await sqlite.close()
  expect(found(path)).toEqual({ integrity: 'ok', documents: written() })
})

it('closes while a checkpoint is asked for', async () => {
  for (let round = 0; round < 3; round++) {
    const { path, sqlite, write, written } = openedIndex()
    write(300)
    await Promise.all([sqlite.close(), sqlite.close()])
    expect(checkpointThreads()).toBe(0)
    expect(existsSync(`${path}-wal`)).toBe(false)
    expect(found(path)).toEqual({ integrity: 'ok', documents: written() })
  }
})

it('closes while a checkpoint runs, which is brought to its end', async () => {
  const { path, sqlite, write, written, failures } = openedIndex({ worker: slowWorker })
  write(300)
  await until(() => failures.length > 0)
  await sqlite.close()
  expect(checkpointThreads()).toBe(0)
  expect(existsSync(`${path}-wal`)).toBe(false)
  expect(found(path)).toEqual({ integrity: 'ok', documents: written() })
})

it('a database that is replaced while a checkpoint runs keeps its log', async () => {
  const { path, sqlite, write, failures } = openedIndex({ worker: slowWorker })
  write(300)
  await until(() => failures.length > 0)
  sqlite.replace(new Error('malformed'))
  write(20)
  await delay(400)
  expect(existsSync(`${path}-wal`)).toBe(true)
  await sqlite.close()
  expect(found(path)).toEqual({ integrity: 'ok', documents: 2 })
  expect(found(`${path}.corrupt-1`).integrity).toBe('ok')
})

it('the worker puts no empty database where the file was removed', async () => {
  const { path, write, failures } = openedIndex()
  write(300)
  // The worker was asked and has not come to it: its thread is not up yet.
  renameSync(path, `${path}.away`)
  await until(() => failures.length > 0)
  expect(new Set(failures)).toEqual(new Set(['a checkpoint of the index failed: unable to open database file']))
  expect(existsSync(path)).toBe(false)
})

it('keeps no process alive', async () => {
  const directory = temporaryDirectory()
  const child = spawn(process.execPath, [loop, join(directory, 'index.sqlite'), '50', join(directory, 'said')], {
    env: {},
    stdio: 'inherit',
  })
  expect(await once(child, 'close')).toEqual([0, null])
})

it('F-33: kill -9 while checkpoints run loses nothing that was committed', async () => {
  const directory = temporaryDirectory()
  const path = join(directory, 'index.sqlite')
  for (let round = 0; round < 6; round++) {
    const said = join(directory, `said-${round}`)
    const child = spawn(process.execPath, [loop, path, '1000000', said], { env: {}, stdio: 'inherit' })
    const closed = once(child, 'close')
    await until(() => existsSync(said) && readFileSync(said, 'utf8').includes('\n'))
    await delay(60 + ((round * 37) % 88))
    child.kill('SIGKILL')
    expect(await closed).toEqual([null, 'SIGKILL'])
    const promised = Number(readFileSync(said, 'utf8').trim().split('\n').at(-1))
    expect(promised).toBeGreaterThan(0)
    // One more may have been committed before it could be said.
    const { integrity, documents } = found(path)
    expect(integrity).toBe('ok')
    expect([promised, promised + 1]).toContain(documents)
  }
})
