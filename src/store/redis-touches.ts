import { LRUCache } from 'lru-cache'
import type { RedisConnection } from './redis-connection.ts'

export type RedisTouchesOptions = {
  readonly connection: RedisConnection
  readonly ttlMs: number
  /** Milliseconds that never jump. */
  readonly monotonic: () => number
}

/** A key's time to live starts anew at most so often per replica: a hit costs no write. Much less than any time to live. */
const restMs = 60 * 60_000
const rememberedKeys = 32_768
const keysPerBatch = 512

/** Lets what is used live on. Gathered in memory and written in batches beside; what is lost is a little of a time to live. */
export class RedisTouches {
  readonly #options: RedisTouchesOptions
  readonly #recent = new LRUCache<string, number>({ max: rememberedKeys })
  readonly #pending = new Set<string>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: RedisTouchesOptions) {
    this.#options = options
  }

  note(key: string): void {
    const now = this.#options.monotonic()
    const before = this.#recent.get(key)
    if (before !== undefined && now - before < restMs) return
    this.#recent.set(key, now)
    // More at once than one batch: the next use will do.
    if (this.#pending.size < keysPerBatch) this.#pending.add(key)
    this.#timer ??= setTimeout(() => void this.flush(), 1000).unref()
  }

  /** Never rejects. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const keys = [...this.#pending]
    this.#pending.clear()
    if (keys.length === 0) return
    const { connection, ttlMs } = this.#options
    await connection
      .run('removal', commands => Promise.all(keys.map(key => commands.pexpire(key, ttlMs))))
      .catch(() => keys.forEach(key => this.#recent.delete(key)))
  }
}
