import { Readable } from 'node:stream'
import type { Peer } from '../../src/upstream/peer.ts'
import { type UpstreamBlob, UpstreamError } from '../../src/upstream/upstream.ts'

/** Another replica of which the test decides every byte. Unless told otherwise it is dead. */
export class PuppetPeer implements Peer {
  /** The offset of each question so far. */
  readonly asked: number[] = []
  /** What the next questions are answered with. */
  answer: (offset: number) => UpstreamBlob | Promise<UpstreamBlob> = () => {
    throw new UpstreamError('unavailable', 'peer', 'connect', 'no connection')
  }

  async open(_digest: unknown, offset: number): Promise<UpstreamBlob> {
    this.asked.push(offset)
    return await this.answer(offset)
  }

  async close(): Promise<void> {}

  /** From now on it gives bodies that the test writes; they are listed in `bodies`. */
  serve({ size, from }: { readonly size?: number; readonly from?: number } = {}): void {
    this.answer = offset => {
      const body = new Readable({ read() {}, highWaterMark: 1 << 20 })
      this.bodies.push(body)
      return { offset: from ?? offset, size, etag: undefined, body }
    }
  }

  readonly bodies: Readable[] = []

  die(): void {
    this.answer = () => {
      throw new UpstreamError('unavailable', 'peer', 'connect', 'no connection')
    }
    for (const body of this.bodies.splice(0)) body.destroy(brokenBody())
  }
}

export const brokenBody = (reason = 'truncated'): UpstreamError =>
  new UpstreamError('unavailable', 'peer', reason, 'the connection ended too early')
