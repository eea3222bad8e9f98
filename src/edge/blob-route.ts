import { randomBytes } from 'node:crypto'
import type { Blobs, OpenedBlob } from '../cache/blobs.ts'
import type { Digest } from '../oci/digest.ts'
import { rangeInvalid } from '../oci/errors.ts'
import { etagOf, matchesEtag } from '../oci/etag.ts'
import { octetStream } from '../oci/media-types.ts'
import { type ByteRange, contentRange, ifRangeMatches, lengthOf, parseRange, type RangeRequest } from '../oci/range.ts'
import type { Target } from '../routing/target.ts'
import { formatCacheStatus } from './cache-status.ts'
import type { Exchange } from './exchange.ts'
import { commonHeaders, type HeaderList, immutable } from './headers.ts'
import type { RedirectRule } from './redirect-rule.ts'
import { replyEmpty } from './reply.ts'
import { sendBytes, type WriteWatch } from './send-bytes.ts'

export type BlobRouteDeps = {
  readonly blobs: Blobs
  readonly watch: WriteWatch
  readonly redirect?: RedirectRule | undefined
}
export type BlobRequest = {
  readonly exchange: Exchange
  readonly target: Target
  readonly digest: Digest
}

/** `HEAD /v2/<name>/blobs/<digest>`: from the record or by asking upstream; never fills, never redirects (P-50). */
export async function headBlob({ blobs }: BlobRouteDeps, { exchange, target, digest }: BlobRequest): Promise<void> {
  const { size, outcome } = await blobs.stat(target, digest, exchange.signal)
  exchange.outcome = outcome
  const headers = blobHeaders(exchange, digest)
  if (isNotModified(exchange, digest)) return replyEmpty(exchange, 304, headers)
  if (size !== undefined) headers.push('content-length', String(size))
  replyEmpty(exchange, 200, headers)
}

/** `GET /v2/<name>/blobs/<digest>`: whole, one range or several; from the store or from the running download. */
export async function getBlob(deps: BlobRouteDeps, request: BlobRequest): Promise<void> {
  const { exchange, target, digest } = request
  // Who has it already needs the right to it and nothing more: no download is started for a 304.
  if (isNotModified(exchange, digest)) return await headBlob(deps, request)
  if (await redirectBlob(deps, request)) return
  const blob = await deps.blobs.open(target, digest, exchange.signal)
  try {
    exchange.outcome = blob.outcome
    exchange.source = blob.source
    const wanted = wantedRange(exchange, digest, blob.size)
    if (wanted.kind === 'multi' && blob.size !== undefined)
      return await sendParts({ deps, exchange, blob, digest, ranges: wanted.ranges, size: blob.size })
    await sendOne({ deps, exchange, blob, digest, range: wanted.kind === 'single' ? wanted.range : undefined })
  } finally {
    blob.close()
  }
}

/**
 * Sends a client to the bucket (P-63): one of a network that reaches it, for what is known to be there, and to the same range, which it repeats there.
 * False: it has to be answered from here.
 */
async function redirectBlob({ blobs, redirect }: BlobRouteDeps, request: BlobRequest): Promise<boolean> {
  const { exchange, target, digest } = request
  if (!redirect?.isFor(exchange.req)) return false
  const link = await blobs.linkTo(target, digest, redirect)
  if (!link) return false
  const wanted = wantedRange(exchange, digest, link.size)
  // The service answers several ranges with the whole object.
  if (wanted.kind === 'multi') return false
  exchange.outcome = 'redirected'
  exchange.redirectedBytes = wanted.kind === 'single' ? lengthOf(wanted.range) : link.size
  const headers = commonHeaders(exchange)
  headers.push(
    'location',
    link.url,
    'content-length',
    '0',
    'docker-content-digest',
    digest,
    // The URL ends before any time that could be said here for all who share a cache.
    'cache-control',
    'no-store',
    'cache-status',
    formatCacheStatus({ outcome: exchange.outcome, key: digest }),
  )
  replyEmpty(exchange, 307, headers)
  return true
}

type One = { deps: BlobRouteDeps; exchange: Exchange; blob: OpenedBlob; digest: Digest; range: ByteRange | undefined }

async function sendOne({ deps, exchange, blob, digest, range }: One): Promise<void> {
  const { size } = blob
  const headers = blobHeaders(exchange, digest)
  const whole = size === undefined || size === 0 ? undefined : { start: 0, end: size - 1 }
  const length = range ? lengthOf(range) : size
  if (range && size !== undefined) headers.push('content-range', contentRange(range, size))
  if (length !== undefined) headers.push('content-length', String(length))
  start(exchange, range ? 206 : 200, headers)
  const reader = blob.reader(range ?? whole)
  try {
    if (length !== 0) await sendBytes({ exchange, reader, range: range ?? whole, watch: deps.watch })
  } finally {
    reader.close()
  }
  finish(exchange)
}

type Parts = {
  deps: BlobRouteDeps
  exchange: Exchange
  blob: OpenedBlob
  digest: Digest
  ranges: readonly ByteRange[]
  size: number
}

/** multipart/byteranges (P-54). The boundary needs no quoting. https://www.rfc-editor.org/rfc/rfc9110#section-14.6 */
async function sendParts({ deps, exchange, blob, digest, ranges, size }: Parts): Promise<void> {
  const boundary = `layover-${randomBytes(12).toString('hex')}`
  const heads = ranges.map((range, index) => {
    const lineBreak = index === 0 ? '' : '\r\n'
    return Buffer.from(
      `${lineBreak}--${boundary}\r\nContent-Type: ${octetStream}\r\nContent-Range: ${contentRange(range, size)}\r\n\r\n`,
    )
  })
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`)
  const length =
    ranges.reduce((sum, range) => sum + lengthOf(range), 0) +
    heads.reduce((sum, head) => sum + head.length, tail.length)
  const headers = blobHeaders(exchange, digest, { contentType: `multipart/byteranges; boundary=${boundary}` })
  headers.push('content-length', String(length))
  start(exchange, 206, headers)
  const write = (bytes: Buffer): void => {
    exchange.wrote(bytes.length)
    exchange.res.write(bytes)
  }
  for (const [index, range] of ranges.entries()) {
    write(heads[index] ?? nothing)
    const reader = blob.reader(range)
    try {
      await sendBytes({ exchange, reader, range, watch: deps.watch })
    } finally {
      reader.close()
    }
  }
  write(tail)
  finish(exchange)
}

const nothing = Buffer.alloc(0)

/** From here on Node itself refuses to end the response with another number of bytes than was announced (P-58). */
function start(exchange: Exchange, status: number, headers: HeaderList): void {
  exchange.res.strictContentLength = true
  exchange.res.writeHead(status, headers)
  // A hit has its first bytes at once, and they leave together with the headers.
  if (exchange.outcome !== 'hit') exchange.res.flushHeaders()
}

function finish(exchange: Exchange): void {
  exchange.res.end()
  exchange.complete = true
}

function wantedRange(exchange: Exchange, digest: Digest, size: number | undefined): RangeRequest {
  const { range } = exchange.req.headers
  const ifRange = exchange.req.headers['if-range']
  if (range === undefined || size === undefined) return { kind: 'full' }
  if (!ifRangeMatches(Array.isArray(ifRange) ? ifRange[0] : ifRange, etagOf(digest))) return { kind: 'full' }
  const wanted = parseRange(range, size)
  if (wanted.kind === 'unsatisfiable') throw rangeInvalid(size)
  return wanted
}

function isNotModified(exchange: Exchange, digest: Digest): boolean {
  return matchesEtag(exchange.req.headers['if-none-match'], digest)
}

function blobHeaders(
  exchange: Exchange,
  digest: Digest,
  { contentType = octetStream }: { readonly contentType?: string } = {},
): HeaderList {
  const headers = commonHeaders(exchange)
  headers.push(
    'content-type',
    contentType,
    'docker-content-digest',
    digest,
    'etag',
    etagOf(digest),
    'accept-ranges',
    'bytes',
    'cache-control',
    immutable,
    'cache-status',
    formatCacheStatus({ outcome: exchange.outcome, key: digest }),
  )
  return headers
}
