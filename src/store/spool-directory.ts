import { randomUUID } from 'node:crypto'
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { StorageFull, type Budget, type Reservation } from './budget.ts'
import { openDescriptor, type Descriptor } from './descriptor.ts'
import { codeOf } from './system-error.ts'
import type { Spool, SpoolFile, SpoolOptions } from './stores.ts'

export type SpoolDirectoryOptions = {
  readonly path: string
  readonly budget: Budget
  /** Creates the directory again when it was removed at run time. */
  readonly restore: () => Promise<void>
  readonly failed: (operation: string, error: unknown) => void
}

/** The spool as a directory of randomly named files on the file system of the blobs, so that publishing is a rename. */
export class SpoolDirectory implements Spool {
  readonly #options: SpoolDirectoryOptions
  readonly #files = new Map<string, SpoolDirectoryFile>()

  constructor(options: SpoolDirectoryOptions) {
    this.#options = options
  }

  /** Also `undefined` when the directory cannot be written, which is reported: the pull goes on without the cache. */
  async create(expectedBytes: number | undefined, options?: SpoolOptions): Promise<SpoolFile | undefined> {
    const { budget, failed } = this.#options
    const reservation = await budget.reserve(expectedBytes ?? budget.step, options)
    if (reservation === undefined) return undefined
    try {
      return await this.#createFile(reservation)
    } catch (error) {
      reservation.release()
      failed('spool.create', error)
      return undefined
    }
  }

  /** The running file at `path`, by which a store takes it over. */
  fileAt(path: string): SpoolDirectoryFile | undefined {
    return this.#files.get(path)
  }

  async #createFile(reservation: Reservation): Promise<SpoolDirectoryFile> {
    const path = join(this.#options.path, randomUUID())
    const descriptor = await this.#openNew(path)
    const file = new SpoolDirectoryFile({
      path,
      descriptor,
      reservation,
      ended: () => this.#files.delete(path),
      failed: this.#options.failed,
    })
    this.#files.set(path, file)
    return file
  }

  async #openNew(path: string): Promise<Descriptor> {
    try {
      return await openDescriptor(path, 'create')
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
      await this.#options.restore()
      return openDescriptor(path, 'create')
    }
  }
}

type FileOptions = {
  readonly path: string
  readonly descriptor: Descriptor
  readonly reservation: Reservation
  readonly ended: () => void
  readonly failed: (operation: string, error: unknown) => void
}

export class SpoolDirectoryFile implements SpoolFile {
  readonly path: string
  readonly #options: FileOptions
  #state: 'spooled' | 'published' | 'discarded' = 'spooled'

  constructor(options: FileOptions) {
    this.path = options.path
    this.#options = options
  }

  read(buffer: Uint8Array, position: number, length: number): Promise<number> {
    return this.#options.descriptor.read(buffer, position, length)
  }

  async write(chunks: readonly Uint8Array[], position: number): Promise<void> {
    const { descriptor, reservation } = this.#options
    if (this.#state !== 'spooled') throw new Error(`the spool file was ${this.#state}`)
    const end = chunks.reduce((sum, chunk) => sum + chunk.byteLength, position)
    if (!(await reservation.growTo(end))) throw new StorageFull(`no room for ${end} bytes within storage.maxBytes`)
    await descriptor.write(chunks, position)
    reservation.wroteUpTo(end)
  }

  size(): Promise<number> {
    return this.#options.descriptor.size()
  }

  sync(): Promise<void> {
    return this.#options.descriptor.sync()
  }

  /** The store has the bytes now and counts them itself. Reading goes on until `close`. */
  handOver(): void {
    if (this.#state === 'spooled') this.#state = 'published'
    this.#options.reservation.release()
    this.#options.ended()
  }

  async discard(): Promise<void> {
    if (this.#state !== 'spooled') return
    this.#state = 'discarded'
    this.#options.ended()
    try {
      await unlink(this.path)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') this.#options.failed('spool.discard', error)
    } finally {
      this.#options.reservation.release()
    }
  }

  async close(): Promise<void> {
    await this.discard()
    await this.#options.descriptor.close()
  }
}
