import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export type KeyPair = { readonly key: string; readonly cert: string }
export type Authority = {
  readonly caPem: string
  /** A server certificate for these names and addresses; `expired` gives one whose time is over. */
  issue(hosts: string | readonly string[], options?: { readonly expired?: boolean }): Promise<KeyPair>
}

/** A certificate authority of its own, made by openssl; the files are gone when a call returns. */
export async function makeAuthority(): Promise<Authority> {
  const ca = await inTemporaryDirectory(async directory => {
    await openssl(
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout key -out cert -subj',
      directory,
      ['/CN=Layover test authority'],
    )
    return readPair(directory)
  })
  return {
    caPem: ca.cert,
    issue: (hosts, { expired = false } = {}) =>
      inTemporaryDirectory(async directory => {
        const names = (typeof hosts === 'string' ? [hosts] : hosts).map(
          host => `${isIP(host) === 0 ? 'DNS' : 'IP'}:${host}`,
        )
        await writeFile(join(directory, 'ca.key'), ca.key)
        await writeFile(join(directory, 'ca.cert'), ca.cert)
        await writeFile(join(directory, 'extensions'), `subjectAltName=${names.join(',')}\n`)
        await openssl(
          'req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=layover-test -keyout key -out request',
          directory,
        )
        const sign =
          'x509 -req -in request -out cert -CA ca.cert -CAkey ca.key -CAcreateserial -extfile extensions -days'
        await openssl(sign, directory, [expired ? '-1' : '30'])
        return readPair(directory)
      }),
  }
}

function openssl(words: string, cwd: string, more: readonly string[] = []): Promise<unknown> {
  return run('openssl', [...words.split(' '), ...more], { cwd })
}

async function readPair(directory: string): Promise<KeyPair> {
  const [key, cert] = await Promise.all([
    readFile(join(directory, 'key'), 'utf8'),
    readFile(join(directory, 'cert'), 'utf8'),
  ])
  return { key, cert }
}

async function inTemporaryDirectory<Result>(work: (directory: string) => Promise<Result>): Promise<Result> {
  const directory = await mkdtemp(join(tmpdir(), 'layover-certificates-'))
  try {
    return await work(directory)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}
