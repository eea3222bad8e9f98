import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { algorithmOf, type Digest, hexOf, isDigest } from '../oci/digest.ts'
import { Turns } from './turns.ts'

export type PendingUpload = { readonly digest: Digest; readonly size: number }
export type StartedMultipart = { readonly digest: Digest; readonly uploadId: string }

/**
 * What still has to be uploaded, as empty files named `sha256-<hex>-<size>` in one directory, and the multipart uploads under way as files
 * `sha256-<hex>.multipart` that hold the upload id. Nothing is synced: after a power cut a few uploads may be forgotten, none is wrong.
 */
export class S3Queue {
  readonly #path: string
  readonly #turns = new Turns<Digest>()

  /** `path` is created when missing. */
  constructor(path: string) {
    this.#path = path
  }

  add({ digest, size }: PendingUpload): Promise<void> {
    return this.#turns.run(digest, () => this.#write(pendingName(digest, size), ''))
  }

  remove({ digest, size }: PendingUpload): Promise<void> {
    return this.#turns.run(digest, () => rm(join(this.#path, pendingName(digest, size)), { force: true }))
  }

  started({ digest, uploadId }: StartedMultipart): Promise<void> {
    return this.#turns.run(digest, () => this.#write(multipartName(digest), uploadId))
  }

  /** Forgets a multipart upload; one that was begun for the same blob since stays. */
  ended({ digest, uploadId }: StartedMultipart): Promise<void> {
    const path = join(this.#path, multipartName(digest))
    return this.#turns.run(digest, async () => {
      if ((await readFile(path, 'utf8').catch(() => '')) === uploadId) await rm(path, { force: true })
    })
  }

  /** What an earlier process left to do. Files of other names are left alone. */
  async load(): Promise<{
    readonly pending: readonly PendingUpload[]
    readonly multiparts: readonly StartedMultipart[]
  }> {
    await mkdir(this.#path, { recursive: true, mode: 0o750 })
    const names = await readdir(this.#path)
    const multiparts: StartedMultipart[] = []
    for (const name of names.filter(name => name.endsWith(multipartSuffix))) {
      const digest = digestFrom(name.slice(0, -multipartSuffix.length))
      const uploadId = await readFile(join(this.#path, name), 'utf8')
      if (digest !== undefined && uploadId !== '') multiparts.push({ digest, uploadId })
    }
    return { pending: names.flatMap(name => pendingFrom(name) ?? []), multiparts }
  }

  /** Resolves when what was asked for is on disk. */
  idle(): Promise<void> {
    return this.#turns.idle()
  }

  async #write(name: string, text: string): Promise<void> {
    const path = join(this.#path, name)
    try {
      await writeFile(path, text, { mode: 0o640 })
    } catch {
      // Somebody removed the directory at run time.
      await mkdir(this.#path, { recursive: true, mode: 0o750 })
      await writeFile(path, text, { mode: 0o640 })
    }
  }
}

const multipartSuffix = '.multipart'
const stem = (digest: Digest): string => `${algorithmOf(digest)}-${hexOf(digest)}`
const pendingName = (digest: Digest, size: number): string => `${stem(digest)}-${size}`
const multipartName = (digest: Digest): string => `${stem(digest)}${multipartSuffix}`

function digestFrom(text: string): Digest | undefined {
  const digest = text.replace('-', ':')
  return isDigest(digest) ? digest : undefined
}

function pendingFrom(name: string): PendingUpload | undefined {
  const match = /^(\w+-[0-9a-f]+)-(\d{1,15})$/.exec(name)
  const digest = digestFrom(match?.[1] ?? '')
  return digest === undefined ? undefined : { digest, size: Number(match?.[2]) }
}
