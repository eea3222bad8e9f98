import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import {
  asked,
  type CheckpointAnswer,
  type CheckpointOrder,
  type CheckpointWork,
  idle,
  running,
} from './checkpoint-work.ts'

export type CheckpointLimits = {
  /** So many pages of 4 KiB in the log that are not in the database yet: the worker is asked. */
  readonly workerPages: number
  /** So many pages in the log: SQLite makes a checkpoint as part of a commit, whatever became of the worker. */
  readonly commitPages: number
  /** The worker ends when it had nothing to do for so long. */
  readonly idleMs: number
}

/** 4 MiB: as often as SQLite would by itself. 64 MiB: where writes never pause for as long as a checkpoint takes. */
export const defaultCheckpointLimits: CheckpointLimits = { workerPages: 1000, commitPages: 16_384, idleMs: 30_000 }

export type CheckpointOptions = {
  /** The database. */
  readonly path: string
  /** A checkpoint failed, or the worker is lost and every commit may have to make one. */
  readonly failed: (reason: Error) => void
  readonly limits?: CheckpointLimits
  /** The file that the worker runs. */
  readonly worker?: URL
}

/** What SQLite does by itself. https://www.sqlite.org/pragma.html#pragma_wal_autocheckpoint */
const sqlitePages = 1000
/** What the log may keep of the disk once it starts over. */
const logBytes = 16 * 1024 * 1024
/** As long as a disk may take before it is given up to wait for it. */
const patienceMs = 10_000

/**
 * Checkpoints of a database in WAL mode, away from the event loop. The worker is started when there is something to do, and it ends
 * when there was nothing for a while. It holds no connection between checkpoints, and keeps no process alive.
 * Where there is no worker, SQLite makes checkpoints as part of a commit, as it does by default.
 */
export class Checkpoints {
  readonly #options: CheckpointOptions
  readonly #limits: CheckpointLimits
  readonly #state = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
  #connection: DatabaseSync | undefined
  #backlog: StatementSync | undefined
  #worker: { readonly thread: Worker; readonly exited: Promise<void> } | undefined
  #ending = false
  #lost = false
  #askedAt = 0
  #rest: NodeJS.Timeout | undefined

  constructor(options: CheckpointOptions) {
    this.#options = options
    this.#limits = options.limits ?? defaultCheckpointLimits
  }

  /** Takes care of the log of `connection`, instead of the one before. */
  attach(connection: DatabaseSync): void {
    this.#connection = connection
    this.#askedAt = 0
    this.#lost ||= !canTellBacklog(connection)
    const pages = this.#lost ? sqlitePages : this.#limits.commitPages
    connection.exec(`PRAGMA wal_autocheckpoint = ${pages}; PRAGMA journal_size_limit = ${logBytes}`)
    this.#backlog = this.#lost ? undefined : connection.prepare('PRAGMA wal_checkpoint(NOOP)')
  }

  /** Call after each commit. Asks the worker where the log has grown enough; costs a few microseconds where it has not. */
  committed(): void {
    // Not while a checkpoint runs: telling the backlog takes the same lock, and a checkpoint that finds it taken moves nothing.
    if (this.#lost || this.#ending || Atomics.load(this.#state, 0) !== idle) return
    const log = this.#logToMove()
    if (log === undefined) return
    this.#askedAt = log
    try {
      this.#worker ??= this.#start()
      Atomics.store(this.#state, 0, asked)
      this.#order('checkpoint')
      this.#endWhenIdle()
    } catch (error) {
      this.#lose(error)
    }
  }

  /** When this returns, the worker has no connection and will not open one: the files may be moved, or closed for good. */
  hold(): void {
    Atomics.compareExchange(this.#state, 0, asked, idle)
    Atomics.wait(this.#state, 0, running, patienceMs)
  }

  /** Resolves when the worker is gone; a checkpoint that runs is brought to its end. Safe to repeat. */
  async end(): Promise<void> {
    Atomics.compareExchange(this.#state, 0, asked, idle)
    this.#worker?.thread.ref()
    this.#endWorker()
    await this.#worker?.exited
    this.#backlog = undefined
  }

  /** Pages in the log, where enough of them wait and, after a checkpoint that could not move all, the log has grown since. */
  #logToMove(): number | undefined {
    try {
      const row = this.#backlog?.get()
      const log = Number(row?.log ?? 0)
      const { workerPages, commitPages } = this.#limits
      // From commitPages on, the worker would be in the way of the next commit, which finishes what the worker could not.
      if (log - Number(row?.checkpointed ?? 0) < workerPages || log >= commitPages) return undefined
      return log < this.#askedAt || log - this.#askedAt >= workerPages ? log : undefined
    } catch {
      // Rows are being read, or the database is beyond use, which the next statement finds.
      return undefined
    }
  }

  #start(): { readonly thread: Worker; readonly exited: Promise<void> } {
    // mode=rw: where the file was removed, the worker must not put an empty one in its place.
    const database = pathToFileURL(this.#options.path)
    database.searchParams.set('mode', 'rw')
    const workerData: CheckpointWork = { database: database.href, state: this.#state }
    const file = this.#options.worker ?? new URL('./checkpoint-worker.ts', import.meta.url)
    const thread = new Worker(file, { name: 'checkpoint', workerData, execArgv: [] })
    const { promise: exited, resolve } = Promise.withResolvers<void>()
    let cause: unknown
    thread
      .on('message', ({ failure, complete }: CheckpointAnswer) => {
        if (failure !== undefined) this.#options.failed(new Error(`a checkpoint of the index failed: ${failure}`))
        if (complete) this.#askedAt = 0
        // What was written meanwhile may be enough for another one, and there may be no commit for a while.
        this.committed()
      })
      .on('error', error => {
        cause = error
      })
      .on('exit', code => {
        this.#exited(cause ?? new Error(`it exited with ${code}`))
        resolve()
      })
    thread.unref()
    return { thread, exited }
  }

  #exited(cause: unknown): void {
    const expected = this.#ending
    this.#worker = undefined
    this.#ending = false
    Atomics.store(this.#state, 0, idle)
    Atomics.notify(this.#state, 0)
    if (!expected) this.#lose(cause)
  }

  #lose(cause: unknown): void {
    this.#lost = true
    clearTimeout(this.#rest)
    Atomics.compareExchange(this.#state, 0, asked, idle)
    if (this.#connection?.isOpen) this.#connection.exec(`PRAGMA wal_autocheckpoint = ${sqlitePages}`)
    const reason = cause instanceof Error ? cause.message : String(cause)
    const what = 'until the next start, requests may have to wait for checkpoints of the index'
    this.#options.failed(new Error(`the thread for checkpoints is lost (${reason}): ${what}`, { cause }))
  }

  #endWhenIdle(): void {
    clearTimeout(this.#rest)
    this.#rest = setTimeout(() => this.#endWorker(), this.#limits.idleMs).unref()
  }

  #endWorker(): void {
    clearTimeout(this.#rest)
    if (this.#worker === undefined || this.#ending) return
    this.#ending = true
    this.#order('end')
  }

  #order(order: CheckpointOrder): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    this.#worker?.thread.postMessage(order)
  }
}

/** NOOP is known since SQLite 3.51; before, it would have made a checkpoint. https://www.sqlite.org/pragma.html#pragma_wal_checkpoint */
function canTellBacklog(connection: DatabaseSync): boolean {
  const [major = 0, minor = 0] = String(connection.prepare('SELECT sqlite_version() AS v').get()?.v)
    .split('.')
    .map(Number)
  return major > 3 || (major === 3 && minor >= 51)
}
