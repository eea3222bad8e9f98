import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { S3Config } from '../../src/config/config.ts'

export const accessKeyId = 'AKIDCANARY'
export const secretAccessKey = 'canary-secret-access-key'

export type StoredObject = { readonly bytes: Buffer; readonly headers: Readonly<Record<string, string>> }

/** One request as the service saw it. */
export type Seen = {
  readonly method: string
  readonly key: string
  readonly query: URLSearchParams
  readonly headers: IncomingMessage['headers']
  readonly signed: 'header' | 'url'
  readonly status: () => number
}

/** What goes wrong instead of an answer. `cut`: the connection ends after so many bytes of the body (0: before the head). */
export type S3Fault =
  | { readonly kind: 'status'; readonly status: number; readonly code: string }
  | { readonly kind: 'cut'; readonly after: number }
  /** Says nothing more after so many bytes of the body, and keeps the connection. */
  | { readonly kind: 'stall'; readonly after: number }
  | { readonly kind: 'hang' }
  | { readonly kind: 'wrongBytes' }
  /** Takes the body of an upload as slowly as this, in milliseconds for all of it. */
  | { readonly kind: 'slow'; readonly ms: number }

export type S3Options = {
  readonly bucket?: string
  /** false: as older services that do not know the header. */
  readonly conditionalPuts?: 'honoured' | 'ignored' | 'refused'
  readonly checksums?: 'honoured' | 'ignored' | 'refused'
  /** Without the right to list, missing objects are answered with 403. */
  readonly mayList?: boolean
}

type Multipart = {
  readonly key: string
  readonly headers: Record<string, string>
  readonly parts: Map<number, Buffer>
  readonly initiated: Date
}

/**
 * A bucket in memory that is as strict as AWS: signatures (in headers and in URLs), payload hashes and checksums are verified, conditions hold, and framing of
 * streamed uploads is refused. What it does wrong it does on request.
 */
export class FakeS3 {
  readonly objects = new Map<string, StoredObject>()
  readonly multiparts = new Map<string, Multipart>()
  readonly seen: Seen[] = []
  /** Requests that went wrong because they were told to. */
  struck = 0
  readonly bucket: string
  readonly #options: S3Options
  readonly #faults: {
    readonly matches: (request: IncomingMessage) => boolean
    readonly fault: S3Fault
    left: number
  }[] = []
  readonly #running = new Set<Promise<void>>()
  readonly #server = createServer((request, response) => {
    const served = this.#serve(request, response).finally(() => this.#running.delete(served))
    this.#running.add(served)
  })
  #uploads = 0

  private constructor(options: S3Options) {
    this.#options = options
    this.bucket = options.bucket ?? 'layover'
  }

  static async start(options: S3Options = {}, port = 0): Promise<FakeS3> {
    const fake = new FakeS3(options)
    fake.#server.keepAliveTimeout = 60_000
    await new Promise<void>(resolve => fake.#server.listen(port, '127.0.0.1', resolve))
    return fake
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`
  }

  config(changes: Partial<S3Config> = {}): S3Config {
    return {
      bucket: this.bucket,
      prefix: '',
      endpoint: this.endpoint,
      region: 'us-east-1',
      pathStyle: true,
      sse: undefined,
      storageClass: undefined,
      tags: {},
      multipartBytes: 1024 ** 3,
      uploads: 4,
      requestTimeoutMs: 5_000,
      ...changes,
    }
  }

  /** The next `times` requests that match go wrong. `method` may be followed by part of the URL: `PUT partNumber`. */
  break(which: string, fault: S3Fault, times = Number.POSITIVE_INFINITY): void {
    const [method, part = ''] = which.split(' ')
    const matches = (request: IncomingMessage): boolean =>
      request.method === method && (request.url ?? '').includes(part)
    this.#faults.push({ matches, fault, left: times })
  }

  heal(): void {
    this.#faults.length = 0
    this.#server.closeAllConnections()
  }

  /** Resolves when every request that came has had its effect, those of the dead included. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running)
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>(resolve => this.#server.close(() => resolve()))
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const fault = this.#faultFor(request)
    request.on('error', () => {})
    if (fault?.kind === 'hang') return
    if (fault?.kind === 'cut' && fault.after === 0) {
      request.socket.destroy()
      return
    }
    try {
      const body = await bodyOf(request)
      if (fault?.kind === 'slow') await new Promise(resolve => setTimeout(resolve, fault.ms))
      if (fault?.kind === 'status') throw new Refusal(fault.status, fault.code)
      this.#answer(request, response, { body, fault })
    } catch (error) {
      const { status, code } = error instanceof Refusal ? error : new Refusal(500, 'InternalError')
      const xml =
        request.method === 'HEAD'
          ? ''
          : `<?xml version="1.0"?><Error><Code>${code}</Code><Message>told</Message></Error>`
      response.writeHead(status, { 'content-type': 'application/xml' }).end(xml)
    }
  }

  #faultFor(request: IncomingMessage): S3Fault | undefined {
    const found = this.#faults.find(({ left, matches }) => left > 0 && matches(request))
    if (found === undefined) return undefined
    found.left -= 1
    this.struck += 1
    return found.fault
  }

  #answer(
    request: IncomingMessage,
    response: ServerResponse,
    { body, fault }: { body: Buffer; fault: S3Fault | undefined },
  ): void {
    const url = new URL(request.url ?? '/', this.endpoint)
    const [, bucket, ...path] = url.pathname.split('/')
    const key = path.map(decodeURIComponent).join('/')
    const signed = verifySignature(request, url, body)
    const method = request.method ?? ''
    this.seen.push({
      method,
      key,
      query: url.searchParams,
      headers: request.headers,
      signed,
      status: () => response.statusCode,
    })
    if (bucket !== this.bucket) throw new Refusal(404, 'NoSuchBucket')
    const exchange = { request, response, key, body, query: url.searchParams, fault }
    if (method === 'PUT' && url.searchParams.has('partNumber')) this.#putPart(exchange)
    else if (method === 'PUT') this.#put(exchange)
    else if (method === 'POST' && url.searchParams.has('uploads')) this.#createMultipart(exchange)
    else if (method === 'POST') this.#completeMultipart(exchange)
    else if (method === 'DELETE') this.#delete(exchange)
    else if (method === 'GET' && key === '' && url.searchParams.has('uploads')) this.#listMultiparts(exchange)
    else if (method === 'GET' && key === '') this.#list(exchange)
    else if (method === 'GET' || method === 'HEAD') this.#get(exchange)
    else throw new Refusal(405, 'MethodNotAllowed')
  }

  #put({ request, response, key, body }: Exchange): void {
    const checksum = request.headers['x-amz-checksum-sha256']
    if (checksum !== undefined) this.#check(String(checksum), body)
    if (request.headers['if-none-match'] !== undefined) this.#condition(key)
    this.objects.set(key, { bytes: body, headers: amzHeaders(request) })
    response.writeHead(200, { etag: `"${hex(body)}"` }).end()
  }

  #check(checksum: string, body: Buffer): void {
    const { checksums = 'honoured' } = this.#options
    if (checksums === 'refused') throw new Refusal(501, 'NotImplemented')
    const right = createHash('sha256').update(body).digest('base64')
    if (checksums === 'honoured' && checksum !== right) throw new Refusal(400, 'BadDigest')
  }

  #condition(key: string): void {
    const { conditionalPuts = 'honoured' } = this.#options
    if (conditionalPuts === 'refused') throw new Refusal(501, 'NotImplemented')
    if (conditionalPuts === 'honoured' && this.objects.has(key)) throw new Refusal(412, 'PreconditionFailed')
  }

  #createMultipart({ request, response, key }: Exchange): void {
    this.#uploads += 1
    const id = `upload-${this.#uploads}`
    this.multiparts.set(id, { key, headers: amzHeaders(request), parts: new Map(), initiated: new Date() })
    xml(
      response,
      `<InitiateMultipartUploadResult><Bucket>${this.bucket}</Bucket><Key>${key}</Key><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`,
    )
  }

  #putPart({ response, query, body }: Exchange): void {
    this.#multipart(query).parts.set(Number(query.get('partNumber')), body)
    response.writeHead(200, { etag: `"${hex(body)}"` }).end()
  }

  #completeMultipart({ request, response, query, body, key }: Exchange): void {
    const upload = this.#multipart(query)
    const wanted = [...body.toString().matchAll(/<PartNumber>(\d+)<\/PartNumber>/g)].map(match => Number(match[1]))
    const etags = [...body.toString().matchAll(/<ETag>(?:&quot;|")?([0-9a-f]+)(?:&quot;|")?<\/ETag>/g)].map(
      match => match[1],
    )
    const parts = wanted.map((number, index) => {
      const part = upload.parts.get(number)
      if (part === undefined || hex(part) !== etags[index]) throw new Refusal(400, 'InvalidPart')
      return part
    })
    if (request.headers['if-none-match'] !== undefined) this.#condition(key)
    this.objects.set(upload.key, { bytes: Buffer.concat(parts), headers: upload.headers })
    this.multiparts.delete(query.get('uploadId') ?? '')
    xml(response, `<CompleteMultipartUploadResult><ETag>"x-${parts.length}"</ETag></CompleteMultipartUploadResult>`)
  }

  #multipart(query: URLSearchParams): Multipart {
    const upload = this.multiparts.get(query.get('uploadId') ?? '')
    if (upload === undefined) throw new Refusal(404, 'NoSuchUpload')
    return upload
  }

  #delete({ response, key, query }: Exchange): void {
    const id = query.get('uploadId')
    if (id !== null && !this.multiparts.delete(id)) throw new Refusal(404, 'NoSuchUpload')
    if (id === null) this.objects.delete(key)
    response.writeHead(204).end()
  }

  #list({ response, query }: Exchange): void {
    const prefix = query.get('prefix') ?? ''
    const entries = [...this.objects]
      .filter(([key]) => key.startsWith(prefix) && key > (query.get('start-after') ?? ''))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .slice(0, Number(query.get('max-keys') ?? 1000))
      .map(([key, { bytes }]) => `<Contents><Key>${key}</Key><Size>${bytes.byteLength}</Size></Contents>`)
    xml(response, `<ListBucketResult><IsTruncated>false</IsTruncated>${entries.join('')}</ListBucketResult>`)
  }

  #listMultiparts({ response, query }: Exchange): void {
    const prefix = query.get('prefix') ?? ''
    const entries = [...this.multiparts]
      .filter(([, { key }]) => key.startsWith(prefix))
      .map(
        ([id, { key, initiated }]) =>
          `<Upload><Key>${key}</Key><UploadId>${id}</UploadId><Initiated>${initiated.toISOString()}</Initiated></Upload>`,
      )
    xml(
      response,
      `<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>${entries.join('')}</ListMultipartUploadsResult>`,
    )
  }

  #get({ request, response, key, fault }: Exchange): void {
    const object = this.objects.get(key)
    if (object === undefined)
      throw this.#options.mayList === false ? new Refusal(403, 'AccessDenied') : new Refusal(404, 'NoSuchKey')
    const total = object.bytes.byteLength
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
    const from = Number(range?.[1] ?? 0)
    const to = Math.min(range?.[2] ? Number(range[2]) : total - 1, total - 1)
    if (range !== null && from >= total) throw new Refusal(416, 'InvalidRange')
    const bytes = Buffer.from(object.bytes.subarray(from, to + 1))
    if (fault?.kind === 'wrongBytes') bytes.reverse()
    response.writeHead(range === null ? 200 : 206, {
      'content-length': bytes.byteLength,
      'content-type': object.headers['content-type'] ?? 'binary/octet-stream',
      ...(request.headers['x-amz-checksum-mode'] === 'ENABLED' && checksumOf(object)),
      ...(range !== null && { 'content-range': `bytes ${from}-${to}/${total}` }),
    })
    if (request.method === 'HEAD') response.end()
    else if (fault?.kind === 'stall') response.write(bytes.subarray(0, fault.after))
    else if (fault?.kind === 'cut') response.write(bytes.subarray(0, fault.after), () => request.socket.destroy())
    else response.end(bytes)
  }
}

type Exchange = {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly key: string
  readonly body: Buffer
  readonly query: URLSearchParams
  readonly fault: S3Fault | undefined
}

class Refusal extends Error {
  readonly status: number
  readonly code: string
  constructor(status: number, code: string) {
    super(code)
    this.status = status
    this.code = code
  }
}

/** What was verified when the object was put, as long as nobody changed it behind the service's back. */
function checksumOf({ headers }: StoredObject): Record<string, string> {
  const checksum = headers['x-amz-checksum-sha256']
  return checksum === undefined ? {} : { 'x-amz-checksum-sha256': checksum }
}

function xml(response: ServerResponse, text: string): void {
  response.writeHead(200, { 'content-type': 'application/xml' }).end(`<?xml version="1.0" encoding="UTF-8"?>${text}`)
}

function amzHeaders(request: IncomingMessage): Record<string, string> {
  const named = Object.entries(request.headers).filter(([name]) => name.startsWith('x-amz-') || name === 'content-type')
  return Object.fromEntries(named.map(([name, value]) => [name, String(value)]))
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

const hex = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex')
const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest()
const encode = (text: string): string =>
  encodeURIComponent(text).replaceAll(/[!'()*]/g, char => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)

type Claim = {
  readonly credential: string
  readonly signedHeaders: string
  readonly signature: string
  readonly date: string
  readonly payload: string
}

/** Signature Version 4. https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html */
function verifySignature(request: IncomingMessage, url: URL, body: Buffer): 'header' | 'url' {
  const signed = url.searchParams.has('X-Amz-Signature') ? 'url' : 'header'
  const claim = signed === 'url' ? urlClaim(url) : headerClaim(request)
  const [id, day = '', region = '', service = '', terminal] = claim.credential.split('/')
  if (id !== accessKeyId) throw new Refusal(403, 'InvalidAccessKeyId')
  if (service !== 's3' || terminal !== 'aws4_request') throw new Refusal(403, 'SignatureDoesNotMatch')
  if (Math.abs(Date.now() - timeOf(claim.date)) > 15 * 60_000) throw new Refusal(403, 'RequestTimeTooSkewed')
  const names = claim.signedHeaders.split(';')
  if (!names.includes('host')) throw new Refusal(403, 'SignatureDoesNotMatch')
  const unsigned = Object.keys(request.headers).filter(name => name.startsWith('x-amz-') && !names.includes(name))
  if (unsigned.length > 0) throw new Refusal(403, 'AccessDenied')
  const query = [...url.searchParams]
    .filter(([name]) => name !== 'X-Amz-Signature')
    .map(([name, value]) => `${encode(name)}=${encode(value)}`)
    .sort()
    .join('&')
  const headers = names.map(name => `${name}:${String(request.headers[name]).trim().replaceAll(/ +/g, ' ')}\n`).join('')
  const canonical = [request.method, url.pathname, query, headers, claim.signedHeaders, claim.payload].join('\n')
  const toSign = ['AWS4-HMAC-SHA256', claim.date, `${day}/${region}/s3/aws4_request`, hex(canonical)].join('\n')
  const key = [region, service, 'aws4_request'].reduce(hmac, hmac(`AWS4${secretAccessKey}`, day))
  const [mine, theirs] = [hmac(key, toSign), Buffer.from(claim.signature, 'hex')]
  if (mine.length !== theirs.length || !timingSafeEqual(mine, theirs)) throw new Refusal(403, 'SignatureDoesNotMatch')
  if (claim.payload.startsWith('STREAMING')) throw new Refusal(411, 'MissingContentLength')
  if (claim.payload !== 'UNSIGNED-PAYLOAD' && claim.payload !== hex(body))
    throw new Refusal(400, 'XAmzContentSHA256Mismatch')
  return signed
}

function headerClaim({ headers }: IncomingMessage): Claim {
  const match = /^AWS4-HMAC-SHA256 Credential=(\S+), SignedHeaders=(\S+), Signature=([0-9a-f]+)$/.exec(
    headers.authorization ?? '',
  )
  if (match === null) throw new Refusal(403, 'AccessDenied')
  const [, credential = '', signedHeaders = '', signature = ''] = match
  return {
    credential,
    signedHeaders,
    signature,
    date: String(headers['x-amz-date']),
    payload: String(headers['x-amz-content-sha256']),
  }
}

function urlClaim(url: URL): Claim {
  const get = (name: string): string => url.searchParams.get(`X-Amz-${name}`) ?? ''
  if (Date.now() > timeOf(get('Date')) + Number(get('Expires')) * 1000) throw new Refusal(403, 'AccessDenied')
  return {
    credential: get('Credential'),
    signedHeaders: get('SignedHeaders'),
    signature: get('Signature'),
    date: get('Date'),
    payload: 'UNSIGNED-PAYLOAD',
  }
}

/** `20260102T030405Z` as epoch milliseconds. */
function timeOf(date: string): number {
  return Date.parse(date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'))
}
