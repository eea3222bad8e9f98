import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import type { Content, Image } from './image.ts'
import { createPacer, type Pacer } from './pacer.ts'

/** The upstream of the demo: one image under one name, read-only, over a link with one rate for everybody, and with a ledger. */
export type DemoRegistry = {
  /** `http://127.0.0.1:<port>` */
  readonly url: string
  readonly ledger: DemoLedger
  /** Refuses and breaks connections from now on. Safe to repeat. */
  stop(): Promise<void>
}

/** What it sent: the side of the account that Layover has no hand in. */
export type DemoLedger = { manifestGets: number; blobGets: number; blobBytes: number; bytes: number }

export type DemoRegistryOptions = {
  readonly repository: string
  readonly tag: string
  readonly image: Image
  /** Absent: as fast as it goes. */
  readonly bytesPerSecond?: number
  /** 0: any free one. */
  readonly port?: number
}

// Small enough that clients of one link share it evenly.
const chunkBytes = 64 * 1024

export async function startDemoRegistry(options: DemoRegistryOptions): Promise<DemoRegistry> {
  const ledger: DemoLedger = { manifestGets: 0, blobGets: 0, blobBytes: 0, bytes: 0 }
  const pass = createPacer(options.bytesPerSecond)
  const find = finder(options)
  const server = createServer((request, response) => {
    answer({ request, response, find, pass, ledger }).catch((error: Error) => response.destroy(error))
  })
  server.listen(options.port ?? 0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the demo registry has no port')
  return {
    url: `http://127.0.0.1:${address.port}`,
    ledger,
    async stop() {
      if (!server.listening) return
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

type Found = { readonly kind: 'manifest' | 'blob'; readonly content: Content }
type Finder = (path: string) => Found | undefined

function finder({ repository, tag, image }: DemoRegistryOptions): Finder {
  const base = `/v2/${repository}`
  const found = new Map<string, Found>([[`${base}/manifests/${tag}`, { kind: 'manifest', content: image.top }]])
  for (const content of image.manifests) found.set(`${base}/manifests/${content.digest}`, { kind: 'manifest', content })
  for (const content of image.blobs) found.set(`${base}/blobs/${content.digest}`, { kind: 'blob', content })
  return path => found.get(path)
}

type Exchange = {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly find: Finder
  readonly pass: Pacer
  readonly ledger: DemoLedger
}

async function answer({ request, response, find, pass, ledger }: Exchange): Promise<void> {
  const { pathname } = new URL(request.url ?? '/', 'http://registry.invalid')
  const isGet = request.method === 'GET'
  if (pathname === '/v2/') {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    return
  }
  const found = find(pathname)
  if (found === undefined) {
    response.writeHead(404, { 'content-type': 'application/json' }).end('{"errors":[{"code":"NAME_UNKNOWN"}]}')
    return
  }
  const { kind, content } = found
  if (isGet && kind === 'blob') ledger.blobGets += 1
  if (isGet && kind === 'manifest') ledger.manifestGets += 1
  const start = kind === 'blob' ? firstByte(request.headers.range, content.bytes.length) : 0
  response.writeHead(start > 0 ? 206 : 200, headers(found, start))
  if (!isGet) {
    response.end()
    return
  }
  const paced = async function* (): AsyncGenerator<Buffer> {
    for (let at = start; at < content.bytes.length; at += chunkBytes) {
      const chunk = content.bytes.subarray(at, at + chunkBytes)
      await pass(chunk.length)
      ledger.bytes += chunk.length
      if (kind === 'blob') ledger.blobBytes += chunk.length
      yield chunk
    }
  }
  await pipeline(paced, response)
}

/** Only `bytes=<n>-` is known here: what a download sends that goes on where it was. */
function firstByte(range: string | undefined, size: number): number {
  const start = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
  return start < size ? start : 0
}

function headers({ kind, content }: Found, start: number): Record<string, string> {
  const size = content.bytes.length
  return {
    'content-type': kind === 'blob' ? 'application/octet-stream' : content.mediaType,
    'content-length': String(size - start),
    'docker-content-digest': content.digest,
    ...(kind === 'blob' && { 'accept-ranges': 'bytes' }),
    ...(start > 0 && { 'content-range': `bytes ${start}-${size - 1}/${size}` }),
  }
}
