import type { Readable } from 'node:stream'

/**
 * Reads a stream to its end, chunk by chunk and without joining chunks. `take` may return a promise: the stream is paused until it settles.
 * Rejects with the stream's error, with what `take` throws (the stream is destroyed), or when the stream closes before its end, or did so
 * before anybody read it.
 */
export function consume(body: Readable, take: (chunk: Buffer) => Promise<void> | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    let ended = false
    const fail = (error: unknown): void => {
      reject(error instanceof Error ? error : new Error(String(error)))
      body.destroy()
    }
    body.on('data', (chunk: Buffer) => {
      try {
        const wait = take(chunk)
        if (wait === undefined) return
        body.pause()
        wait.then(() => body.resume(), fail)
      } catch (error) {
        fail(error)
      }
    })
    body.once('end', () => {
      ended = true
      resolve()
    })
    body.on('error', fail)
    const closed = (): void => {
      if (!ended) fail(body.errored ?? new Error('the connection was closed before the end of the body'))
    }
    // Of what was told before, nothing is told again.
    if (body.destroyed) closed()
    else body.once('close', closed)
  })
}
