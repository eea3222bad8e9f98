import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

/** The way to a Redis, which can be slow and can lose an answer. */
export type RedisLink = {
  readonly url: string
  /** Answers that were lost, each with its connection. */
  readonly lost: number
  loseNextAnswer(): void
  stop(): void
}

/** `delayMs`: how much later than they were given answers arrive. */
export async function startRedisLink(port: number, { delayMs = 0 } = {}): Promise<RedisLink> {
  let isLosing = false
  let lost = 0
  const sockets = new Set<Socket>()
  const link = createServer(near => {
    const far = connect(port, '127.0.0.1')
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        near.destroy()
        far.destroy()
      })
    }
    near.pipe(far)
    const pass = async (answer: Buffer): Promise<void> => {
      // Timers of one length end in the order in which they began.
      if (delayMs > 0) await pause(delayMs)
      near.write(answer)
    }
    far.on('data', (answer: Buffer) => {
      // Nobody waits for it: an answer to who has left is written to nobody.
      if (!isLosing) return void pass(answer)
      isLosing = false
      lost++
      near.destroy()
    })
  }).listen(0, '127.0.0.1')
  await once(link, 'listening')
  const address = link.address()
  if (address === null || typeof address === 'string') throw new Error('it has a port')
  return {
    url: `redis://127.0.0.1:${address.port}/0`,
    get lost() {
      return lost
    },
    loseNextAnswer: () => void (isLosing = true),
    stop: () => {
      for (const socket of sockets) socket.destroy()
      link.close()
    },
  }
}
