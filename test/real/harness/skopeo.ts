import { createHash } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Finished, run, scratch } from './process.ts'

/** skopeo with a policy, mirrors and stores of the test's own. */
export type Skopeo = {
  /** Copies every platform of an image (`docker://…`) into an empty directory, bytes as they came. */
  copy(reference: string, ...flags: readonly string[]): Promise<Finished & { readonly copied: () => Promise<Copied> }>
  close(): Promise<void>
}

export type Copied = {
  /** Digest of what the tag named. */
  readonly top: string
  /** Digest of every manifest and blob, computed from the bytes on disk. */
  readonly digests: ReadonlySet<string>
}

/** `registriesConf` is the text of registries.conf: which mirrors stand before which registry. */
export async function prepareSkopeo(registriesConf = ''): Promise<Skopeo> {
  const home = await scratch('skopeo')
  const file = (name: string): string => join(home.path, name)
  await writeFile(file('policy.json'), JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }))
  await writeFile(file('registries.conf'), registriesConf)
  await writeFile(file('auth.json'), '{}')
  const settings = ['--policy', file('policy.json'), '--registries-conf', file('registries.conf')]
  const copy = ['--tmpdir', home.path, 'copy', '--all', '--preserve-digests', '--src-authfile', file('auth.json')]
  let copies = 0
  return {
    async copy(reference, ...flags) {
      copies += 1
      const directory = file(`copy-${copies}`)
      const finished = await run(
        'skopeo',
        [...settings, ...copy, ...flags, `docker://${reference}`, `dir:${directory}`],
        { env: { HOME: home.path, XDG_RUNTIME_DIR: home.path } },
      )
      return { ...finished, copied: () => readCopy(directory) }
    },
    close: () => home.remove(),
  }
}

async function readCopy(directory: string): Promise<Copied> {
  const names = (await readdir(directory)).filter(name => name !== 'version')
  const digests = await Promise.all(names.map(name => digestOfFile(join(directory, name))))
  return { top: await digestOfFile(join(directory, 'manifest.json')), digests: new Set(digests) }
}

async function digestOfFile(path: string): Promise<string> {
  return `sha256:${createHash('sha256')
    .update(await readFile(path))
    .digest('hex')}`
}
