import { connect, type Socket } from 'node:net'

/**
 * Load clients, as cheap as they come: raw sockets that read into one shared buffer and throw the bytes away. Runs as a process of its own,
 * so that its CPU time is not the server's. Takes one {@link PullPlan} as JSON argument, writes one {@link PullReport} as JSON line.
 */
export type PullPlan = {
  readonly port: number
  /** Request targets that each client asks for first, one after the other: the manifest. */
  readonly before: readonly string[]
  /** Request targets that each client then asks for, over `connections` connections. */
  readonly paths: readonly string[]
  readonly clients: number
  readonly connections: number
  /** A client stops to read after so many body bytes, and stays. The report comes when all of them stopped. */
  readonly stallAfterBytes?: number
}

export type PullReport = {
  /** Milliseconds from the start to the end of the last client. */
  readonly ms: number
  readonly bytes: number
  /** From request to first body byte, for each request of `paths`. */
  readonly firstByteMs: readonly number[]
  /** What went wrong: status codes, broken connections. Empty when all is well. */
  readonly failures: readonly string[]
}

// One buffer for all: nobody looks at the bytes.
const buffer = Buffer.allocUnsafe(1024 * 1024)

class Connection {
  readonly #socket: Socket
  #head = ''
  #missing = -1
  #body = 0
  #sentAt = 0
  #firstByteAt = 0
  #stallAfter: number
  #settle: { resolve: (body: Body) => void; reject: (error: Error) => void } | undefined

  constructor(port: number, stallAfter: number) {
    this.#stallAfter = stallAfter
    this.#socket = connect({
      port,
      host: '127.0.0.1',
      noDelay: true,
      onread: { buffer, callback: length => this.#onBytes(length) },
    })
    this.#socket.on('error', error => this.#settle?.reject(error))
    this.#socket.on('close', () => this.#settle?.reject(new Error('connection closed early')))
  }

  /** One request at a time. */
  get(target: string): Promise<Body> {
    this.#head = ''
    this.#missing = -1
    this.#body = 0
    this.#firstByteAt = 0
    this.#sentAt = performance.now()
    const answer = new Promise<Body>((resolve, reject) => {
      this.#settle = { resolve, reject }
    })
    this.#socket.write(
      `GET ${target} HTTP/1.1\r\nHost: bench\r\nAccept: application/vnd.oci.image.manifest.v1+json, */*\r\n\r\n`,
    )
    return answer
  }

  destroy(): void {
    this.#settle = undefined
    this.#socket.destroy()
  }

  #onBytes(length: number): boolean {
    const inBody = this.#missing >= 0 ? length : this.#onHead(length)
    if (inBody > 0 && this.#firstByteAt === 0) this.#firstByteAt = performance.now()
    this.#body += inBody
    this.#missing -= inBody
    if (this.#missing === 0 || this.#body >= this.#stallAfter) this.#finish()
    return this.#body < this.#stallAfter
  }

  /** Gives how many of the bytes belong to the body already. */
  #onHead(length: number): number {
    const known = this.#head.length
    this.#head += buffer.toString('latin1', 0, length)
    const end = this.#head.indexOf('\r\n\r\n')
    if (end < 0) return 0
    const head = this.#head.slice(0, end)
    this.#missing = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? NaN)
    if (!head.startsWith('HTTP/1.1 200') || Number.isNaN(this.#missing)) {
      this.#settle?.reject(new Error(head.split('\r\n', 1)[0]))
      return 0
    }
    return length - (end + 4 - known)
  }

  #finish(): void {
    this.#settle?.resolve({ bytes: this.#body, firstByteMs: this.#firstByteAt - this.#sentAt })
    this.#settle = undefined
  }
}

type Body = { readonly bytes: number; readonly firstByteMs: number }

async function pull(plan: PullPlan): Promise<PullReport> {
  const start = performance.now()
  const clients = await Promise.all(Array.from({ length: plan.clients }, () => pullOnce(plan)))
  return {
    ms: performance.now() - start,
    bytes: clients.flatMap(({ bodies }) => bodies).reduce((sum, { bytes }) => sum + bytes, 0),
    firstByteMs: clients.flatMap(({ bodies }) => bodies.map(({ firstByteMs }) => firstByteMs)),
    failures: clients.flatMap(({ failures }) => failures),
  }
}

async function pullOnce(plan: PullPlan): Promise<{ bodies: readonly Body[]; failures: readonly string[] }> {
  const { port, before, paths, connections, stallAfterBytes = Infinity } = plan
  const bodies: Body[] = []
  const failures: string[] = []
  const waiting = [...paths]
  const attempt = async (connection: Connection, path: string): Promise<void> => {
    await connection.get(path).then(
      body => bodies.push(body),
      (error: Error) => failures.push(`${path}: ${error.message}`),
    )
  }
  const work = async (): Promise<void> => {
    const connection = new Connection(port, stallAfterBytes)
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await attempt(connection, next)
    if (stallAfterBytes === Infinity) connection.destroy()
  }
  const first = new Connection(port, Infinity)
  for (const path of before) await first.get(path).catch((error: Error) => failures.push(`${path}: ${error.message}`))
  first.destroy()
  await Promise.all(Array.from({ length: connections }, work))
  return { bodies, failures }
}

if (import.meta.main) {
  const plan = JSON.parse(process.argv[2] ?? '{}') as PullPlan
  process.stdout.write(`${JSON.stringify(await pull(plan))}\n`)
  // Stalled connections stay open until somebody ends this process; a socket that does not read would not keep it alive.
  if (plan.stallAfterBytes !== undefined) setInterval(() => undefined, 60_000)
}
