import { close, fstat, fsync, open, read, writev } from 'node:fs'
import { promisify } from 'node:util'

const openFile = promisify(open)
const closeFile = promisify(close)
const syncFile = promisify(fsync)
const statFile = promisify(fstat)

/** Opens `path` for reading, or creates it for reading and writing (it must not exist yet). Rejects with the system's error. */
export async function openDescriptor(path: string, mode: 'read' | 'create'): Promise<Descriptor> {
  return new Descriptor(await openFile(path, mode === 'read' ? 'r' : 'wx+', 0o640))
}

/**
 * One open file, used by many readers at once. Raw descriptors and callbacks: a FileHandle costs several times as much per read.
 * `close` waits for the calls under way, because the system would give the number to the next file that is opened.
 */
export class Descriptor {
  readonly #fd: number
  #running = 0
  #closing: PromiseWithResolvers<void> | undefined

  constructor(fd: number) {
    this.#fd = fd
  }

  /** Reads 1 … `length` bytes at `position`; 0 at the end. */
  read(buffer: Uint8Array, position: number, length: number): Promise<number> {
    return this.#call(done => read(this.#fd, buffer, 0, length, position, done))
  }

  /** Writes all of `chunks` at `position`, however many calls the system needs for that. */
  async write(chunks: readonly Uint8Array[], position: number): Promise<void> {
    let rest = chunks.filter(chunk => chunk.byteLength > 0)
    let at = position
    while (rest.length > 0) {
      const buffers = rest
      const written = await this.#call<number>(done => writev(this.#fd, buffers, at, done))
      if (written === 0) throw Object.assign(new Error('EIO: the system wrote nothing'), { code: 'EIO' })
      at += written
      rest = withoutFirst(rest, written)
    }
  }

  async size(): Promise<number> {
    return (await this.#whileOpen(() => statFile(this.#fd))).size
  }

  sync(): Promise<void> {
    return this.#whileOpen(() => syncFile(this.#fd))
  }

  /** Safe to repeat. */
  close(): Promise<void> {
    if (this.#closing === undefined) {
      this.#closing = Promise.withResolvers()
      if (this.#running === 0) this.#release(this.#closing)
    }
    return this.#closing.promise
  }

  #call<Result>(start: (done: (error: Error | null, result: Result) => void) => void): Promise<Result> {
    if (this.#closing !== undefined) return Promise.reject(alreadyClosed())
    return new Promise((resolve, reject) => {
      start((error, result) => {
        this.#ended()
        if (error) reject(error)
        else resolve(result)
      })
      // Counted after the call, which throws at once for arguments that make no sense.
      this.#running += 1
    })
  }

  async #whileOpen<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#closing !== undefined) throw alreadyClosed()
    this.#running += 1
    try {
      return await work()
    } finally {
      this.#ended()
    }
  }

  #ended(): void {
    this.#running -= 1
    if (this.#running === 0 && this.#closing !== undefined) this.#release(this.#closing)
  }

  #release(closing: PromiseWithResolvers<void>): void {
    closeFile(this.#fd).then(closing.resolve, closing.reject)
  }
}

function alreadyClosed(): Error {
  return Object.assign(new Error('EBADF: the file was closed'), { code: 'EBADF' })
}

function withoutFirst(chunks: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes
  return chunks.flatMap(chunk => {
    const skipped = Math.min(skip, chunk.byteLength)
    skip -= skipped
    return skipped === chunk.byteLength ? [] : [chunk.subarray(skipped)]
  })
}
