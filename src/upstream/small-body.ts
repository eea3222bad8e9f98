import { transportError } from './failure.ts'
import { headerOf, type TransportAnswer } from './transport.ts'
import { UpstreamError } from './upstream.ts'

type ReadOptions = {
  readonly upstream: string
  readonly maxBytes: number
  readonly onBytes: (bytes: number) => void
  readonly signal?: AbortSignal | undefined
}

// The idle timeout alone would let a byte now and then hold a request for ever.
const maxReadMs = 2 * 60_000

/**
 * The whole body, at most `maxBytes` of it whatever Content-Length says (P-42, T-41, T-45). Throws `invalid`/`too_large` beyond, and
 * `unavailable` when it breaks.
 */
export async function readSmallBody(answer: TransportAnswer, options: ReadOptions): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  const claimed = Number(headerOf(answer, 'content-length') ?? 0)
  if (claimed > options.maxBytes) {
    answer.body.on('error', () => {}).destroy()
    throw tooLarge(options)
  }
  const deadline = setTimeout(() => answer.body.destroy(tooSlow()), maxReadMs)
  try {
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      length += chunk.length
      options.onBytes(chunk.length)
      // Leaving the loop destroys the body.
      if (length > options.maxBytes) throw tooLarge(options)
      chunks.push(chunk)
    }
  } catch (error) {
    options.signal?.throwIfAborted()
    throw transportError(options.upstream, error, { phase: 'body', redirected: false })
  } finally {
    clearTimeout(deadline)
  }
  return Buffer.concat(chunks, length)
}

function tooSlow(): Error {
  return Object.assign(new Error('the body took too long'), { code: 'UND_ERR_BODY_TIMEOUT' })
}

function tooLarge({ upstream, maxBytes }: ReadOptions): UpstreamError {
  return new UpstreamError('invalid', upstream, 'too_large', `upstream answers with more than ${maxBytes} bytes`)
}
