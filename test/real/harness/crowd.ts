import { setTimeout as pause } from 'node:timers/promises'
import { Agent } from 'undici'
import { type Digest, finish, hasher } from '../../../src/oci/digest.ts'
import type { FakeImage } from '../../fakes/image.ts'
import type { LayoverProcess } from './layover.ts'

/** What the clients met while one thing was wrong. */
export type Tally = {
  pulls: number
  /** Complete answers, by length and framing, whose bytes are not those of the digest. */
  wrong: number
  /** Requests that failed at the first replica and were made again at the next one; those that failed there too; those that failed at all three. */
  readonly failed: [once: number, twice: number, thrice: number]
  /** The longest pull, milliseconds. */
  longestMs: number
  /** Why requests failed, for whoever reads a failed run. */
  readonly reasons: string[]
}

export type Tagged = { readonly tag: string; readonly image: FakeImage }

export function newTally(): Tally {
  return { pulls: 0, wrong: 0, failed: [0, 0, 0], longestMs: 0, reasons: [] }
}

const requestTimeoutMs = 20_000
const pauseMs = 150

/** Clients that pull all the time, each at its replica, at a bounded rate. What they got is hashed, all of it. */
export class Crowd {
  readonly #replicas: readonly LayoverProcess[]
  readonly #repository: string
  readonly #choose: () => Tagged
  readonly #agent = new Agent({ connections: 64, headersTimeout: requestTimeoutMs, bodyTimeout: requestTimeoutMs })
  readonly #clients: Promise<void>[] = []
  readonly #running = new Set<Promise<void>>()
  #tally = newTally()
  #left = false

  constructor(options: {
    readonly replicas: readonly LayoverProcess[]
    readonly repository: string
    readonly choose: () => Tagged
  }) {
    this.#replicas = options.replicas
    this.#repository = options.repository
    this.#choose = options.choose
  }

  /** One more client, of the replica of this number. */
  come(replica: number): void {
    this.#clients.push(this.#stay(replica))
  }

  /** What is pulled from now on is counted here. */
  countIn(tally: Tally): void {
    this.#tally = tally
  }

  /** Resolves when what was under way is answered. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#running)
  }

  async leave(): Promise<void> {
    this.#left = true
    await Promise.all(this.#clients)
    await this.#agent.destroy()
  }

  /** One image, manifest and every blob, at the replica of this number; each request again at the next ones if it fails. */
  async pull(first: number, { tag, image }: Tagged, tally: Tally): Promise<void> {
    const begun = performance.now()
    await this.#get(first, { path: `manifests/${tag}`, digest: image.digest }, tally)
    const blobs = [image.config, ...image.layers]
    await Promise.all(blobs.map(({ digest }) => this.#get(first, { path: `blobs/${digest}`, digest }, tally)))
    tally.pulls++
    tally.longestMs = Math.max(tally.longestMs, performance.now() - begun)
  }

  async #stay(replica: number): Promise<void> {
    while (!this.#left) {
      const pull = this.pull(replica, this.#choose(), this.#tally)
      this.#running.add(pull)
      await pull.finally(() => this.#running.delete(pull))
      await pause(pauseMs)
    }
  }

  async #get(first: number, wanted: Wanted, tally: Tally): Promise<void> {
    for (const attempt of [0, 1, 2] as const) {
      const replica = (first + attempt) % this.#replicas.length
      const reason = await this.#attempt(replica, wanted, tally)
      if (reason === undefined) return
      tally.reasons.push(`${wanted.path} at ${replica}: ${reason}`)
      tally.failed[attempt]++
    }
  }

  /** Undefined: it came, whole. Else why not. */
  async #attempt(number: number, { path, digest }: Wanted, tally: Tally): Promise<string | undefined> {
    const replica = this.#replicas[number]
    if (replica === undefined) throw new Error('there are no replicas')
    try {
      const { statusCode, body } = await this.#agent.request({
        origin: replica.url,
        path: `/v2/${this.#repository}/${path}`,
        method: 'GET',
        headers: { accept: 'application/vnd.oci.image.manifest.v1+json' },
      })
      const hash = hasher('sha256')
      for await (const chunk of body as AsyncIterable<Buffer>) hash.update(chunk)
      if (statusCode !== 200) return String(statusCode)
      if (finish('sha256', hash) === digest) return undefined
      tally.wrong++
      return 'wrong bytes'
    } catch (error) {
      return error instanceof Error ? `${error.name} ${error.message}` : String(error)
    }
  }
}

type Wanted = { readonly path: string; readonly digest: Digest }
