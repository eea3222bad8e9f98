import { createServer } from 'node:net'

/** Below what systems give to clients and to listeners on port 0 (Linux: 32768 to 60999), so that none of those takes a port before its program does. */
const first = 10_000
const count = 22_000
/** How far apart the places are at which the processes of a test run begin to look. */
const stride = 1_009

let next = (process.pid * stride) % count

/** Ports on 127.0.0.1 that nobody listens on, different at each call: for programs that cannot report which port they took. */
export async function freePorts(wanted: number): Promise<number[]> {
  const ports: number[] = []
  for (let looks = 0; ports.length < wanted && looks < count; looks++) {
    const port = first + (next++ % count)
    if (await isFree(port)) ports.push(port)
  }
  if (ports.length < wanted) throw new Error('no free port')
  return ports
}

export async function freePort(): Promise<number> {
  const [port = 0] = await freePorts(1)
  return port
}

/** The first of two free ports that follow each other. */
export async function freePair(): Promise<number> {
  for (;;) {
    const port = await freePort()
    if (await isFree(port + 1)) {
      next++
      return port
    }
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
