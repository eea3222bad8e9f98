import { existsSync, renameSync, rmSync } from 'node:fs'
import { DatabaseSync, type SQLInputValue, type SQLOutputValue, type StatementSync } from 'node:sqlite'
import { type CheckpointLimits, Checkpoints } from './checkpoints.ts'
import { migrations } from './schema.ts'

export type SqliteOptions = {
  readonly path: string
  /** Epoch milliseconds, for the name of a file that is moved aside. */
  readonly now: () => number
  /** The database could not be used any more and an empty one took its place. */
  readonly onReplaced: (reason: Error) => void
  /** A checkpoint failed, or checkpoints cannot be made apart from the event loop any more. */
  readonly onCheckpointFailed: (reason: Error) => void
  readonly checkpointLimits?: CheckpointLimits
  /** The file that makes the checkpoints, on a thread of its own. */
  readonly checkpointWorker?: URL
}

export type Row = Record<string, SQLOutputValue>
export type Value = SQLInputValue

/** A statement that is prepared when it is first used, and again after the database was replaced. */
export type Statement = {
  readonly sql: string
  get(...values: Value[]): Row | undefined
  all(...values: Value[]): Row[]
  /** Rows one by one; stop early to read no more. Do not write to the same table meanwhile. */
  each(...values: Value[]): Iterable<Row>
  /** Gives how many rows were changed. */
  run(...values: Value[]): number
}

/**
 * One SQLite file that holds nothing that cannot be fetched again. A malformed file, at start or later, is moved aside and an empty
 * one takes its place: trouble of the cache is not trouble of its clients. Everything here is synchronous, so calls are kept small.
 */
export class Sqlite {
  readonly #options: SqliteOptions
  readonly #checkpoints: Checkpoints
  #connection: DatabaseSync
  #generation = 0
  #inTransaction = false
  #closed = false
  #closing: Promise<void> | undefined

  /** Opens or creates the database. Throws when it is of a newer version, or when the directory cannot be used. */
  constructor(options: SqliteOptions) {
    this.#options = options
    const { path, onCheckpointFailed: failed, checkpointLimits: limits, checkpointWorker: worker } = options
    this.#checkpoints = new Checkpoints({ path, failed, ...(limits && { limits }), ...(worker && { worker }) })
    this.#connection = this.#openOrReplace()
    this.#checkpoints.attach(this.#connection)
  }

  prepare(sql: string): Statement {
    let statement: StatementSync | undefined
    let generation = -1
    const current = (): StatementSync => {
      if (statement === undefined || generation !== this.#generation) {
        statement = this.#connection.prepare(sql)
        generation = this.#generation
      }
      return statement
    }
    return {
      sql,
      get: (...values) => this.#perform(() => current().get(...values)),
      all: (...values) => this.#perform(() => current().all(...values)),
      each: (...values) => this.#perform(() => current().iterate(...values)),
      run: (...values) => this.#commit(() => Number(current().run(...values).changes)),
    }
  }

  /** All of `work` or nothing of it. `work` may run a second time, on an empty database. */
  transaction<Result>(work: () => Result): Result {
    if (this.#inTransaction) return work()
    return this.#commit(() => {
      this.#connection.exec('BEGIN IMMEDIATE')
      this.#inTransaction = true
      try {
        const result = work()
        this.#connection.exec('COMMIT')
        return result
      } catch (error) {
        if (this.#connection.isTransaction) this.#connection.exec('ROLLBACK')
        throw error
      } finally {
        this.#inTransaction = false
      }
    })
  }

  /** Starts again with an empty database, because of `cause`: the file is malformed, or was removed at run time. */
  replace(cause: unknown): void {
    // A connection that closes last removes the log by its name, which would be that of the new database.
    this.#checkpoints.hold()
    this.#quietlyClose()
    this.#connection = this.#openEmpty(cause)
    this.#generation += 1
    this.#checkpoints.attach(this.#connection)
  }

  /** Resolves when nothing is open and no thread is left. Safe to repeat. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#closed = true
    await this.#checkpoints.end()
    this.#connection.close()
  }

  #commit<Result>(work: () => Result): Result {
    const result = this.#perform(work)
    if (!this.#inTransaction && !this.#closed) this.#checkpoints.committed()
    return result
  }

  #perform<Result>(work: () => Result): Result {
    try {
      return work()
    } catch (error) {
      if (this.#closed || this.#inTransaction || !isBeyondUse(error)) throw error
      this.replace(error)
      return work()
    }
  }

  #openOrReplace(): DatabaseSync {
    try {
      return open(this.#options.path)
    } catch (error) {
      if (!(error instanceof SchemaMismatch) && !isBeyondUse(error)) throw error
      return this.#openEmpty(error)
    }
  }

  #openEmpty(cause: unknown): DatabaseSync {
    const { path, now, onReplaced } = this.#options
    const aside = `${path}.corrupt-${now()}`
    const moved = moveAside(path, aside)
    const connection = open(path)
    onReplaced(replaced(path, moved ? `what was there is now ${aside}` : 'nothing was there any more', cause))
    return connection
  }

  #quietlyClose(): void {
    try {
      this.#connection.close()
    } catch {
      // It is being thrown away.
    }
  }
}

class SchemaMismatch extends Error {}

function open(path: string): DatabaseSync {
  const connection = new DatabaseSync(path, { timeout: 2000 })
  try {
    // NORMAL: a power loss may take the last transactions, never the database; blobs whose row was lost are adopted again.
    connection.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY')
    migrate(connection, path)
    if (schemaOf(connection) !== expectedSchema()) throw new SchemaMismatch('the tables are not those of this version')
    if (connection.prepare('SELECT 1 FROM counters WHERE id = 1').get() === undefined)
      throw new SchemaMismatch('the counters are missing')
    return connection
  } catch (error) {
    connection.close()
    throw error
  }
}

function migrate(connection: DatabaseSync, path: string): void {
  const version = Number(connection.prepare('PRAGMA user_version').get()?.user_version)
  if (version > migrations.length)
    throw new Error(
      `${path} was written by a newer Layover (schema ${version}, this one knows ${migrations.length}): run that one, ` +
        'or move the file away; cached blobs are then found again as they are asked for',
    )
  if (version === migrations.length) return
  if (version === 0 && schemaOf(connection) !== '') throw new SchemaMismatch('it is not an index of Layover')
  connection.exec(
    `BEGIN IMMEDIATE; ${migrations.slice(version).join(';\n')}; PRAGMA user_version = ${migrations.length}; COMMIT`,
  )
}

function schemaOf(connection: DatabaseSync): string {
  const rows = connection.prepare("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name").all()
  return rows.map(row => String(row.sql)).join('\n')
}

let schema: string | undefined

function expectedSchema(): string {
  if (schema === undefined) {
    const model = new DatabaseSync(':memory:')
    model.exec(migrations.join(';\n'))
    schema = schemaOf(model)
    model.close()
  }
  return schema
}

/** SQLITE_CORRUPT 11, SQLITE_NOTADB 26, SQLITE_READONLY_DBMOVED 1032. https://www.sqlite.org/rescode.html */
function isBeyondUse(error: unknown): boolean {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number') return false
  const primary = error.errcode & 0xff
  return primary === 11 || primary === 26 || error.errcode === 1032
}

/** False: there was nothing to move. */
function moveAside(path: string, aside: string): boolean {
  const exists = existsSync(path)
  if (exists) renameSync(path, aside)
  if (existsSync(`${path}-wal`)) renameSync(`${path}-wal`, `${aside}-wal`)
  rmSync(`${path}-shm`, { force: true })
  return exists
}

function replaced(path: string, what: string, cause: unknown): Error {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new Error(
    `${path} cannot be used (${reason}): ${what}, and an empty index took its place; cached blobs are found again`,
    { cause },
  )
}
