import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { request } from 'undici'
import { startLayoverProcess } from '../test/real/harness/layover.ts'
import { freePort } from '../test/fakes/ports.ts'
import { scratch, start } from '../test/real/harness/process.ts'
import { startRegistry } from '../test/real/harness/registry.ts'
import type { Tree } from './tree.ts'

/** Something that serves the tree, or stands before what does. */
export type Server = {
  readonly name: string
  readonly host: string
  readonly port: number
  readonly pid: number
  close(): Promise<void>
}

/** The upstream: nginx with the tree on disk, and its own account of what it sent. */
export type UpstreamServer = Server & {
  /** What it logged since the last call about these request targets. A request is logged when its last byte was handed to the system. */
  takeLedger(targets: readonly string[]): Promise<{ readonly gets: number; readonly bytes: number }>
}

type NginxOptions = {
  readonly name: string
  /** Of the http block. */
  readonly http?: (directory: string) => string
  /** Of the one server block. */
  readonly server: (directory: string) => string
}

async function startNginx({ name, http, server }: NginxOptions): Promise<Server & { readonly directory: string }> {
  const place = await scratch('nginx')
  const directory = place.path
  const port = await freePort()
  const configPath = join(directory, 'nginx.conf')
  await mkdir(join(directory, 'cache'))
  await writeFile(
    configPath,
    `${process.getuid?.() === 0 ? 'user root;\n' : ''}daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid ${directory}/pid;
error_log ${directory}/error.log warn;
events { worker_connections 4096; }
http {
  client_body_temp_path ${directory}/body;
  proxy_temp_path ${directory}/proxy;
  fastcgi_temp_path ${directory}/fastcgi;
  scgi_temp_path ${directory}/scgi;
  uwsgi_temp_path ${directory}/uwsgi;
  keepalive_requests 1000000;
  access_log off;
  log_format ledger '$request_method $uri $status $body_bytes_sent';
  ${http?.(directory) ?? ''}
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location = /v2/ { default_type application/json; return 200 '{}'; }
    ${server(directory)}
  }
}
`,
  )
  const running = await start({
    command: 'nginx',
    args: ['-c', configPath, '-e', join(directory, 'error.log')],
    env: { PATH: `${process.env['PATH']}:/usr/sbin` },
    ready: () => answers(`http://127.0.0.1:${port}/v2/`),
  })
  return {
    name,
    directory,
    host: `127.0.0.1:${port}`,
    port,
    pid: running.pid,
    async close() {
      await running.end()
      await place.remove()
    },
  }
}

async function answers(url: string): Promise<boolean> {
  const answer = await request(url).catch(() => undefined)
  await answer?.body.dump()
  return answer?.statusCode === 200
}

/** The types and digests of manifests, which a file cannot carry. */
function manifestHeaders({ manifests }: Tree): string {
  const lines = [...manifests].map(([path, { digest }]) => `    ${path} ${digest};`)
  return `map_hash_bucket_size 256;
  map $uri $manifest_digest {\n${lines.join('\n')}\n  }`
}

function treeLocations({ directory, manifests }: Tree): string {
  const [type = 'application/json'] = [...manifests.values()].map(({ mediaType }) => mediaType)
  return `root ${directory};
    types {}
    default_type application/octet-stream;
    location ~ /manifests/ { default_type ${type}; add_header Docker-Content-Digest $manifest_digest; }`
}

export async function startUpstream(tree: Tree): Promise<UpstreamServer> {
  const nginx = await startNginx({
    name: 'upstream',
    http: () => manifestHeaders(tree),
    server: directory => `sendfile on; access_log ${directory}/ledger ledger;\n    ${treeLocations(tree)}`,
  })
  let taken = 0
  return {
    ...nginx,
    async takeLedger(targets) {
      const text = await readFile(join(nginx.directory, 'ledger'), 'utf8')
      const lines = text.slice(taken).split('\n')
      taken = text.length
      const wanted = lines
        .map(line => line.split(' '))
        .filter(([method, target]) => method === 'GET' && targets.includes(target ?? ''))
      return { gets: wanted.length, bytes: wanted.reduce((sum, fields) => sum + Number(fields[3]), 0) }
    },
  }
}

/** The floor: the same files from nginx itself. */
export function startStaticNginx(tree: Tree, sendfile: 'on' | 'off'): Promise<Server> {
  return startNginx({
    name: `nginx static, sendfile ${sendfile}`,
    http: () => manifestHeaders(tree),
    server: () => `sendfile ${sendfile};\n    ${treeLocations(tree)}`,
  })
}

const proxying = (upstream: string): string =>
  `proxy_pass http://${upstream}; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_read_timeout 600s;`

/** Passes everything on and keeps nothing. */
export function startProxyNginx(upstream: string): Promise<Server> {
  return startNginx({
    name: 'nginx proxy',
    server: () => `location / { ${proxying(upstream)} proxy_max_temp_file_size 0; }`,
  })
}

/** The usual recipe: a cache whose followers wait for whoever came first. */
export function startCacheNginx(upstream: string): Promise<Server> {
  return startNginx({
    name: 'nginx proxy_cache',
    http: directory =>
      `proxy_cache_path ${directory}/cache levels=1:2 keys_zone=blobs:10m max_size=20g inactive=1d use_temp_path=off;`,
    server: () => `location / {
      ${proxying(upstream)}
      proxy_cache blobs; proxy_cache_valid 200 1d;
      proxy_cache_lock on; proxy_cache_lock_timeout 600s; proxy_cache_lock_age 600s;
    }`,
  })
}

/** Debian's docker-registry as a pull-through cache. */
export async function startCacheRegistry(upstream: string): Promise<Server> {
  const registry = await startRegistry({ proxyOf: `http://${upstream}`, accessLog: false })
  return {
    name: 'docker-registry proxy',
    host: registry.host,
    port: Number(new URL(registry.url).port),
    pid: registry.pid,
    close: () => registry.close(),
  }
}

export async function startLayover(upstream: string): Promise<Server> {
  const layover = await startLayoverProcess({
    upstreams: { 'docker.io': false, 'registry.bench': { default: true, url: `http://${upstream}`, insecure: true } },
    // As the peers: no access log.
    settings: { log: { access: false } },
  })
  return {
    name: 'layover',
    host: layover.host,
    port: Number(new URL(layover.url).port),
    pid: layover.pid(),
    close: () => layover.close(),
  }
}
