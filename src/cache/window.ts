/**
 * The bytes of a download that are still in memory, as the chunks that upstream sent: contiguous, in order, never copied.
 * Readers close behind the download take their bytes from here, so that one chunk in memory serves all of them without a file read.
 */
export class Window {
  #chunks: Buffer[] = []
  #starts: number[] = []
  #head = 0
  #end = 0

  /** Position of the first byte held; equals `end` when nothing is. */
  get start(): number {
    return this.#starts[this.#head] ?? this.#end
  }

  /** Position after the last byte held. */
  get end(): number {
    return this.#end
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#starts.push(this.#end)
    this.#end += chunk.length
  }

  /** The bytes from `position` to the end of the chunk that holds it, or undefined when they are not in memory. */
  at(position: number): Buffer | undefined {
    if (position < this.start || position >= this.#end) return undefined
    const index = this.#indexOf(position)
    return this.#chunks[index]?.subarray(position - (this.#starts[index] ?? 0))
  }

  /** Whole chunks from `position` (a chunk border) on, at most about `maxBytes` of them and at least one. */
  from(position: number, maxBytes: number): Buffer[] {
    const chunks: Buffer[] = []
    let bytes = 0
    for (let index = this.#indexOf(position); index < this.#chunks.length && bytes < maxBytes; index++) {
      const chunk = this.#chunks[index]
      if (chunk === undefined) break
      chunks.push(chunk)
      bytes += chunk.length
    }
    return chunks
  }

  /** Forgets chunks that end at or before `position`. */
  dropBefore(position: number): void {
    while (this.#head < this.#chunks.length) {
      const next = this.#starts[this.#head + 1] ?? this.#end
      if (next > position) break
      this.#chunks[this.#head] = nothing
      this.#head++
    }
    if (this.#head > 256 && this.#head * 2 > this.#chunks.length) {
      this.#chunks = this.#chunks.slice(this.#head)
      this.#starts = this.#starts.slice(this.#head)
      this.#head = 0
    }
  }

  #indexOf(position: number): number {
    let low = this.#head
    let high = this.#starts.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if ((this.#starts[middle] ?? 0) <= position) low = middle
      else high = middle - 1
    }
    return low
  }
}

const nothing = Buffer.alloc(0)
